package org.spikingbrain;

import java.io.IOException;

/** A sequence out of llama.cpp's memory and into it again. */
final class Transfer {
    /** The four parts of a fingerprint, 16 hex digits each, and what helps where they differ; as state.py's. */
    private static final String[][] PARTS = {
        { "model", "load the model that it was saved from" },
        { "settings", "load the model with the spikes that it was saved with" },
        { "adapters", "restore it in Python, with the adapters that it was saved with" },
        { "types", "load the model with the types of keys and values that it was saved with" },
    };

    private Transfer() {}

    /** What a session holds; the caller closes it. */
    static SnapshotFile take(long session, SpikingBrain model, History history) {
        int n = Native.lastPos(session, 0) + 1;
        long nData = n > 0 ? Native.stateSize(session) : 0;
        long dataAt = n > 0 && Native.logitsPos(session, 0) == n - 1 ? 4L * model.nVocab() : 0;
        NativeMemory memory = new NativeMemory(dataAt + nData);
        try {
            if (dataAt > 0) {
                Native.getLogits(session, memory.handle(), 0, dataAt);
            }
            if (nData > 0) {
                Native.getState(session, memory.handle(), dataAt, nData);
            }
            return new SnapshotFile(fingerprint(session), model.tokenizerPrint(), n, history.cut(n), memory, 0, dataAt, dataAt + nData);
        } catch (RuntimeException e) {
            memory.close();
            throw e;
        }
    }

    private static String fingerprint(long session) {
        return Prints.text(Native.fingerprint(session));
    }

    /** IOException: of another model, other settings, another tokenizer, or too long. */
    static void checkFits(long session, SnapshotFile made, SpikingBrain model, int nCtx) throws IOException {
        String want = fingerprint(session);
        for (int i = 0; i < PARTS.length; ++i) {
            checkSame(PARTS[i][0], part(made.fingerprint, i), part(want, i), PARTS[i][1]);
        }
        checkSame("tokenizer", made.tokenizer, model.tokenizerPrint(), PARTS[0][1]);
        try {
            Check.room("restore", made.nTokens, nCtx);
            model.checked("restore", made.history.tail);
        } catch (IllegalArgumentException e) {
            throw new IOException(e.getMessage(), e);
        }
        if (made.nLogits() != 0 && made.nLogits() != model.nVocab()) {
            throw new IOException("restore: logits: got " + made.nLogits() + ", expected " + model.nVocab() + "; save it again");
        }
    }

    private static String part(String fingerprint, int i) {
        return fingerprint.length() == 16 * PARTS.length ? fingerprint.substring(16 * i, 16 * i + 16) : fingerprint;
    }

    private static void checkSame(String what, String got, String want, String advice) throws IOException {
        if (!got.equals(want)) {
            throw new IOException("restore: " + what + ": got a snapshot of " + got.substring(0, Math.min(16, got.length())) + ", expected one of "
                + want.substring(0, 16) + "; " + advice);
        }
    }

    /** SpikingBrainException: llama.cpp refuses the data; the sequence is then empty. */
    static void put(long session, SnapshotFile made) {
        Native.clear(session, 0);
        if (made.nTokens == 0) {
            return;
        }
        try {
            Native.setState(session, made.memory.handle(), made.dataAt, made.end - made.dataAt);
        } catch (SpikingBrainException e) {
            Native.clear(session, 0);
            throw new SpikingBrainException("restore: got data that llama.cpp refuses: " + e.getMessage() + "; save it again with this model");
        }
        int got = Native.lastPos(session, 0) + 1;
        if (got != made.nTokens) {
            Native.clear(session, 0);
            throw new SpikingBrainException("restore: data: got " + got + " tokens, expected " + made.nTokens + "; save it again");
        }
        if (made.nLogits() > 0) {
            Native.setLogits(session, made.memory.handle(), made.logitsAt, made.dataAt - made.logitsAt, made.nTokens - 1);
        }
    }
}
