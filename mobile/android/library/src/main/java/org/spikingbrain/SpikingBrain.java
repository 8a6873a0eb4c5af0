package org.spikingbrain;

import java.io.File;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.locks.ReentrantReadWriteLock;
import java.util.function.Supplier;

import org.jspecify.annotations.Nullable;

/**
 * A loaded model. Sessions belong to it and are closed with it.
 *
 * <pre>
 * try (SpikingBrain model = SpikingBrain.load(file, new ModelOptions());
 *      Session session = model.newSession(new SessionOptions());
 *      Generation answer = session.chat(messages, new GenerateOptions().maxTokens(256), null)) {
 *     while (answer.hasNext()) {
 *         show(answer.next());
 *     }
 * }
 * </pre>
 *
 * Every method may be called from any thread. After close() they throw IllegalStateException; llama.cpp's own refusals are
 * {@link SpikingBrainException}.
 */
public final class SpikingBrain implements AutoCloseable {
    private final ReentrantReadWriteLock lock = new ReentrantReadWriteLock(); // read: the handle is in use
    private final List<AutoCloseable> sessions = new ArrayList<>(); // and parallels
    private final Map<String, String> metadata;
    private final Overrides overrides;
    private final Tokenizer tokenizer;
    private final ModelFile file;
    private final long[] figures;
    private long handle;
    private boolean closing; // guarded by sessions
    private String vocabPrint;

    private SpikingBrain(ModelFile file, ModelOptions options, LoadProgress progress) throws IOException {
        Overrides given = new Overrides("load", options);
        this.file = file;
        if (options.checkMemory) {
            MemoryEstimate needed = file.estimate("load", given, new SessionOptions());
            Fit fit = options.availableMemory < 0 ? needed.fit() : needed.fit(options.availableMemory);
            if (!fit.ok) {
                throw new SpikingBrainException("load: " + file.name() + ": " + fit.sentence());
            }
        }
        handle = file.load(given, options.useMmap, progress);
        try {
            figures = Native.figures(handle);
            metadata = readMetadata(handle);
            given.check(metadata);
            overrides = given;
            tokenizer = new Tokenizer(handle, metadata, (int) figures[4]);
        } catch (IOException | RuntimeException e) {
            Native.freeModel(handle);
            throw e;
        }
    }

    // --- before a model is loaded --------------------------------------------------------------------------------

    /**
     * Load the native libraries; needed only to name the folder where the CPU libraries (libggml-cpu-*.so) lie, on Android
     * ApplicationInfo.nativeLibraryDir. Without it they are looked for beside libspikingbrain_jni.so. The first call counts.
     * SpikingBrainException: no library there runs on this CPU. UnsatisfiedLinkError: libspikingbrain_jni.so was not found.
     */
    public static void initialize(File nativeLibraryDir) {
        Library.load(Check.given("initialize: folder", nativeLibraryDir));
    }

    /**
     * Load a GGUF file (the first part of a split one).
     *
     * @throws FileNotFoundException there is none
     * @throws ModelLoadException    no GGUF, cut short, or refused by llama.cpp
     * @throws SpikingBrainException too large for the memory there is (see {@link ModelOptions#checkMemory})
     * @throws IllegalArgumentException an option that means nothing to this model
     */
    public static SpikingBrain load(File file, ModelOptions options) throws IOException {
        return load(file, options, null);
    }

    /** The same, told how far it is. progress: null: none. CancelledException: it ended the load, and all is freed. */
    public static SpikingBrain load(File file, ModelOptions options, @Nullable LoadProgress progress) throws IOException {
        Library.load(null);
        return new SpikingBrain(ModelFile.of("load", file), options, progress);
    }

    /**
     * Load from a file descriptor, as ContentResolver.openFileDescriptor gives, without a copy: the file is mapped. The descriptor stays
     * the caller's and may be closed afterwards. Errors: see above; a descriptor of what is no file is a ModelLoadException.
     */
    public static SpikingBrain load(int fd, ModelOptions options) throws IOException {
        return load(fd, options, null);
    }

