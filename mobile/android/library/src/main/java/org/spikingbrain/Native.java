package org.spikingbrain;

import java.nio.ByteBuffer;

/**
 * What spikingbrain_jni.cpp offers. Text crosses as UTF-8 bytes, since JNI's own strings are of another encoding. Handles are pointers: their
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

    static native long loadModel(byte[] path, int fd, int spike, double k, boolean useMmap);

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

    /** messages: roles and contents in turn. {prompt, stop strings of the template ...} */
    static native byte[][] applyChatTemplate(long model, byte[][] messages, boolean addGenerationPrompt);

    // --- a session -----------------------------------------------------------------------------------------------

    static native long newSession(long model, int nCtx, int nBatch, int nUbatch, int nThreads, int nThreadsBatch, boolean spikeStats);

    static native void freeSession(long session);

    /** {n_ctx, n_batch, tokens per decode} */
    static native int[] limits(long session);

    /** Tokens [from, from + n) at positions pos, ...; run: number of the computation, for cancel. */
    static native void decode(long session, int[] tokens, int from, int n, int pos, long run);

    /** From any thread: ends the computations up to this number. */
    static native void cancel(long session, long run);

    /** Position of the last token, -1: none. */
    static native int lastPos(long session);

    /** Position whose logits are there, -1: none. */
    static native int logitsPos(long session);

    static native boolean removeFrom(long session, int pos);

    static native void clear(long session);

    static native void newChain(long session, int seed, int topK, float topP, float minP, float temperature, float repeatPenalty, int lastN);

    static native void accept(long session, int[] tokens);

    static native int chooseToken(long session);

    /** What its states belong to, see fingerprint() of cpp_backend/runtime/runtime.h. */
    static native byte[] fingerprint(long session);

    static native long stateBytes(long session);

    static native long stateSize(long session);

    /** Into or out of memory of allocate(). */
    static native void getState(long session, ByteBuffer memory, long at, long size);

    static native void setState(long session, ByteBuffer memory, long at, long size);

    static native void getLogits(long session, ByteBuffer memory, long at, long size);

    static native void setLogits(long session, ByteBuffer memory, long at, long size, int pos);

    /** Per input: byte[] (its node and weights, a line each) and long[] (see SpikeInput), in turn. */
    static native Object[] spikeStats(long session);

    static native void resetSpikeStats(long session);
}
