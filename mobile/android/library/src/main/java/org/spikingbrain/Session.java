package org.spikingbrain;

import java.io.File;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

import org.jspecify.annotations.Nullable;

/**
 * One sequence of a model: what it has read, and its memory. Calls from several threads wait for one another; {@link #cancel} does not
 * wait. What the sequence holds is asked of llama.cpp's memory alone, so that a call that failed or was cancelled leaves exactly the
 * micro-batches that were finished. After close() all calls throw IllegalStateException.
 */
public final class Session implements AutoCloseable {
    private static final int[] SEQ = { 0 }; // the one sequence of its context

    private final SpikingBrain model;
    private final int lastN; // tokens that the penalties look back
    private final Limits limits;
    private final NativeSession own;
    private final LastTurn lastTurn = new LastTurn();
    private History history = new History();
    private long epoch; // changes whenever the sequence does
    private long nEvaluated;

    /** The chat that chat() goes on with. */
    private static final class LastTurn implements Answering {
        private volatile Turn turn = Turn.NONE;

        @Override
        public Turn turn(SpikingBrain model) {
            return turn;
        }

        @Override
        public void said(String piece) {
            // the caller has it
        }

        @Override
        public void ended(Generation answer, Turn itsTurn) {
            turn = itsTurn == null ? turn : itsTurn;
        }
    }

    Session(SpikingBrain model, long modelHandle, SessionOptions o) {
        this.model = model;
        this.lastN = o.lastNTokens;
        own = new NativeSession("session", modelHandle, o, 1);
        limits = new Limits(model, own.use(Native::limits), o);
    }

    /**
     * The maxTokens of an answer for which none is named, after a prompt of nPrompt tokens: up to n_ctx, where one was given. Else prompt
     * and answer end together at max(trained length, 32768) tokens, but not before 4096 new ones.
     */
    public int defaultMaxTokens(int nPrompt) {
        return limits.defaultMaxTokens(nPrompt);
    }

    /** The model it belongs to. */
    public SpikingBrain model() {
        return model;
    }

    // --- life ----------------------------------------------------------------------------------------------------

    /** End what is under way, wait for it, free the memory. Calling it again is harmless. */
    @Override
    public void close() {
        own.close();
        model.forget(this);
    }

    /**
     * End what is under way, from any thread: an evaluation within its micro-batch, a generation at its next token; they throw
     * {@link CancelledException}. The sequence keeps the micro-batches that were finished and can go on. Nothing under way: no effect.
     */
    public void cancel() {
        own.cancel();
    }

    /** A number for what begins now, which a cancel from now on ends. */
    long newRun() {
        return own.newRun();
    }

    // --- the sequence --------------------------------------------------------------------------------------------

    /** Tokens the sequence holds. */
    public int nTokens() {
        return own.use(Session::n);
    }

    private static int n(long handle) {
        return Native.lastPos(handle, 0) + 1;
    }

    /** The tokens themselves, a copy; -1 for those that a snapshot did not bring (see {@link #restore}). */
    public int[] tokens() {
        return own.use(handle -> history.all(n(handle)));
    }

    /** Most tokens the sequence may hold. */
    public int nCtx() {
        return limits.nCtx;
    }

    /** Tokens evaluated since the session was made. */
    public long nEvaluated() {
        return own.use(handle -> nEvaluated);
    }

    /** Bytes allocated for the sequence's state: fixed, whatever is read; 0 where the architecture does not tell. */
    public long stateBytes() {
        return own.use(Native::stateBytes);
    }

    /** CPUs that the last computation stayed on (see {@link SessionOptions#cpus}); none: anywhere, also where the system refused. */
    public int[] cpus() {
        return own.use(Native::cpus);
    }

    /** Forget the sequence. */
    public void reset() {
        own.use(handle -> {
            ++epoch;
            Native.clear(handle, 0);
            return null;
        });
    }

    /**
     * Append tokens to the sequence.
     *
     * @param progress called after every micro-batch; null: none
     * @throws IllegalArgumentException no tokens, unknown ones, or more than n_ctx has room for
     * @throws CancelledException       see {@link #cancel}
     */
    public void eval(int[] tokens, @Nullable Progress progress) {
        int[] read = model.checked("eval", tokens).clone();
        own.use(handle -> {
            eval(handle, "eval", read, progress, newRun());
            return null;
        });
    }

    private void eval(long handle, String where, int[] tokens, Progress progress, long run) {
        Check.that(tokens.length > 0, where + ": tokens: got none, expected at least one");
        int nPast = n(handle);
        Check.room(where, (long) nPast + tokens.length, limits.nCtx);
        history.write(nPast, tokens);
        ++epoch;
        for (int i = 0; i < tokens.length; i += limits.step) {
            int n = Math.min(limits.step, tokens.length - i);
            Native.decode(handle, SEQ, tokens, i, n, run);
            nEvaluated += n;
            if (progress != null) {
                progress.onProgress(i + n, tokens.length);
            }
        }
    }

    // --- text ----------------------------------------------------------------------------------------------------

    /**
     * Continue a prompt, in which control tokens count. The sequence becomes the prompt, and only what it does not hold already is
     * evaluated. Nothing is computed before the stream's first hasNext().
     *
     * @param progress of the prompt; null: none
     * @throws IllegalArgumentException an empty prompt, one that n_ctx has no room for, or tools
     */
    public Generation generate(String prompt, GenerateOptions options, @Nullable Progress progress) {
        return generate(model.tokenize(Check.given("generate: prompt", prompt), true, true), options, progress);
    }

