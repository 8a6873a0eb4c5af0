package org.spikingbrain.app.core;

import org.json.JSONObject;
import org.spikingbrain.CancelledException;
import org.spikingbrain.Fit;
import org.spikingbrain.Generation;
import org.spikingbrain.MemoryEstimate;
import org.spikingbrain.Session;
import org.spikingbrain.SpikingBrain;

import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Consumer;

/**
 * The app without its screens: one model, one session, one chat, and the one thread that computes. Every method returns at once; what
 * becomes of it is told to the listener. Errors are told as sentences, never thrown.
 */
public final class Engine implements AutoCloseable {
    public enum State { EMPTY, LOADING, READY, GENERATING, MEASURING }

    /** Called by the inference thread. */
    public interface Listener {
        void onState(State state);

        /** The chat, or the progress of its prompt. */
        void onChange();

        /** Something the user should read. */
        void onMessage(String text);

        /** The model does not fit: the user may load it all the same. */
        void onRefused(ModelSource source, String sentence);
    }

    private final Store store;
    private final Listener listener;
    private final ExecutorService thread = Executors.newSingleThreadExecutor(run -> new Thread(run, "inference"));
    private volatile State state = State.EMPTY;
    private volatile Chat chat;
    private volatile Status status = Status.NONE;
    private final AtomicLong issued = new AtomicLong(); // number of the last work that stop() can end
    private volatile long stopped; // works up to this number were stopped
    private volatile boolean saveWanted;
    private volatile Session computing; // what stop() cancels
    // the inference thread's own:
    private ModelSource source;
    private Settings settings;
    private SpikingBrain model;
    private Session session;
    private long savedAt = -1; // tokens the session had evaluated when its snapshot was written; -1: not written

    /** A damaged chat is told to the listener, and a new one begins. */
    public Engine(Store store, Listener listener) {
        this.store = store;
        this.listener = listener;
        Chat found = new Chat();
        try {
            found = store.readChat();
        } catch (IOException e) {
            listener.onMessage(e.getMessage());
        }
        chat = found;
    }

    public State state() {
        return state;
    }

    public Chat chat() {
        return chat;
    }

    /** Memory, timings, progress, as of the last change. */
    public Status status() {
        return status;
    }

    // --- the thread ----------------------------------------------------------------------------------------------

    private interface Work {
        void run() throws Exception;
    }

    /** Queues work; whatever it throws becomes a message. */
    private void submit(Work work) {
        try {
            thread.execute(() -> {
                try {
                    work.run();
                } catch (Exception | LinkageError | OutOfMemoryError e) {
                    listener.onMessage(Format.failure(e));
                }
            });
        } catch (RejectedExecutionException e) {
            listener.onMessage("engine: got a call after close, expected none");
        }
    }

    private void enter(State next) {
        state = next;
        listener.onState(next);
    }

    // --- the model -----------------------------------------------------------------------------------------------

    /** Loads a model in place of the one there is, and the chat's snapshot if it is of this model. force: although it does not fit. */
    public void load(ModelSource from, Settings with, boolean force) {
        stop();
        submit(() -> {
            saveNow();
            unload();
            enter(State.LOADING);
            try {
                open(from, with, force);
            } finally {
                enter(session != null ? State.READY : State.EMPTY);
            }
        });
    }

    private void open(ModelSource from, Settings with, boolean force) throws IOException {
        MemoryEstimate estimate = from.estimate(with.modelOptions(), with.sessionOptions(false));
        Fit fit = estimate.fit(from.availableMemory());
        if (!fit.ok && !force) {
            listener.onRefused(from, fit.sentence());
            return;
        }
        try {
            model = from.load(with.modelOptions().checkMemory(!force));
            session = model.newSession(with.sessionOptions(model.spiking()));
        } catch (IOException | RuntimeException | Error e) {
            unload();
            throw e;
        }
        source = from;
        settings = with;
        status = new Status(from.entry().name, model.description(), estimate, fit, session.stateBytes(), fit.sentence());
        restore();
    }

    private void unload() {
        if (model != null) {
            model.close(); // its session, too
        }
        model = null;
        session = null;
        status = Status.NONE;
        savedAt = -1;
    }

    /** Settings that need no loading anew. */
    public void settings(Settings s) {
        submit(() -> settings = s);
    }

    // --- snapshots -----------------------------------------------------------------------------------------------

