package org.spikingbrain;

/** Told after every micro-batch of a prompt. */
public interface Progress {
    /**
     * Called by the thread that evaluates. It may call {@link Session#cancel}, nothing else of the session.
     *
     * @param done  tokens evaluated
     * @param total tokens that must be
     */
    void onProgress(int done, int total);
}
