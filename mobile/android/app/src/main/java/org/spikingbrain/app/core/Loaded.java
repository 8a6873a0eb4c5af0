package org.spikingbrain.app.core;

import org.spikingbrain.Fit;
import org.spikingbrain.LoadProgress;
import org.spikingbrain.MemoryEstimate;
import org.spikingbrain.NotDurableException;
import org.spikingbrain.Session;
import org.spikingbrain.SpikingBrain;

import java.io.File;
import java.io.IOException;

/** A model and its session. Used by the inference thread. */
final class Loaded implements AutoCloseable {
    final ModelSource source;
    final SpikingBrain model;
    final Session session;
    final Status status;
    private long savedAt = -1; // tokens evaluated when the snapshot was written; -1: never

    private Loaded(ModelSource source, SpikingBrain model, Session session, Status status) {
        this.source = source;
        this.model = model;
        this.session = session;
        this.status = status;
    }

    /** Whether it fits now, from the header alone. Errors: see {@link ModelSource}. */
    static MemoryEstimate estimate(ModelSource source, Settings settings) throws IOException {
        return source.estimate(settings.modelOptions(), settings.sessionOptions(false));
    }

    /** checked: refuse, once more, what does not fit. Errors: see {@link ModelSource}; nothing stays loaded. */
    static Loaded open(ModelSource source, Settings settings, MemoryEstimate estimate, Fit fit, boolean checked, LoadProgress progress) throws IOException {
        SpikingBrain model = source.load(settings.modelOptions().checkMemory(checked), progress);
        try {
            Session session = model.newSession(settings.sessionOptions(model.spiking()));
            return new Loaded(source, model, session,
                new Status(source.entry().name, model.description(), estimate, fit, session.stateBytes(), fit.sentence()));
        } catch (RuntimeException | Error e) {
            model.close();
            throw e;
        }
    }

    /** Takes up the snapshot, if there is one. Errors: see {@link Session#restore}; the session can be used all the same. */
    void restore(File snapshot) throws IOException {
        if (snapshot.exists()) {
            session.restore(snapshot);
            savedAt = session.nEvaluated();
        }
    }

    /** Writes the snapshot if anything was evaluated since. Errors: see {@link Session#snapshot}. */
    void save(File snapshot) throws IOException {
        if (session.nTokens() > 0 && session.nEvaluated() != savedAt) {
            try {
                session.snapshot(snapshot);
            } catch (NotDurableException e) {
                savedAt = session.nEvaluated(); // it is in its place: told once
                throw e;
            }
            savedAt = session.nEvaluated();
        }
    }

    @Override
    public void close() {
        model.close(); // its session, too
    }
}
