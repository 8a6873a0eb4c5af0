package org.spikingbrain;

import java.io.File;
import java.io.IOException;

/** Bytes that a model file will take, from its header alone. Made by {@link SpikingBrain#estimate}. */
public final class MemoryEstimate {
    /** Weights, repacked ones included; pages of a mapped file are counted, though the system may drop them. */
    public final long model;
    /** The state of one session: of n_ctx tokens where a layer sees all of the text (76B), else whatever its length. */
    public final long state;
    /** Work buffers of one micro-batch. */
    public final long compute;
    /** Rows of logits. */
    public final long output;
    /** The part of the state that is taken only as the text grows to n_ctx; 0 where no layer sees all of it. */
    public final long cache;

    MemoryEstimate(long model, long state, long compute, long output, long cache) {
        this.model = model;
        this.state = state;
        this.compute = compute;
        this.output = output;
        this.cache = cache;
    }

    /** All of them, one session. */
    public long total() {
        return total(1);
    }

    /** All of them with several sessions. */
    public long total(int nSessions) {
        return model + Check.range("estimate: sessions", nSessions, 0, Integer.MAX_VALUE) * (state + compute + output);
    }

    /** Go or no-go against what the caller knows to be available, in bytes; on Android {@link AndroidFiles#availableMemory}. */
    public Fit fit(long available) {
        return new Fit(total(), cache, available);
    }

    /** Go or no-go against MemAvailable of /proc/meminfo. IOException: it cannot be read. */
    public Fit fit() throws IOException {
        return fit(MemInfo.available(new File("/proc/meminfo")));
    }
}
