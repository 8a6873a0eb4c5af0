package org.spikingbrain;

import java.io.IOException;

/** A file is written and in its place, but its folder could not be synchronised: a power cut may bring back what was there before. */
public final class NotDurableException extends IOException {
    private static final long serialVersionUID = 1;

    public NotDurableException(String message, Throwable cause) {
        super(message, cause);
    }
}