    /** The same, told how far it is; see above. */
    public static SpikingBrain load(int fd, ModelOptions options, @Nullable LoadProgress progress) throws IOException {
        Library.load(null);
        return new SpikingBrain(ModelFile.of("load", fd), options, progress);
    }

    /** What loading and a session would take, from the header alone: nothing is allocated. Errors: see load. */
    public static MemoryEstimate estimate(File file, ModelOptions options, SessionOptions session) throws IOException {
        Library.load(null);
        return ModelFile.of("estimate", file).estimate("estimate", new Overrides("estimate", options), session);
    }

    /** The same of a file descriptor. */
    public static MemoryEstimate estimate(int fd, ModelOptions options, SessionOptions session) throws IOException {
        Library.load(null);
        return ModelFile.of("estimate", fd).estimate("estimate", new Overrides("estimate", options), session);
    }

    /**
     * Number of big cores, those with at least half of the largest core's capacity, since one slow core holds up all others; where nothing is known
     * of them, all processors.
     */
    public static int defaultThreads() {
        return Threads.count(Threads.CPUS, Runtime.getRuntime().availableProcessors());
    }

    /** What computes here: CPU features, kernels. */
    public static SystemInfo systemInfo() {
        Library.load(null);
        return new SystemInfo(Prints.text(Native.systemInfo()), Prints.text(Native.spikeIsa()));
    }

    // --- life ----------------------------------------------------------------------------------------------------

    /** A new sequence with memory of its own. SpikingBrainException: no memory, or llama.cpp refuses the options. */
    public Session newSession(SessionOptions options) {
        return kept(options, () -> new Session(this, handle, options));
    }

    /**
     * Sequences that are computed together, nParallel (1 to 254) at a time; memory of nParallel + 2 of them. Errors: see newSession.
     */
    public Parallel newParallel(SessionOptions options, int nParallel) {
        Check.range("parallel: n_parallel", nParallel, 1, Parallel.MAX);
        return kept(options, () -> new Parallel(this, handle, options, nParallel));
    }

    private <T extends AutoCloseable> T kept(SessionOptions options, Supplier<T> made) {
        Check.given("session: options", options);
        return use(() -> {
            Check.that(!options.spikeStats || spiking(),
                "session: spike_stats: got true for a model that does not spike, expected one that does; load it with spike(true)");
            T session = made.get();
            synchronized (sessions) {
                if (!closing) {
                    sessions.add(session);
                    return session;
                }
            }
            close(session);
            throw closed();
        });
    }

    private static void close(AutoCloseable session) {
        if (session instanceof Session) {
            ((Session) session).close();
        } else {
            ((Parallel) session).close();
        }
    }

    void forget(AutoCloseable session) {
        synchronized (sessions) {
            sessions.remove(session);
        }
    }

    /** Cancel and close all sessions, free the model. Calling it again is harmless. */
    @Override
    public void close() {
        List<AutoCloseable> open;
        synchronized (sessions) {
            closing = true; // no new session from here on
            open = new ArrayList<>(sessions);
        }
        for (AutoCloseable session : open) { // without the lock: what they finish may need the model
            close(session);
        }
        lock.writeLock().lock();
        try {
            if (handle != 0) {
                Native.freeModel(handle);
            }
            handle = 0;
        } finally {
            lock.writeLock().unlock();
        }
    }

    private <T> T use(Supplier<T> call) {
        lock.readLock().lock();
        try {
            if (handle == 0) {
                throw closed();
            }
            return call.get();
        } finally {
            lock.readLock().unlock();
        }
    }

    private static IllegalStateException closed() {
        return new IllegalStateException("model: got a closed one, expected an open one; load it again");
    }

    // --- the model -----------------------------------------------------------------------------------------------

    /** The file's metadata, as llama.cpp prints it. */
    public Map<String, String> metadata() {
        return metadata;
    }

    /** llama.cpp's short description. */
    public String description() {
        return use(() -> Prints.text(Native.description(handle)));
    }

