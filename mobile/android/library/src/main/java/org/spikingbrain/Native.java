package org.spikingbrain;

import java.nio.ByteBuffer;

/**
 * What the *_jni.cpp offer. Text crosses as UTF-8 bytes, since JNI's own strings are of another encoding. Handles are pointers: their
 * owners see to it that none is used after it was freed. Errors: IllegalArgumentException, CancelledException, SpikingBrainException.
 */
final class Native {
    private Native() {}

    /** folder: where the CPU libraries lie; "": beside this library. Once per process. */
    static native void init(byte[] folder);

    static native byte[] systemInfo();

    static native byte[] spikeIsa();

    /** {model, state, compute, n_vocab}. A file is given by its path, or with path = null by a descriptor. spike: -1 as the file says. */
    static native long[] measure(byte[] path, int fd, int spike, double k, int nCtx, int nBatch, int nUbatch, int nRows);

    static native ByteBuffer allocate(long size);

    static native void free(ByteBuffer memory);

    // --- a model -------------------------------------------------------------------------------------------------

    /** progress: null: none. CancelledException: it returned false; whatever it throws reaches the caller. */
    static native long loadModel(byte[] path, int fd, int spike, double k, boolean useMmap, LoadProgress progress);

    static native void freeModel(long model);

    /** Keys and values in turn. */
    static native byte[][] metadata(long model);

    static native byte[] description(long model);

    /** {n_vocab, n_params, bytes of the weights, n_ctx_train, bos, eos} */
    static native long[] figures(long model);

    /** New tokens of an answer for which no limit was named, after a prompt of so many (llama-spikingbrain.h). */
    static native int defaultLimit(long model, int nPrompt);

    /** Tokens taken out of a text before it is split; control: those that are control tokens, or the others. */
    static native byte[][] addedTokens(long model, boolean control);

    static native byte[] vocabDigestInput(long model);

    static native int[] tokenize(long model, byte[] text, boolean addSpecial, boolean parseSpecial);

    static native byte[] piece(long model, int token, boolean special);

    static native boolean isEog(long model, int token);

    static native boolean isControl(long model, int token);

    // --- chats and grammars: chat_jni.cpp ------------------------------------------------------------------------

    /** IllegalArgumentException: no GBNF. */
    static native void checkGrammar(byte[] text, byte[] root);

    static native boolean grammarMatches(byte[] text, byte[] root, byte[] answer);

    /** {GBNF, what leniency left out ...} */
    static native byte[][] schemaToGrammar(byte[] schema, boolean lenient);

    /** JSON as llama.cpp writes it. where: what a refusal begins with. */
    static native byte[] normalJson(byte[] where, byte[] text);

    /** What ChatPrompt reads. messages, tools: as ChatPrompt writes them; choice: 0 auto, 1 required, 2 none. */
    static native Object[] chatPrompt(long model, byte[][][] messages, byte[][] tools, int choice, boolean addGenerationPrompt);

    /** The message that an answer is so far, last: for good: {content, reasoning, then id, name, arguments of every call}. */
    static native byte[][] parseAnswer(int format, byte[] parser, byte[] generationPrompt, byte[] text, boolean last);

    // --- a session -----------------------------------------------------------------------------------------------

    static native long newSession(long model, int nCtx, int nBatch, int nUbatch, int nThreads, int nThreadsBatch, boolean spikeStats, int nSeq, int[] cpus);

    static native void freeSession(long session);

    /** {n_ctx, tokens per decode} */
    static native int[] limits(long session);

    /** CPUs that the last computation stayed on; none: anywhere. */
    static native int[] cpus(long session);

    /** n tokens of each of the sequences behind what they hold, [from, from + seqs.length * n); run: number of the computation, for cancel. */
    static native void decode(long session, int[] seqs, int[] tokens, int from, int n, long run);

    /** From any thread: ends the computations up to this number. */
    static native void cancel(long session, long run);

    /** Position of a sequence's last token, -1: none. */
    static native int lastPos(long session, int seq);

    /** Position whose logits are there, -1: none. */
    static native int logitsPos(long session, int seq);

    static native boolean removeFrom(long session, int seq, int pos);

    static native void clear(long session, int seq);

    /** Sequence `to` becomes a copy of `from`: state and logits. */
    static native void copy(long session, int from, int to);

    /** numbers, shares, grammar, lists: see session_jni.cpp. */
    static native void newChain(long session, int seq, int[] numbers, float[] shares, int[] biasTokens, float[] biases, byte[][] grammar, int[][] lists,
        boolean lazy);

    static native void accept(long session, int seq, int[] tokens);

    static native int chooseToken(long session, int seq);

    /** {int[]: the likeliest tokens, float[]: log probabilities of the token, then of those} */
    static native Object[] logprobs(long session, int seq, int token, int nTop);

    /** What its states belong to, see fingerprint() of cpp_backend/runtime/runtime.h. */
    static native byte[] fingerprint(long session);

    static native long stateBytes(long session);

    static native long stateSize(long session);

    /** Of the first sequence, into or out of memory of allocate(). */
    static native void getState(long session, ByteBuffer memory, long at, long size);

    static native void setState(long session, ByteBuffer memory, long at, long size);

    static native void getLogits(long session, ByteBuffer memory, long at, long size);

    static native void setLogits(long session, ByteBuffer memory, long at, long size, int pos);

    /** Per input: byte[] (its node and weights, a line each) and long[] (see SpikeInput), in turn. */
    static native Object[] spikeStats(long session);

    static native void resetSpikeStats(long session);
}
