package org.spikingbrain;

import org.jspecify.annotations.Nullable;

/** How a model file is loaded. Setters return this object. */
public final class ModelOptions {
    Boolean spike;
    Double spikeK;
    boolean useMmap = true;
    boolean checkMemory = true;
    long availableMemory = -1;

    /** Integer spike counts as inputs of the projections; null (the default): as the file says. */
    public ModelOptions spike(@Nullable Boolean on) {
        spike = on;
        return this;
    }

    /**
     * Threshold of a row = mean |x| / k; larger: more spikes, more accurate. null (the default): the file's, else 3.
     * IllegalArgumentException: not a number above 0.
     */
    public ModelOptions spikeK(@Nullable Double k) {
        Check.that(k == null || (k.floatValue() > 0 && !Float.isInfinite(k.floatValue())), // the model computes with float
            "load: spike_k: got " + k + ", expected a number above 0, as 3.0");
        spikeK = k;
        return this;
    }

    /** Map the file (the default) or read it into memory. */
    public ModelOptions useMmap(boolean on) {
        useMmap = on;
        return this;
    }

    /** Refuse, before anything is loaded, a model that with one session needs more memory than the system has (the default). */
    public ModelOptions checkMemory(boolean on) {
        checkMemory = on;
        return this;
    }

    /**
     * Bytes of memory that checkMemory compares with, where the caller knows better than /proc/meminfo, as Android's ActivityManager does
     * ({@link AndroidFiles#load} asks it); -1 (the default): MemAvailable.
     */
    public ModelOptions availableMemory(long bytes) {
        Check.that(bytes >= -1, "load: available_memory: got " + bytes + ", expected bytes, or -1 for the system's own figure");
        availableMemory = bytes;
        return this;
    }

    ModelOptions copy() {
        return new ModelOptions().spike(spike).spikeK(spikeK).useMmap(useMmap).checkMemory(checkMemory).availableMemory(availableMemory);
    }
}