    private void restore() {
        File file = store.snapshotFile();
        if (!file.exists()) {
            return;
        }
        try {
            session.restore(file);
            savedAt = session.nEvaluated();
        } catch (IOException | RuntimeException e) {
            listener.onMessage(Format.failure(e) + ". The next message reads the chat again.");
        }
    }

    /** Writes the chat and the session's snapshot: now, or between two pieces of an answer. For onTrimMemory and onStop. */
    public void save() {
        saveWanted = true;
        submit(() -> {
            if (saveWanted) {
                saveNow();
            }
        });
    }

    private void saveNow() {
        saveWanted = false;
        try {
            store.write(chat);
            if (session != null && session.nTokens() > 0 && session.nEvaluated() != savedAt) {
                session.snapshot(store.snapshotFile());
                savedAt = session.nEvaluated();
            }
        } catch (IOException | RuntimeException e) {
            listener.onMessage(Format.failure(e));
        }
    }

    // --- the chat ------------------------------------------------------------------------------------------------

    /** Asks a question and streams its answer into the chat. */
    public void send(String text) {
        long number = issued.incrementAndGet();
        submit(() -> {
            if (session == null) {
                listener.onMessage("chat: got no model, expected one; do import a model first");
                return;
            }
            chat.ask(text);
            enter(State.GENERATING);
            try {
                store.write(chat);
                answer(number);
            } finally {
                computing = null;
                enter(State.READY);
            }
        });
    }

    private void answer(long number) throws IOException {
        Generation answer = null;
        try {
            answer = session.chat(chat.prompt(), settings.generateOptions(), this::onProgress);
            computing = session;
            while (number > stopped && answer.hasNext()) {
                chat.say(answer.next());
                listener.onChange();
                if (saveWanted) {
                    saveNow();
                }
            }
        } catch (CancelledException e) {
            // by stop(): what was said stays
        } finally {
            finish(answer);
        }
        store.write(chat);
    }

    private void finish(Generation answer) {
        if (answer == null) {
            chat.takeBack();
        } else {
            answer.close();
            chat.end(answer.text());
            status = status.with(Format.timings(answer.timings(), answer.finishReason()));
        }
        listener.onChange();
    }

    private void onProgress(int done, int total) {
        status = status.with(Format.progress(done, total));
        listener.onChange();
    }

    /** Ends what is computed, within a micro-batch; from any thread. */
    public void stop() {
        stopped = issued.get(); // before computing is read: one of the two threads sees the other's
        Session now = computing;
        if (now != null) {
            now.cancel();
        }
    }

    /** Forgets the chat, the session's sequence and the snapshot. */
    public void newChat() {
        stop();
        submit(() -> {
            chat = new Chat();
            if (session != null) {
                session.reset();
            }
            savedAt = -1;
            store.write(chat);
            Files.deleteIfExists(store.snapshotFile().toPath());
            listener.onChange();
        });
    }

    // --- measuring -----------------------------------------------------------------------------------------------

    /** Runs a benchmark in a session of its own; the rows go to the consumer, by the inference thread. */
    public void measure(Benchmark benchmark, Consumer<List<JSONObject>> done) {
        long number = issued.incrementAndGet();
        submit(() -> {
            if (model == null) {
                listener.onMessage("benchmark: got no model, expected one; do import a model first");
                return;
            }
            enter(State.MEASURING);
            try (Session own = model.newSession(settings.sessionOptions(false))) {
                computing = own;
                done.accept(benchmark.run(source, model, own, settings, () -> number <= stopped));
            } catch (CancelledException e) {
                listener.onMessage("benchmark: stopped");
            } finally {
                computing = null;
                enter(State.READY);
            }
        });
    }

    /** What the session counted; by the inference thread. */
    public void spikes(Consumer<SpikeReport> done) {
        submit(() -> {
            if (session == null) {
                listener.onMessage("spikes: got no model, expected one; do import a model first");
            } else {
                done.accept(new SpikeReport(session.spikeStats()));
            }
        });
    }

    /** Stops, saves, frees the model. Waits for at most a micro-batch and the snapshot. */
    @Override
    public void close() {
        stop();
        submit(() -> {
            saveNow();
            unload();
            enter(State.EMPTY);
        });
        thread.shutdown();
        try {
            thread.awaitTermination(1, TimeUnit.MINUTES);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }
}
