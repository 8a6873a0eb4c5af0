package org.spikingbrain;

import java.io.IOException;

/** A sequence out of llama.cpp's memory and into it again. */
final class Transfer {
    private Transfer() {}

    /** What a session holds; the caller closes it. */
    static SnapshotFile take(long session, SpikingBrain model, History history) {
        int n = Native.lastPos(session) + 1;
        long nData = n > 0 ? Native.stateSize(session) : 0;
        long dataAt = n > 0 && Native.logitsPos(session) == n - 1 ? 4L * model.nVocab() : 0;
        NativeMemory memory = new NativeMemory(dataAt + nData);
        try {
            if (dataAt > 0) {
                Native.getLogits(session, memory.handle(), 0, dataAt);
            }
            if (nData > 0) {
                Native.getState(session, memory.handle(), dataAt, nData);
            }
            return new SnapshotFile(model.fingerprint(), model.tokenizerPrint(), n, history.cut(n), memory, 0, dataAt, dataAt + nData);
        } catch (RuntimeException e) {
            memory.close();
            throw e;
        }
    }

    /** IOException: of another model or tokenizer, or too long. */
    static void checkFits(SnapshotFile made, SpikingBrain model, int nCtx) throws IOException {
        checkSame("model", made.fingerprint, model.fingerprint());
        checkSame("tokenizer", made.tokenizer, model.tokenizerPrint());
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

    private static void checkSame(String what, String got, String want) throws IOException {
        if (!got.equals(want)) {
            throw new IOException("restore: " + what + ": got a snapshot of " + got.substring(0, Math.min(12, got.length())) + ", expected one of "
                + want.substring(0, 12) + "; load the model that it was saved from");
        }
    }

    /** SpikingBrainException: llama.cpp refuses the data; the sequence is then empty. */
    static void put(long session, SnapshotFile made) {
        Native.clear(session);
        if (made.nTokens == 0) {
            return;
        }
        try {
            Native.setState(session, made.memory.handle(), made.dataAt, made.end - made.dataAt);
        } catch (SpikingBrainException e) {
            Native.clear(session);
            throw new SpikingBrainException("restore: got data that llama.cpp refuses: " + e.getMessage() + "; save it again with this model");
        }
        int got = Native.lastPos(session) + 1;
        if (got != made.nTokens) {
            Native.clear(session);
            throw new SpikingBrainException("restore: data: got " + got + " tokens, expected " + made.nTokens + "; save it again");
        }
        if (made.nLogits() > 0) {
            Native.setLogits(session, made.memory.handle(), made.logitsAt, made.dataAt - made.logitsAt, made.nTokens - 1);
        }
    }
}
