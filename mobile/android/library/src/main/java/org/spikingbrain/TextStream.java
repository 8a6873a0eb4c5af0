package org.spikingbrain;

import java.nio.ByteBuffer;
import java.nio.CharBuffer;
import java.nio.charset.CharsetDecoder;
import java.nio.charset.CodingErrorAction;
import java.nio.charset.StandardCharsets;
import java.util.List;

/** Bytes in, text out: whole characters only, and nothing that may still turn out to begin a stop string. As completion.py. */
final class TextStream {
    private final CharsetDecoder decoder = StandardCharsets.UTF_8.newDecoder()
        .onMalformedInput(CodingErrorAction.IGNORE).onUnmappableCharacter(CodingErrorAction.IGNORE);
    private final List<String> stops;
    private byte[] rest = new byte[0]; // of a character
    private String held = "";
    private boolean stopped;

    TextStream(List<String> stops) {
        this.stops = stops;
    }

    /** Whether a stop string is complete. */
    boolean stopped() {
        return stopped;
    }

    /** The text that is certain after these bytes. */
    String push(byte[] piece) {
        held += decode(piece);
        int end = -1;
        int length = 0;
        for (String stop : stops) { // the one complete first, so that it does not matter how the bytes were cut
            int at = held.indexOf(stop);
            int stopEnd = at + stop.length();
            if (at >= 0 && (end < 0 || stopEnd < end || (stopEnd == end && stop.length() > length))) {
                end = stopEnd;
                length = stop.length();
            }
        }
        if (end >= 0) {
            stopped = true;
            String out = held.substring(0, end - length);
            held = "";
            return out;
        }
        return release(held.length() - unsure());
    }

    /** What was held back, when no more comes; half a character is left out. */
    String finish() {
        return release(held.length());
    }

    private String decode(byte[] piece) {
        ByteBuffer in = ByteBuffer.allocate(rest.length + piece.length);
        in.put(rest).put(piece).rewind();
        CharBuffer out = CharBuffer.allocate(in.remaining() + 1);
        decoder.reset().decode(in, out, false);
        rest = new byte[in.remaining()];
        in.get(rest);
        out.flip();
        return out.toString();
    }

    /** Length of the longest end of the held text that a stop string begins with. */
    private int unsure() {
        int longest = 0;
        for (String stop : stops) {
            for (int n = Math.min(stop.length() - 1, held.length()); n > longest; --n) {
                if (stop.startsWith(held.substring(held.length() - n))) {
                    longest = n;
                }
            }
        }
        return longest;
    }

    private String release(int n) {
        String out = held.substring(0, n);
        held = held.substring(n);
        return out;
    }
}
