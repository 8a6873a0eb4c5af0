package org.spikingbrain.app.core;

import org.spikingbrain.Fit;
import org.spikingbrain.MemoryEstimate;

/** What the screens show beside the chat; never changed. */
public final class Status {
    static final Status NONE = new Status("", "", null, null, 0, "");

    /** The model's file; empty: no model. */
    public final String name;
    /** llama.cpp's short description. */
    public final String description;
    /** null: no model. */
    public final MemoryEstimate estimate;
    /** As it was before loading. */
    public final Fit fit;
    /** Bytes of the session's state. */
    public final long stateBytes;
    /** Timings of the last answer, or the progress of a prompt. */
    public final String line;

    Status(String name, String description, MemoryEstimate estimate, Fit fit, long stateBytes, String line) {
        this.name = name;
        this.description = description;
        this.estimate = estimate;
        this.fit = fit;
        this.stateBytes = stateBytes;
        this.line = line;
    }

    Status with(String newLine) {
        return new Status(name, description, estimate, fit, stateBytes, newLine);
    }

    /** pssKb: proportional set size of this process, in KiB. */
    public String memory(long pssKb, long available) {
        String now = "this process (PSS): " + Format.mib(pssKb << 10) + "\navailable now: " + Format.mib(available);
        return estimate == null ? now : name + "\n" + description + "\n\nestimate before loading: " + Format.mib(estimate.total())
            + "\n  weights: " + Format.mib(estimate.model) + "\n  state: " + Format.mib(estimate.state)
            + (estimate.cache == 0 ? "" : "\n    of it only as the text grows: " + Format.mib(estimate.cache))
            + "\n  work buffers: " + Format.mib(estimate.compute + estimate.output)
            + "\nstate as allocated" + (estimate.cache == 0 ? ", whatever the length" : "") + ": " + Format.mib(stateBytes) + "\n" + now + "\n\n" + fit.sentence();
    }
}
