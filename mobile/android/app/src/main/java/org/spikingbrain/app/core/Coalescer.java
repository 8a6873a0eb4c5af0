package org.spikingbrain.app.core;

/** Screen updates at most every so often: any number of changes between two of them become one. */
public final class Coalescer {
    /** Runs something later, on the thread of the screen. */
    public interface Later {
        void run(Runnable what, long delayMs);
    }

    private final Later later;
    private final Runnable update;
    private final long everyMs;
    private boolean posted;

    public Coalescer(Later later, long everyMs, Runnable update) {
        this.later = later;
        this.everyMs = everyMs;
        this.update = update;
    }

    /** Something changed; from any thread. */
    public void changed() {
        synchronized (this) {
            if (posted) {
                return;
            }
            posted = true;
        }
        later.run(this::run, everyMs);
    }

    private void run() {
        synchronized (this) {
            posted = false; // before the update: what changes during it is shown by the next
        }
        update.run();
    }
}
