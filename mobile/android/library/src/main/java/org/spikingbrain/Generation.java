package org.spikingbrain;

import java.io.ByteArrayOutputStream;
import java.security.SecureRandom;
import java.util.Arrays;
import java.util.Iterator;
import java.util.List;
import java.util.NoSuchElementException;

/**
 * A stream of text: pieces that join to the answer, none of them empty, none with a part of a character or of a stop string. Made by
 * {@link Session#generate} and {@link Session#chat}; used by one thread. The first hasNext() reads the prompt.
 */
public final class Generation implements Iterator<String>, AutoCloseable {
    /** Why it ended. */
    public enum FinishReason {
        /** An end-of-generation token or a stop string. */
        STOP,
        /** maxTokens, the limit of an answer for which none was named, or n_ctx. */
        LENGTH,
        /** {@link Session#cancel}. */
        CANCELLED
    }

    private static final SecureRandom SEEDS = new SecureRandom();

    private final Session session;
    private final SpikingBrain model;
    private final int[] prompt;
    private final GenerateOptions options;
    private final int maxTokens;
    private final Progress progress;
    private final String chat; // the prompt's text, of a chat that may grow
    private final TextStream stream;
    private final StringBuilder text = new StringBuilder();
    private final ByteArrayOutputStream said = new ByteArrayOutputStream();
    private final long run;
    private final long[] epoch = new long[1];
    private int[] answer = new int[16];
    private int nAnswer;
    private int nEvaluated;
    private boolean begun;
    private boolean ended;
    private FinishReason finishReason;
    private String next;
    private long promptNs;
    private long generateNs;

    Generation(Session session, int[] prompt, List<String> stops, GenerateOptions options, Progress progress, String chat) {
        this.session = session;
        this.model = session.model();
        this.prompt = prompt;
        this.options = options;
        this.maxTokens = options.maxTokens > 0 ? options.maxTokens : session.defaultMaxTokens(prompt.length);
        this.progress = progress;
        this.chat = chat;
        this.stream = new TextStream(stops);
        this.run = session.newRun();
    }

    /**
     * Computes until a piece of text is certain or the answer ends.
     *
     * @throws CancelledException    see {@link Session#cancel}; what was said until then stays in {@link #text}
     * @throws SpikingBrainException another call changed the session's sequence meanwhile
     */
    @Override
    public boolean hasNext() {
        while (next == null && !ended) {
            try {
                advance();
            } catch (CancelledException e) {
                end(FinishReason.CANCELLED);
                throw e;
            }
        }
        return next != null;
    }

    /** The next piece. NoSuchElementException: the answer has ended. Errors: see hasNext. */
    @Override
    public String next() {
        if (!hasNext()) {
            throw new NoSuchElementException("generation: got no further piece, expected hasNext() to be asked first");
        }
        String out = next;
        next = null;
        return out;
    }

    private void advance() {
        long start = System.nanoTime();
        if (!begun) {
            int seed = (int) (options.seed >= 0 && options.seed < 0xFFFFFFFFL ? options.seed : SEEDS.nextInt(Integer.MAX_VALUE));
            long[] read = session.readPrompt(prompt, options, seed, progress, run);
            nEvaluated = (int) read[0];
            epoch[0] = read[1];
            begun = true;
            promptNs = System.nanoTime() - start;
            return;
        }
        try {
            step();
        } finally {
            generateNs += System.nanoTime() - start;
        }
    }

    private void step() {
        int token = session.nextToken(nAnswer > 0 ? answer[nAnswer - 1] : -1, epoch, run);
        if (token < 0 || model.isEog(token)) {
            end(token < 0 ? FinishReason.LENGTH : FinishReason.STOP);
            return;
        }
        answer = nAnswer == answer.length ? Arrays.copyOf(answer, 2 * nAnswer) : answer;
        answer[nAnswer++] = token;
        byte[] piece = model.piece(token);
        said.write(piece, 0, piece.length);
        say(stream.push(piece));
        if (stream.stopped() || nAnswer == maxTokens) {
            end(stream.stopped() ? FinishReason.STOP : FinishReason.LENGTH);
        }
    }

    private void say(String piece) {
        text.append(piece);
        next = piece.isEmpty() ? next : next == null ? piece : next + piece;
    }

    private void end(FinishReason reason) {
        if (!ended) {
            ended = true;
            finishReason = reason;
            say(stream.finish());
            if (chat != null && begun) {
                int[] ids = Arrays.copyOf(prompt, prompt.length + nAnswer);
                System.arraycopy(answer, 0, ids, prompt.length, nAnswer);
                session.keepTurn(chat + Prints.wholeText(said.toByteArray()), ids);
            }
        }
    }

    /** Ends the stream where it is; the session's sequence stays as it is. */
    @Override
    public void close() {
        end(FinishReason.CANCELLED);
        next = null;
    }

    /** All text so far, also what was held back of a stream that was cancelled. */
    public String text() {
        return text.toString();
    }

    /** Tokens of the answer so far, without the end-of-generation token. */
    public int[] tokens() {
        return Arrays.copyOf(answer, nAnswer);
    }

    /** Why it ended, null while it goes on. */
    public FinishReason finishReason() {
        return finishReason;
    }

    /** What it took so far. */
    public Timings timings() {
        return new Timings(prompt.length, nEvaluated, promptNs / 1e6, nAnswer, generateNs / 1e6);
    }
}
