package org.spikingbrain;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** How tokens are chosen (llama.cpp's sampler chain), and when that ends. Setters return this object and throw IllegalArgumentException. */
public final class GenerateOptions {
    int maxTokens;
    double temperature = 0.8;
    int topK = 40;
    double topP = 0.95;
    double minP = 0.05;
    double repeatPenalty = 1.0;
    long seed = -1;
    List<String> stop = new ArrayList<>();

    /** Most tokens of the answer; 0 (the default): {@link Session#defaultMaxTokens} of the prompt. */
    public GenerateOptions maxTokens(int n) {
        maxTokens = Check.range("generate: max_tokens", n, 0, Integer.MAX_VALUE);
        return this;
    }

    /** 0: always the likeliest token; 0.8. Less than 0: the model's distribution untouched. */
    public GenerateOptions temperature(double t) {
        temperature = Check.range("generate: temperature", t, -Float.MAX_VALUE, Float.MAX_VALUE);
        return this;
    }

    /** The k likeliest tokens only; 40, 0 is all. */
    public GenerateOptions topK(int k) {
        topK = k;
        return this;
    }

    /** The likeliest tokens that together have this probability; 0.95. */
    public GenerateOptions topP(double p) {
        topP = Check.range("generate: top_p", p, 0, 1);
        return this;
    }

    /** Tokens of at least this share of the likeliest one's probability; 0.05. */
    public GenerateOptions minP(double p) {
        minP = Check.range("generate: min_p", p, 0, 1);
        return this;
    }

    /** Above 1: tokens read lately become less likely; 1. */
    public GenerateOptions repeatPenalty(double p) {
        Check.that((float) p > 0 && (float) p <= Float.MAX_VALUE, "generate: repeat_penalty: got " + p + ", expected a number above 0; 1 is none");
        repeatPenalty = p;
        return this;
    }

    /** Equal seeds, equal draws; -1 (the default): a new one each time. */
    public GenerateOptions seed(long s) {
        Check.that(s >= -1 && s < 1L << 32, "generate: seed: got " + s + ", expected -1 to 2^32 - 1; -1 is random");
        seed = s;
        return this;
    }

    /** Texts before which the answer ends. */
    public GenerateOptions stop(String... texts) {
        for (String s : texts) {
            Check.that(s != null && !s.isEmpty(), "generate: stop: got " + Arrays.toString(texts) + ", expected texts that are not empty");
        }
        stop = new ArrayList<>(Arrays.asList(texts));
        return this;
    }
}
