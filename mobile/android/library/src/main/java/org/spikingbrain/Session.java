package org.spikingbrain;

import java.io.File;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.locks.ReentrantLock;

/**
 * One sequence of a model: what it has read, and its memory. Calls from several threads wait for one another; {@link #cancel} does not
 * wait. What the sequence holds is asked of llama.cpp's memory alone, so that a call that failed or was cancelled leaves exactly the
 * micro-batches that were finished. After close() all calls throw IllegalStateException.
 */
public final class Session implements AutoCloseable {
    private final SpikingBrain model;
    private final int lastN; // tokens that the repeat penalty looks back
    private final int nCtx;
    private final boolean nCtxGiven;
    private final int step; // tokens per call of llama.cpp
    private final ReentrantLock lock = new ReentrantLock();
    private final Object cancelling = new Object(); // guards handle against cancel, which takes no lock
    private long handle;
    private long lastRun;
    private volatile long cancelledRun;
    private History history = new History();
    private long epoch; // changes whenever the sequence does
    private long nEvaluated;
    private Turn turn;

    /** The last turn of a chat: its text, prompt and answer, and the tokens that were read and written for it. */
    private static final class Turn {
        final String text;
        final int[] ids;

        Turn(String text, int[] ids) {
            this.text = text;
            this.ids = ids;
        }
    }

    Session(SpikingBrain model, long modelHandle, SessionOptions o) {
        this.model = model;
        this.lastN = o.lastNTokens;
        handle = Native.newSession(modelHandle, o.nCtx, o.nBatch, o.nUbatch, o.threads(), o.threadsBatch(), o.spikeStats);
        int[] limits = Native.limits(handle);
        nCtxGiven = o.nCtx > 0;
        nCtx = nCtxGiven ? o.nCtx : limits[0];
        step = limits[1];
    }

    /**
     * The maxTokens of an answer for which none is named, after a prompt of nPrompt tokens: up to n_ctx, where one was given. Else prompt
     * and answer end together at max(trained length, 32768) tokens, but not before 4096 new ones.
     */
    public int defaultMaxTokens(int nPrompt) {
        int room = nCtx - Check.range("session: n_prompt", nPrompt, 0, Integer.MAX_VALUE);
        return Math.max(0, nCtxGiven ? room : Math.min(room, model.defaultLimit(nPrompt)));
    }

    /** The model it belongs to. */
    public SpikingBrain model() {
        return model;
    }

    // --- life ----------------------------------------------------------------------------------------------------

    /** End what is under way, wait for it, free the memory. Calling it again is harmless. */
    @Override
    public void close() {
        refuseNested();
        cancel();
        lock.lock();
        try {
            synchronized (cancelling) {
                if (handle != 0) {
                    Native.freeSession(handle);
                }
                handle = 0;
            }
            model.forget(this);
        } finally {
            lock.unlock();
        }
    }

    private void refuseNested() {
        if (lock.isHeldByCurrentThread()) {
            throw new IllegalStateException("session: got a call from its own progress, expected none but cancel(); call it afterwards");
        }
    }

    private void enter() {
        refuseNested();
        lock.lock();
        if (handle == 0) {
            lock.unlock();
            throw new IllegalStateException("session: got a closed one, expected an open one; make a new one");
        }
    }

    /**
     * End what is under way, from any thread: an evaluation within its micro-batch, a generation at its next token; they throw
     * {@link CancelledException}. The sequence keeps the micro-batches that were finished and can go on. Nothing under way: no effect.
     */
    public void cancel() {
        synchronized (cancelling) {
            if (handle != 0) {
                cancelledRun = lastRun;
                Native.cancel(handle, lastRun);
            }
        }
    }

    /** A number for what begins now, which a cancel from now on ends. */
    long newRun() {
        synchronized (cancelling) {
            return ++lastRun;
        }
    }

    void checkRun(long run) {
        if (run <= cancelledRun) {
            throw new CancelledException("generate: got a cancel, expected none; call again to go on");
        }
    }

    // --- the sequence --------------------------------------------------------------------------------------------

    /** Tokens the sequence holds. */
    public int nTokens() {
        enter();
        try {
            return Native.lastPos(handle) + 1;
        } finally {
            lock.unlock();
        }
    }

    /** The tokens themselves, a copy; -1 for those that a snapshot did not bring (see {@link #restore}). */
    public int[] tokens() {
        enter();
        try {
            return history.all(Native.lastPos(handle) + 1);
        } finally {
            lock.unlock();
        }
    }

    /** Most tokens the sequence may hold. */
    public int nCtx() {
        return nCtx;
    }

