package org.spikingbrain;

import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.CodingErrorAction;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Map;

/** Hashes that tell what a snapshot belongs to, the same as those of saving.py. */
final class Prints {
    private Prints() {}

    static MessageDigest sha256() {
        try {
            return MessageDigest.getInstance("SHA-256");
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException("snapshot: got no SHA-256, expected what every Java has", e);
        }
    }

    /** Of a vocabulary. */
    static String tokenizer(byte[] vocabDigestInput, Map<String, String> metadata) {
        StringBuilder more = new StringBuilder();
        for (String key : new String[] { "tokenizer.ggml.normalizer", "tokenizer.ggml.pre" }) {
            if (metadata.containsKey(key)) {
                more.append(more.length() > 0 ? ", " : "").append("('").append(key).append("', ").append(repr(metadata.get(key))).append(')');
            }
        }
        MessageDigest digest = sha256();
        digest.update(vocabDigestInput);
        digest.update(utf8("[" + more + "]"));
        return hex(digest.digest());
    }

    static byte[] utf8(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static String text(byte[] utf8) {
        return new String(utf8, StandardCharsets.UTF_8);
    }

    /** Without what is no UTF-8, such as half a character. */
    static String wholeText(byte[] utf8) {
        try {
            return StandardCharsets.UTF_8.newDecoder().onMalformedInput(CodingErrorAction.IGNORE).decode(ByteBuffer.wrap(utf8)).toString();
        } catch (CharacterCodingException e) {
            throw new IllegalStateException("text: got " + e + ", expected what is malformed to be left out", e);
        }
    }

    static String hex(byte[] bytes) {
        StringBuilder out = new StringBuilder();
        for (byte b : bytes) {
            out.append(Character.forDigit((b >> 4) & 15, 16)).append(Character.forDigit(b & 15, 16));
        }
        return out.toString();
    }

    static byte[] unhex(String text) {
        byte[] out = new byte[text.length() / 2];
        for (int i = 0; i < out.length; ++i) {
            out[i] = (byte) Integer.parseInt(text.substring(2 * i, 2 * i + 2), 16);
        }
        return out;
    }

    /** A name as Python's repr() prints it. */
    private static String repr(String text) {
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'";
    }
}
