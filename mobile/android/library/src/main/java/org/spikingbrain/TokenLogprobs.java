package org.spikingbrain;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/** One token of an answer, what the model thought of it, and the likeliest there; see {@link GenerateOptions#logprobs}. */
public final class TokenLogprobs {
    /** One of the likeliest. */
    public static final class Candidate {
        public final int token;
        /** By itself, control tokens too; without halves of characters. */
        public final String text;
        /** Natural logarithm of its probability, before temperature and penalties. */
        public final double logprob;

        Candidate(int token, String text, double logprob) {
            this.token = token;
            this.text = text;
            this.logprob = logprob;
        }
    }

    public final int token;
    /** By itself, control tokens too; without halves of characters, see {@link #bytes}. */
    public final String text;
    /** Natural logarithm of its probability, before temperature and penalties. */
    public final double logprob;
    /** The likeliest first. */
    public final List<Candidate> top;
    private final byte[] bytes;

    /** found: of Native.logprobs. */
    TokenLogprobs(SpikingBrain model, int token, Object[] found) {
        int[] ids = (int[]) found[0];
        float[] logprobs = (float[]) found[1];
        List<Candidate> likeliest = new ArrayList<>();
        for (int i = 0; i < ids.length; ++i) {
            likeliest.add(new Candidate(ids[i], Prints.wholeText(model.show(ids[i])), logprobs[i + 1]));
        }
        this.token = token;
        this.bytes = model.show(token);
        this.text = Prints.wholeText(bytes);
        this.logprob = logprobs[0];
        this.top = Collections.unmodifiableList(likeliest);
    }

    /** Of the token, maybe a part of a character; a copy. */
    public byte[] bytes() {
        return bytes.clone();
    }
}