    /** Entries of the vocabulary. */
    public int nVocab() {
        return (int) figures[0];
    }

    public long nParams() {
        return figures[1];
    }

    /** Bytes of all weights. */
    public long modelSize() {
        return figures[2];
    }

    /** Beginning-of-sequence token, -1: none. */
    public int tokenBos() {
        return (int) figures[4];
    }

    /** End-of-sequence token, -1: none. Generation ends on any end-of-generation token. */
    public int tokenEos() {
        return (int) figures[5];
    }

    /** Whether the projections read integer spike counts. */
    public boolean spiking() {
        return overrides.enabled(metadata);
    }

    /** Threshold = mean |x| / k; NaN when the model does not spike. */
    public double spikeK() {
        return spiking() ? overrides.k(metadata) : Double.NaN;
    }

    /** "paper": every projection spikes; "released": not the MLP's down projection; null: none does. */
    public @Nullable String spikeScope() {
        return spiking() ? Overrides.scope(metadata) : null;
    }

    /** The file it was loaded from, as messages name it. */
    public String name() {
        return file.name();
    }

    // --- text and tokens -----------------------------------------------------------------------------------------

    /**
     * Token ids of a text. addBos: add the tokens that the model's keys ask for; SpikingBrain's ask for none. special: recognise control
     * tokens such as &lt;|im_end|&gt; in the text.
     */
    public int[] tokenize(String text, boolean addBos, boolean special) {
        Check.given("tokenize: text", text);
        return use(() -> tokenizer.encode(text, addBos, special));
    }

    /** Bytes of the tokens, maybe a part of a character; special: show control tokens. IllegalArgumentException: no such token. */
    public byte[] detokenize(int[] tokens, boolean special) {
        Check.given("detokenize: tokens", tokens);
        return use(() -> tokenizer.decode(tokens, special));
    }

    /** The prompt of a chat, rendered by llama.cpp with the model's own template. IllegalArgumentException: the template refuses it. */
    public String applyChatTemplate(List<ChatMessage> messages, boolean addGenerationPrompt) {
        return ChatPrompt.of("chat", this, messages, new GenerateOptions(), addGenerationPrompt).text;
    }

    Object[] chatPrompt(byte[][][] messages, byte[][] tools, int choice, boolean addGenerationPrompt) {
        return use(() -> Native.chatPrompt(handle, messages, tools, choice, addGenerationPrompt));
    }

    /** Of one token, control tokens too. */
    byte[] show(int token) {
        return use(() -> Native.piece(handle, token, true));
    }

    byte[] piece(int token) {
        return use(() -> Native.piece(handle, token, false));
    }

    int defaultLimit(int nPrompt) {
        return use(() -> Native.defaultLimit(handle, nPrompt));
    }

    boolean isEog(int token) {
        return use(() -> Native.isEog(handle, token));
    }

    boolean isControl(int token) {
        return use(() -> Native.isControl(handle, token));
    }

    /** IllegalArgumentException: a token that is not in the vocabulary. */
    int[] checked(String where, int[] tokens) {
        Check.given(where + ": tokens", tokens);
        for (int t : tokens) {
            Check.that(t >= 0 && t < nVocab(), where + ": tokens: got " + t + ", expected 0 to " + (nVocab() - 1) + "; use this model's tokens");
        }
        return tokens;
    }

    Set<File> files() {
        return file.files();
    }

    // --- what a snapshot belongs to ------------------------------------------------------------------------------

    synchronized String tokenizerPrint() {
        if (vocabPrint == null) {
            vocabPrint = use(() -> Prints.tokenizer(Native.vocabDigestInput(handle), metadata));
        }
        return vocabPrint;
    }

    private static Map<String, String> readMetadata(long handle) {
        byte[][] flat = Native.metadata(handle);
        Map<String, String> out = new LinkedHashMap<>();
        for (int i = 0; i < flat.length; i += 2) {
            out.put(Prints.text(flat[i]), Prints.text(flat[i + 1]));
        }
        return Collections.unmodifiableMap(out);
    }
}
