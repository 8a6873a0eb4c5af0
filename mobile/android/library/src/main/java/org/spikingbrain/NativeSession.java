package org.spikingbrain;

import java.util.concurrent.locks.ReentrantLock;

/** A native session: who may use it, what ends a computation, how it is freed. */
final class NativeSession {
    /** What uses it. */
    interface Call<T, E extends Exception> {
        T of(long handle) throws E;
    }

    private final String what;
    private final ReentrantLock lock = new ReentrantLock();
    private final Object cancelling = new Object(); // guards handle against cancel, which takes no lock
    private long handle;
    private long lastRun;
    private volatile long cancelledRun;

    /** what: "session", "parallel": errors begin with it. nSeq: sequences. Errors: see SpikingBrain.newSession. */
    NativeSession(String what, long model, SessionOptions o, int nSeq) {
        this.what = what;
        handle = Native.newSession(model, o.nCtx, o.nBatch, o.nUbatch, o.threads(), o.threadsBatch(), o.spikeStats, nSeq, o.cpusForNative());
    }

    /** One call after the other. IllegalStateException: closed, or from a progress or listener of its own. */
    <T, E extends Exception> T use(Call<T, E> call) throws E {
        refuseNested();
        lock.lock();
        try {
            if (handle == 0) {
                throw new IllegalStateException(what + ": got a closed one, expected an open one; make a new one");
            }
            return call.of(handle);
        } finally {
            lock.unlock();
        }
    }

    private void refuseNested() {
        if (lock.isHeldByCurrentThread()) {
            throw new IllegalStateException(what + ": got a call from its own progress, expected none but cancel(); call it afterwards");
        }
    }

    /** Ends what is under way, from any thread. */
    void cancel() {
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

    /** Ends what is under way, waits for it, frees the memory. Again: nothing. */
    void close() {
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
        } finally {
            lock.unlock();
        }
    }
}
