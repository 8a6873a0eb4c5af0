package org.spikingbrain;

import java.io.IOException;

/** The file is no GGUF, is cut short, or llama.cpp refuses what is in it. */
public final class ModelLoadException extends IOException {
    private static final long serialVersionUID = 1;

    public ModelLoadException(String message) {
        super(message);
    }
}