    /** The same of token ids. */
    public Generation generate(int[] prompt, GenerateOptions options, @Nullable Progress progress) {
        GenerateOptions o = Check.given("generate: options", options).of("generate", model);
        o.refuseTools("generate");
        int[] ids = limits.prompt("generate", Check.given("generate: prompt", prompt).clone());
        return new Generation(this, ids, o, Constraint.of(o.grammar), progress);
    }

    /**
     * Answer a chat; a system message, then the user's and the assistant's in turn. A chat that only grows evaluates its new tokens, also
     * where the last answer was cancelled: put {@link Generation#message} of it into the messages, or let a {@link Conversation} do that.
     */
    public Generation chat(List<ChatMessage> messages, GenerateOptions options, @Nullable Progress progress) {
        return chat("chat", messages, options, progress, lastTurn);
    }

    Generation chat(String where, List<ChatMessage> messages, GenerateOptions options, Progress progress, Answering chatOf) {
        GenerateOptions o = Check.given(where + ": options", options).of(where, model);
        ChatPrompt asked = ChatPrompt.of(where, model, messages, o, true);
        List<String> stops = new ArrayList<>(o.stop);
        stops.addAll(asked.stops);
        int[] ids = limits.prompt(where, chatOf.turn(model).extend(model, asked.text));
        return new Generation(this, ids, o, asked, stops, progress, chatOf);
    }

    // --- what Generation is made of ------------------------------------------------------------------------------

    /** Reads the prompt; {tokens evaluated, epoch}. The chain of samplers is made anew. */
    long[] readPrompt(int[] prompt, GenerateOptions o, Constraint constraint, Progress progress, long run) {
        return own.use(handle -> {
            own.checkRun(run);
            int[] todo = reuse(handle, prompt);
            if (todo.length > 0) {
                eval(handle, "generate", todo, progress, run);
            }
            o.newChain(handle, 0, o.drawSeed(), lastN, constraint);
            Native.accept(handle, 0, history.last(prompt.length, lastN));
            return new long[] { todo.length, ++epoch };
        });
    }

    /**
     * The next token, after the given one (-1: none) was evaluated; -1 where n_ctx ends. nLogprobs: -1: none, else thought[0] becomes the token's.
     * SpikingBrainException: the sequence was changed.
     */
    int nextToken(int last, long[] itsEpoch, long run, int nLogprobs, TokenLogprobs[] thought) {
        return own.use(handle -> {
            own.checkRun(run);
            if (itsEpoch[0] != epoch) {
                throw new SpikingBrainException("generate: got a sequence that another call changed, expected it as it was left; use one session per conversation");
            }
            if (last >= 0) {
                if (Native.lastPos(handle, 0) + 2 >= limits.nCtx) {
                    return -1;
                }
                eval(handle, "generate", new int[] { last }, null, run);
                Native.accept(handle, 0, new int[] { last });
            }
            itsEpoch[0] = ++epoch;
            int token = Native.chooseToken(handle, 0);
            thought[0] = nLogprobs < 0 ? null : new TokenLogprobs(model, token, Native.logprobs(handle, 0, token, nLogprobs));
            return token;
        });
    }

    /** Make the sequence a prefix of the prompt, keeping what can be kept; returns what is left to evaluate. */
    private int[] reuse(long handle, int[] prompt) {
        int n = n(handle);
        int common = history.common(n, prompt);
        if (common == n && (prompt.length > n || Native.logitsPos(handle, 0) == n - 1)) {
            return Arrays.copyOfRange(prompt, n, prompt.length);
        }
        int keep = Math.min(common, prompt.length - 1); // the last token's logits are needed
        if (keep > 0 && Native.removeFrom(handle, 0, keep) && n(handle) == keep) {
            return Arrays.copyOfRange(prompt, keep, prompt.length);
        }
        Native.clear(handle, 0); // most memories cannot give back a tail: read it again rather than be wrong
        return prompt;
    }

    // --- snapshots -----------------------------------------------------------------------------------------------

    /**
     * Write the sequence to a file of constant size, whole or not at all: its state, the last logits, the last 1024 to 2047 tokens and a
     * hash of those before. Python's Llama.restore reads it, too.
     *
     * @throws NotDurableException the file is written and in its place, but its folder could not be synchronised
     * @throws IOException         any other: the file is the model or no regular one, no room, no permission; what was there is still there
     */
    public void snapshot(File file) throws IOException {
        Check.given("snapshot: file", file);
        try (SnapshotFile made = own.use(handle -> Transfer.take(handle, model, history))) {
            made.save(file, model.files());
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
            own.<Void, IOException>use(handle -> {
                Transfer.checkFits(handle, made, model, limits.nCtx);
                ++epoch;
                Transfer.put(handle, made);
                history = History.of(made.nTokens, made.history);
                return null;
            });
        }
    }

    // --- spikes --------------------------------------------------------------------------------------------------

    /** Counts of every token evaluated since the session was made or {@link #resetSpikeStats}. SpikingBrainException: made without them. */
    public SpikeStats spikeStats() {
        Object[] flat = own.use(Native::spikeStats);
        List<SpikeInput> inputs = new ArrayList<>();
        for (int i = 0; i < flat.length; i += 2) {
            SpikeInput input = new SpikeInput(Prints.text((byte[]) flat[i]), (long[]) flat[i + 1]);
            if (input.nTokens > 0) {
                inputs.add(input);
            }
        }
        return new SpikeStats(model.spikeK(), model.spikeScope(), inputs);
    }

    /** Count from zero again; the sequence stays. */
    public void resetSpikeStats() {
        own.use(handle -> {
            Native.resetSpikeStats(handle);
            return null;
        });
    }
}