    /** Tokens evaluated since the session was made. */
    public long nEvaluated() {
        enter();
        try {
            return nEvaluated;
        } finally {
            lock.unlock();
        }
    }

    /** Bytes allocated for the sequence's state: fixed, whatever is read; 0 where the architecture does not tell. */
    public long stateBytes() {
        enter();
        try {
            return Native.stateBytes(handle);
        } finally {
            lock.unlock();
        }
    }

    /** Forget the sequence. */
    public void reset() {
        enter();
        try {
            ++epoch;
            Native.clear(handle);
        } finally {
            lock.unlock();
        }
    }

    /**
     * Append tokens to the sequence.
     *
     * @param progress called after every micro-batch; null: none
     * @throws IllegalArgumentException no tokens, unknown ones, or more than n_ctx has room for
     * @throws CancelledException       see {@link #cancel}
     */
    public void eval(int[] tokens, Progress progress) {
        enter();
        try {
            eval("eval", tokens, progress, newRun());
        } finally {
            lock.unlock();
        }
    }

    private void eval(String where, int[] tokens, Progress progress, long run) {
        Check.that(model.checked(where, tokens).length > 0, where + ": tokens: got none, expected at least one");
        int nPast = Native.lastPos(handle) + 1;
        checkRoom(where, (long) nPast + tokens.length);
        history.write(nPast, tokens);
        ++epoch;
        for (int i = 0; i < tokens.length; i += step) {
            int n = Math.min(step, tokens.length - i);
            Native.decode(handle, tokens, i, n, nPast + i, run);
            nEvaluated += n;
            if (progress != null) {
                progress.onProgress(i + n, tokens.length);
            }
        }
    }

    private void checkRoom(String where, long n) {
        Check.room(where, n, nCtx);
    }

    // --- text ----------------------------------------------------------------------------------------------------

    /**
     * Continue a prompt, in which control tokens count. The sequence becomes the prompt, and only what it does not hold already is
     * evaluated. Nothing is computed before the stream's first hasNext().
     *
     * @param progress of the prompt; null: none
     * @throws IllegalArgumentException an empty prompt, or one that n_ctx has no room for
     */
    public Generation generate(String prompt, GenerateOptions options, Progress progress) {
        return generate(model.tokenize(prompt, true, true), options, progress);
    }

    /** The same of token ids. */
    public Generation generate(int[] prompt, GenerateOptions options, Progress progress) {
        return begin("generate", prompt.clone(), Check.given("generate: options", options).stop, options, progress, null);
    }

    /**
     * Answer a chat; a system message, then the user's and the assistant's in turn. A chat that only grows evaluates its new tokens, also
     * where the last answer was cancelled: put {@link Generation#text} of it into the messages.
     */
    public Generation chat(List<ChatMessage> messages, GenerateOptions options, Progress progress) {
        Check.given("chat: options", options);
        String[] prompt = model.chatPrompt(messages, true);
        List<String> stops = new ArrayList<>(options.stop);
        stops.addAll(Arrays.asList(prompt).subList(1, prompt.length));
        return begin("chat", chatTokens(prompt[0]), stops, options, progress, prompt[0]);
    }

    private Generation begin(String where, int[] prompt, List<String> stops, GenerateOptions options, Progress progress, String chat) {
        Check.that(model.checked(where, prompt).length > 0, where + ": prompt: got no tokens, expected at least one; write a prompt");
        checkRoom(where, prompt.length + 1L);
        return new Generation(this, prompt, stops, options, progress, chat);
    }

    /**
     * Tokens of a prompt. Where it goes on from the last turn, that turn's own: what a model wrote is not always split as the tokenizer
     * would split it, and read again it would be another text to it.
     */
    private int[] chatTokens(String text) {
        enter();
        try {
            if (turn != null && text.startsWith(turn.text)) {
                int[] rest = model.tokenize(text.substring(turn.text.length()), false, true);
                if (rest.length > 0 && model.isControl(rest[0])) { // no word goes on across it
                    int[] out = Arrays.copyOf(turn.ids, turn.ids.length + rest.length);
                    System.arraycopy(rest, 0, out, turn.ids.length, rest.length);
                    return out;
                }
            }
            return model.tokenize(text, true, true);
        } finally {
            lock.unlock();
        }
    }

    void keepTurn(String text, int[] ids) {
        lock.lock();
        turn = new Turn(text, ids);
        lock.unlock();
    }

    // --- what Generation is made of ------------------------------------------------------------------------------

