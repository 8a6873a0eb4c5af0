package org.spikingbrain;

/** How a session computes. Setters return this object and throw IllegalArgumentException for values out of range. */
public final class SessionOptions {
    private static final int MAX_THREADS = 512;
    private static final int MAX_CPU = 1023;

    int nCtx;
    int nBatch = 512;
    int nUbatch = 512;
    int nThreads;
    int nThreadsBatch;
    int lastNTokens = 64;
    boolean spikeStats;
    private int[] cpus; // null: the big cores

    /** Bound on prompt plus generation, in tokens; 0 (the default): the model's own, which for spikingbrain is none (2^30), or the trained
     *  length where a layer sees all of the text (76B). */
    public SessionOptions nCtx(int n) {
        nCtx = Check.range("session: n_ctx", n, 0, 1 << 30);
        return this;
    }

    /** Tokens handed to llama.cpp at once; 512. */
    public SessionOptions nBatch(int n) {
        nBatch = Check.range("session: n_batch", n, 1, Integer.MAX_VALUE);
        return this;
    }

    /** Tokens computed at once, a micro-batch; 512. Smaller: less memory, progress more often, slower prompts. */
    public SessionOptions nUbatch(int n) {
        nUbatch = Check.range("session: n_ubatch", n, 1, Integer.MAX_VALUE);
        return this;
    }

    /** Threads for single tokens and for prompts; 0 (the default): {@link SpikingBrain#defaultThreads}. */
    public SessionOptions nThreads(int n) {
        nThreads = Check.range("session: n_threads", n, 0, MAX_THREADS);
        return this;
    }

    /** Threads for prompts alone; 0 (the default): as nThreads. */
    public SessionOptions nThreadsBatch(int n) {
        nThreadsBatch = Check.range("session: n_threads_batch", n, 0, MAX_THREADS);
        return this;
    }

    /** Tokens that the penalties look back; 64. */
    public SessionOptions lastNTokens(int n) {
        lastNTokens = Check.range("session: last_n_tokens", n, 0, Integer.MAX_VALUE);
        return this;
    }

    /** Count the spikes (see {@link Session#spikeStats}); slower. */
    public SessionOptions spikeStats(boolean on) {
        spikeStats = on;
        return this;
    }

    /**
     * CPUs that computing threads stay on, by their numbers in /sys/devices/system/cpu; none: anywhere. Not called: on the big cores (see
     * {@link SpikingBrain#defaultThreads}), where there are slower ones and the threads are no more than they. Those that the system denies this
     * process do not count; {@link Session#cpus} tells what was had.
     */
    public SessionOptions cpus(int... ids) {
        for (int id : Check.given("session: cpus", ids)) {
            Check.range("session: cpus", id, 0, MAX_CPU);
        }
        cpus = ids.clone();
        return this;
    }

    int[] cpusForNative() {
        if (cpus != null) {
            return cpus.clone();
        }
        int[] big = Threads.bigCores(Threads.CPUS);
        return Math.max(threads(), threadsBatch()) <= big.length ? big : new int[0];
    }

    int threads() {
        return nThreads > 0 ? nThreads : SpikingBrain.defaultThreads();
    }

    int threadsBatch() {
        return nThreadsBatch > 0 ? nThreadsBatch : threads();
    }
}
