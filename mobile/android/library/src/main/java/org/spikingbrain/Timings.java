package org.spikingbrain;

/** What a generation took. */
public final class Timings {
    /** Tokens of the prompt. */
    public final int nPrompt;
    /** Of them, those that had to be evaluated: the session did not hold them yet. */
    public final int nPromptEvaluated;
    /** Until the prompt was read, in milliseconds. */
    public final double promptMs;
    /** Tokens of the answer. */
    public final int nGenerated;
    /** From then on, in milliseconds, without the time the caller took between two pieces. */
    public final double generateMs;

    Timings(int nPrompt, int nPromptEvaluated, double promptMs, int nGenerated, double generateMs) {
        this.nPrompt = nPrompt;
        this.nPromptEvaluated = nPromptEvaluated;
        this.promptMs = promptMs;
        this.nGenerated = nGenerated;
        this.generateMs = generateMs;
    }

    /** Prompt tokens evaluated per second; 0 where none was. */
    public double promptTokensPerSecond() {
        return promptMs > 0 ? 1000.0 * nPromptEvaluated / promptMs : 0;
    }

    /** Tokens of the answer per second; 0 where there is none. */
    public double tokensPerSecond() {
        return generateMs > 0 ? 1000.0 * nGenerated / generateMs : 0;
    }
}
