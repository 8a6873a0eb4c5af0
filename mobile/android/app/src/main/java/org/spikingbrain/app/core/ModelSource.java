package org.spikingbrain.app.core;

import org.spikingbrain.LoadProgress;
import org.spikingbrain.MemoryEstimate;
import org.spikingbrain.ModelOptions;
import org.spikingbrain.SessionOptions;
import org.spikingbrain.SpikingBrain;

import java.io.IOException;
import java.io.InputStream;

/** Where a model comes from: on Android a document, on a desktop a file. Errors: as {@link SpikingBrain#load} has them. */
public interface ModelSource {
    ModelEntry entry();

    MemoryEstimate estimate(ModelOptions model, SessionOptions session) throws IOException;

    SpikingBrain load(ModelOptions options, LoadProgress progress) throws IOException;

    /** Its bytes, for its hash. */
    InputStream read() throws IOException;

    /** Bytes that the system has left. */
    long availableMemory() throws IOException;
}
