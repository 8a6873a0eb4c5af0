package org.spikingbrain;

/** The call was cancelled by {@link Session#cancel}; the session holds the micro-batches that were finished and can go on. */
public final class CancelledException extends SpikingBrainException {
    private static final long serialVersionUID = 1;

    public CancelledException(String message) {
        super(message);
    }
}
