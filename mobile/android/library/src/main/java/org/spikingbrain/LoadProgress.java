package org.spikingbrain;

/** Told while a model is loaded, and able to end that. */
public interface LoadProgress {
    /**
     * Called by the thread that loads, before every tensor; what it throws ends the load, too.
     *
     * @param share of the weights, 0 to 1
     * @return whether to go on; false: the load throws {@link CancelledException}, and all that it took is given back
     */
    boolean onProgress(double share);
}
