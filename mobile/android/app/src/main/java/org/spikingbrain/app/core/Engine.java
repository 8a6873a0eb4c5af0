package org.spikingbrain.app.core;

import org.json.JSONObject;
import org.spikingbrain.CancelledException;
import org.spikingbrain.Conversation;
import org.spikingbrain.Fit;
import org.spikingbrain.Generation;
import org.spikingbrain.MemoryEstimate;
import org.spikingbrain.Session;

import java.io.IOException;
import java.nio.file.Files;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/**
 * The app without its screens: one model, one session, one chat, and the one thread that computes. Every method returns at once; what
 * becomes of it is told to the listener. Errors are told as sentences, never thrown.
 */
public final class Engine implements AutoCloseable {
    public enum State { EMPTY, LOADING, READY, GENERATING, MEASURING }

    private final Store store;
    private final EngineListener listener;
    private final ExecutorService thread = Executors.newSingleThreadExecutor(run -> new Thread(run, "inference"));
    private volatile State state = State.EMPTY;
    private volatile Conversation chat;
    private volatile Status status = Status.NONE;
    private volatile boolean saveWanted;
    private final Stop stop = new Stop();
    private Loaded loaded; // the inference thread's own, as settings
    private Settings settings = Settings.DEFAULT;

    /** A damaged chat is told to the listener, and a new one begins. */
    public Engine(Store store, EngineListener listener) {
        this.store = store;
        this.listener = listener;
        Conversation found = new Conversation();
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

    public Conversation chat() {
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
            thread.execute(() -> attempt(work));
        } catch (RejectedExecutionException e) {
            listener.onMessage("engine: got a call after close, expected none");
        }
    }

    private void attempt(Work work) {
        try {
            work.run();
        } catch (CancelledException e) {
            // by stop(): what was done stays
        } catch (Exception | LinkageError | OutOfMemoryError e) {
            listener.onMessage(Format.failure(e));
        }
    }

    private void submitLoaded(String where, Work work) {
        submit(() -> {
            if (loaded == null) {
                listener.onMessage(where + ": got no model, expected one; do import a model first");
            } else {
                work.run();
            }
        });
    }

    /** Does work in a state of its own; how it failed is told before the state ends. */
    private void during(State busy, Work work) {
        enter(busy);
        attempt(work);
        stop.computing(null);
        enter(loaded != null ? State.READY : State.EMPTY);
    }

    private void enter(State next) {
        state = next;
        listener.onState(next);
    }

    // --- the model -----------------------------------------------------------------------------------------------

    /** Loads a model in place of the one there is, and the chat's snapshot if it is of this model. force: although it does not fit. */
    public void load(ModelSource from, Settings with, boolean force) {
        stop();
        long number = stop.begin();
        submit(() -> {
            saveNow();
            unload();
            during(State.LOADING, () -> open(from, with, force, number));
        });
    }

    private void open(ModelSource from, Settings with, boolean force, long number) throws IOException {
        MemoryEstimate estimate = Loaded.estimate(from, with);
        Fit fit = estimate.fit(from.availableMemory());
        if (!fit.ok && !force) {
            listener.onRefused(from, fit.sentence());
            return;
        }
        loaded = Loaded.open(from, with, estimate, fit, !force, share -> onLoaded(share, number));
        settings = with;
        status = loaded.status;
        try {
            loaded.restore(store.snapshotFile());
        } catch (IOException | RuntimeException e) {
            listener.onMessage(Format.failure(e) + ". The next message reads the chat again.");
        }
    }

    /** Whether to go on. */
    private boolean onLoaded(double share, long number) {
        status = Status.NONE.with(Format.share(share));
        listener.onChange();
        return !stop.isStopped(number);
    }

    private void unload() {
        if (loaded != null) {
            loaded.close();
        }
        loaded = null;
        status = Status.NONE;
    }

    /** Settings that need no loading anew. */
    public void settings(Settings s) {
        submit(() -> settings = s);
    }

    /** Writes the chat and the session's snapshot: now, or between two pieces of an answer. For onTrimMemory. */
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
        writeChat();
        try {
            if (loaded != null) {
                loaded.save(store.snapshotFile());
            }
        } catch (IOException | RuntimeException e) {
            listener.onMessage(Format.failure(e));
        }
    }

    // --- the chat ------------------------------------------------------------------------------------------------

    /** Asks a question and streams its answer into the chat. */
    public void send(String text) {
        long number = stop.begin();
        submitLoaded("chat", () -> {
            chat.ask(text);
            during(State.GENERATING, () -> {
                writeChat();
                answer(number);
            });
        });
    }

    private void answer(long number) {
        Generation answer = null;
        try {
            answer = chat.answer(loaded.session, settings.generateOptions(), this::onProgress);
            stop.computing(loaded.session);
            while (!stop.isStopped(number) && answer.hasNext()) {
                answer.next();
                listener.onChange();
                if (saveWanted) {
                    saveNow();
                }
            }
        } finally {
            if (answer == null) {
                chat.takeBack();
            } else {
                answer.close();
                status = status.with(Format.timings(answer.timings(), answer.finishReason()));
            }
            listener.onChange();
            writeChat();
        }
    }

    /** A chat that cannot be written goes on. */
    private void writeChat() {
        try {
            store.write(chat);
        } catch (IOException e) {
            listener.onMessage(Format.failure(e));
        }
    }

    private void onProgress(int done, int total) {
        status = status.with(Format.progress(done, total));
        listener.onChange();
    }

    /** Ends what is computed, within a micro-batch, or the load of a model; from any thread. */
    public void stop() {
        stop.stop();
    }

    /** Forgets the chat, the session's sequence and the snapshot. */
    public void newChat() {
        if (state != State.LOADING) { // a model that is being loaded serves the new chat, too
            stop();
        }
        submit(() -> {
            chat = new Conversation();
            if (loaded != null) {
                loaded.session.reset();
            }
            writeChat();
            Files.deleteIfExists(store.snapshotFile().toPath());
            listener.onChange();
        });
    }

    // --- measuring -----------------------------------------------------------------------------------------------

    /** Runs a benchmark in a session of its own; the rows go to the consumer, by the inference thread. */
    public void measure(Benchmark benchmark, Consumer<List<JSONObject>> done) {
        long number = stop.begin();
        submitLoaded("benchmark", () -> during(State.MEASURING, () -> {
            try (Session own = loaded.model.newSession(settings.sessionOptions(false))) {
                stop.computing(own);
                done.accept(benchmark.run(loaded.source, loaded.model, own, settings, () -> stop.isStopped(number)));
            } catch (CancelledException e) {
                listener.onMessage("benchmark: stopped");
            }
        }));
    }

    /** What the session counted; by the inference thread. */
    public void spikes(Consumer<SpikeReport> done) {
        submitLoaded("spikes", () -> done.accept(new SpikeReport(loaded.session.spikeStats())));
    }

    /** Stops, saves, frees the model. Waits for at most a micro-batch and the snapshot. Calling it again is harmless. */
    @Override
    public void close() {
        if (thread.isShutdown()) {
            return;
        }
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
