package org.spikingbrain;

/** The model or the session is in no state to do what was asked. Messages read {@code where: what: got X, expected Y; do Z}. */
public class SpikingBrainException extends RuntimeException {
    private static final long serialVersionUID = 1;

    public SpikingBrainException(String message) {
        super(message);
    }
}
