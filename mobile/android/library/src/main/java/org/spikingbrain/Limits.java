package org.spikingbrain;

/** How much a session may hold and computes at once. */
final class Limits {
    /** Most tokens a sequence may hold. */
    final int nCtx;
    /** Tokens per call of llama.cpp. */
    final int step;
    private final SpikingBrain model;
    private final boolean given;

    Limits(SpikingBrain model, int[] ofNative, SessionOptions o) {
        this.model = model;
        this.given = o.nCtx > 0;
        this.nCtx = given ? o.nCtx : ofNative[0];
        this.step = ofNative[1];
    }

    /** See {@link Session#defaultMaxTokens}. */
    int defaultMaxTokens(int nPrompt) {
        int room = nCtx - Check.range("session: n_prompt", nPrompt, 0, Integer.MAX_VALUE);
        return Math.max(0, given ? room : Math.min(room, model.defaultLimit(nPrompt)));
    }

    /** A prompt with room for a token. IllegalArgumentException: none, unknown tokens, no room. */
    int[] prompt(String where, int[] tokens) {
        Check.that(model.checked(where, tokens).length > 0, where + ": prompt: got no tokens, expected at least one; write a prompt");
        Check.room(where, tokens.length + 1L, nCtx);
        return tokens;
    }
}