    /** Reads the prompt; {tokens evaluated, epoch}. The chain of samplers is made anew. */
    long[] readPrompt(int[] prompt, GenerateOptions o, int seed, Progress progress, long run) {
        enter();
        try {
            checkRun(run);
            int[] todo = reuse(prompt);
            if (todo.length > 0) {
                eval("generate", todo, progress, run);
            }
            Native.newChain(handle, seed, o.topK, (float) o.topP, (float) o.minP, (float) o.temperature, (float) o.repeatPenalty, lastN);
            Native.accept(handle, history.last(prompt.length, lastN));
            return new long[] { todo.length, ++epoch };
        } finally {
            lock.unlock();
        }
    }

    /** The next token, after the given one (-1: none) was evaluated; -1 where n_ctx ends. SpikingBrainException: the sequence was changed. */
    int nextToken(int last, long[] itsEpoch, long run) {
        enter();
        try {
            checkRun(run);
            if (itsEpoch[0] != epoch) {
                throw new SpikingBrainException("generate: got a sequence that another call changed, expected it as it was left; use one session per conversation");
            }
            if (last >= 0) {
                if (Native.lastPos(handle) + 2 >= nCtx) {
                    return -1;
                }
                eval("generate", new int[] { last }, null, run);
                Native.accept(handle, new int[] { last });
            }
            itsEpoch[0] = ++epoch;
            return Native.chooseToken(handle);
        } finally {
            lock.unlock();
        }
    }

    /** Make the sequence a prefix of the prompt, keeping what can be kept; returns what is left to evaluate. */
    private int[] reuse(int[] prompt) {
        int n = Native.lastPos(handle) + 1;
        int common = history.common(n, prompt);
        if (common == n && (prompt.length > n || Native.logitsPos(handle) == n - 1)) {
            return Arrays.copyOfRange(prompt, n, prompt.length);
        }
        int keep = Math.min(common, prompt.length - 1); // the last token's logits are needed
        if (keep > 0 && Native.removeFrom(handle, keep) && Native.lastPos(handle) == keep - 1) {
            return Arrays.copyOfRange(prompt, keep, prompt.length);
        }
        Native.clear(handle); // most memories cannot give back a tail: read it again rather than be wrong
        return prompt;
    }

    // --- snapshots -----------------------------------------------------------------------------------------------

    /**
     * Write the sequence to a file of constant size, whole or not at all: its state, the last logits, the last 1024 to 2047 tokens and a
     * hash of those before. Python's Llama.restore reads it, too. IOException: the file is the model or no regular one, no room, no
     * permission; what was there is still there.
     */
    public void snapshot(File file) throws IOException {
        Check.given("snapshot: file", file);
        SnapshotFile made;
        enter();
        try {
            made = Transfer.take(handle, model, history);
        } finally {
            lock.unlock();
        }
        try {
            made.save(file, model.files());
        } finally {
            made.close();
        }
    }

    /**
     * Replace the sequence by a snapshot's, also of another process or of Python. Nothing is evaluated; a prompt that extends the one it was
     * made after evaluates its new tokens only. Of the tokens before the snapshot's tail nothing but a hash is known.
     *
     * @throws IOException           no such file, no snapshot, a damaged one, or one of another model, spikes, adapters, tokenizer or
     *                               version, or longer than n_ctx; the sequence stays as it was
     * @throws SpikingBrainException llama.cpp refuses the data; the sequence is then empty
     */
    public void restore(File file) throws IOException {
        Check.given("restore: file", file);
        try (SnapshotFile made = SnapshotFile.load(file)) {
            enter();
            try {
                Transfer.checkFits(handle, made, model, nCtx);
                ++epoch;
                Transfer.put(handle, made);
                history = History.of(made.nTokens, made.history);
            } finally {
                lock.unlock();
            }
        }
    }

    // --- spikes --------------------------------------------------------------------------------------------------

    /** Counts of every token evaluated since the session was made or {@link #resetSpikeStats}. SpikingBrainException: made without them. */
    public SpikeStats spikeStats() {
        enter();
        try {
            Object[] flat = Native.spikeStats(handle);
            List<SpikeInput> inputs = new ArrayList<>();
            for (int i = 0; i < flat.length; i += 2) {
                SpikeInput input = new SpikeInput(Prints.text((byte[]) flat[i]), (long[]) flat[i + 1]);
                if (input.nTokens > 0) {
                    inputs.add(input);
                }
            }
            return new SpikeStats(model.spikeK(), model.spikeScope(), inputs);
        } finally {
            lock.unlock();
        }
    }

    /** Count from zero again; the sequence stays. */
    public void resetSpikeStats() {
        enter();
        try {
            Native.resetSpikeStats(handle);
        } finally {
            lock.unlock();
        }
    }
}
