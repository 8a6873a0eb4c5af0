package org.spikingbrain.app;

import android.app.Application;
import android.content.ComponentCallbacks2;
import android.content.Intent;
import android.net.Uri;
import android.os.Handler;
import android.os.Looper;

import org.json.JSONObject;
import org.spikingbrain.AndroidFiles;
import org.spikingbrain.app.core.BenchRows;
import org.spikingbrain.app.core.Benchmark;
import org.spikingbrain.app.core.Coalescer;
import org.spikingbrain.app.core.Engine;
import org.spikingbrain.app.core.EngineListener;
import org.spikingbrain.app.core.Foreground;
import org.spikingbrain.app.core.Format;
import org.spikingbrain.app.core.ModelEntry;
import org.spikingbrain.app.core.ModelSource;
import org.spikingbrain.app.core.SpikeReport;
import org.spikingbrain.app.core.Store;

import java.io.IOException;
import java.lang.ref.WeakReference;
import java.util.ArrayDeque;
import java.util.Collections;
import java.util.List;

/** Owns the engine, which outlives the screens; carries what it tells to the screen that is shown. */
public final class SampleApp extends Application implements EngineListener {
    private static final long UPDATE_MS = 50; // a screen update at most this often

    private final Handler main = new Handler(Looper.getMainLooper());
    private final Coalescer changes = new Coalescer(main::postDelayed, UPDATE_MS, this::showChange);
    private final Foreground foreground = new Foreground();
    private final ArrayDeque<String> unread = new ArrayDeque<>(); // messages that no screen has shown
    private Store store;
    private Engine engine;
    private WeakReference<Screen> shown = new WeakReference<>(null); // a screen that is gone must not be kept
    private boolean loadedOnce;
    private volatile List<JSONObject> benchRows = Collections.emptyList();
    private volatile String benchProgress = "";
    private volatile SpikeReport spikes;

    @Override
    public void onCreate() {
        super.onCreate();
        store = new Store(getNoBackupFilesDir());
        attempt(store::open);
        engine = new Engine(store, this);
    }

    Store store() {
        return store;
    }

    Engine engine() {
        return engine;
    }

    // --- what the engine finds out for screens, kept here while they come and go -----------------------------------

    /** Rows of the last benchmark. */
    List<JSONObject> benchRows() {
        return benchRows;
    }

    /** How far the one under way is. */
    String benchProgress() {
        return benchProgress;
    }

    /** IllegalArgumentException: a count below 1. */
    void measure(int nPrompt, int nGen, int repetitions, BenchRows rows) {
        engine.measure(new Benchmark(nPrompt, nGen, repetitions, rows, this::onBenchProgress), this::onBenchRows);
    }

    private void onBenchProgress(String text) {
        benchProgress = text;
        onChange();
    }

    private void onBenchRows(List<JSONObject> rows) {
        benchRows = rows;
        onChange();
    }

    /** What was counted when countSpikes() was last called; null: not yet. */
    SpikeReport spikes() {
        return spikes;
    }

    void countSpikes() {
        spikes = null;
        engine.spikes(this::onSpikes);
    }

    private void onSpikes(SpikeReport report) {
        spikes = report;
        onChange();
    }

    // --- the model -----------------------------------------------------------------------------------------------

    /** After a start of the process: the model that was in use, with its chat. */
    void loadOnce() {
        if (!loadedOnce) {
            loadedOnce = true;
            load();
        }
    }

    /** Load the model in use anew. */
    void load() {
        ModelEntry model = store.current();
        if (model != null) {
            engine.load(new UriSource(this, model), store.settings(), false);
        }
    }

    /** A document that the user chose: keep the right to read it, list it, load it. */
    void importModel(Uri uri) {
        attempt(() -> {
            getContentResolver().takePersistableUriPermission(uri, Intent.FLAG_GRANT_READ_URI_PERMISSION);
            store.use(UriSource.describe(this, uri));
            load();
        });
    }

    long availableMemory() {
        return AndroidFiles.availableMemory(this);
    }

    // --- the engine's listener: any thread -----------------------------------------------------------------------

    @Override
    public void onState(Engine.State state) {
        main.post(() -> follow(state == Engine.State.GENERATING || state == Engine.State.MEASURING));
        onChange();
    }

    @Override
    public void onChange() {
        changes.changed();
    }

    @Override
    public void onMessage(String text) {
        main.post(() -> {
            unread.add(text);
            showMessages();
        });
    }

    @Override
    public void onRefused(ModelSource source, String sentence) {
        main.post(() -> {
            Screen screen = shown.get();
            if (screen == null) {
                unread.add(sentence);
            } else {
                screen.askToLoad(sentence, () -> engine.load(source, store.settings(), true));
            }
        });
    }

    // --- the screen: main thread ---------------------------------------------------------------------------------

    void attach(Screen screen) {
        shown = new WeakReference<>(screen);
        screen.showChange();
        showMessages();
    }

    void detach(Screen hidden) {
        if (shown.get() == hidden) {
            shown.clear();
        }
    }

    private void showChange() {
        Screen screen = shown.get();
        if (screen != null) {
            screen.showChange();
        }
    }

    private void showMessages() {
        Screen screen = shown.get();
        while (screen != null && !unread.isEmpty()) {
            screen.showMessage(unread.remove());
        }
    }

    /** Something that may fail: its message is shown. */
    interface Attempt {
        void run() throws IOException;
    }

    void attempt(Attempt what) {
        try {
            what.run();
        } catch (IOException | RuntimeException e) {
            onMessage(Format.failure(e));
        }
    }

    // --- the foreground service ----------------------------------------------------------------------------------

    private void follow(boolean busy) {
        carryOut(foreground.want(busy));
    }

    /** Told by the service. */
    void serviceStarted() {
        carryOut(foreground.started());
    }

    void serviceGone() {
        foreground.gone();
    }

    private void carryOut(Foreground.Command command) {
        Intent service = new Intent(this, GenerationService.class);
        try {
            if (command == Foreground.Command.START) {
                Newer.startForegroundService(this, service);
            } else if (command == Foreground.Command.STOP) {
                stopService(service);
            }
        } catch (RuntimeException e) { // Android 12 and newer refuse it to an app in the background: go on without
            foreground.gone();
            onMessage(Format.failure(e));
        }
    }

    // --- memory --------------------------------------------------------------------------------------------------

    @Override
    public void onTrimMemory(int level) {
        super.onTrimMemory(level);
        if (level >= ComponentCallbacks2.TRIM_MEMORY_UI_HIDDEN) { // from here on the process may be ended at any time
            engine.save();
        }
    }

    @Override
    public void onLowMemory() {
        super.onLowMemory();
        engine.save();
    }
}
