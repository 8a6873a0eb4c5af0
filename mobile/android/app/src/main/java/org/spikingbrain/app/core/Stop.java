package org.spikingbrain.app.core;

import org.spikingbrain.Session;

import java.util.concurrent.atomic.AtomicLong;

/** Ends work that was asked for before it, begun or not, and none that is asked for after it. */
final class Stop {
    private final AtomicLong issued = new AtomicLong();
    private volatile long stopped;
    private volatile Session computing;

    /** A number for new work. */
    long begin() {
        return issued.incrementAndGet();
    }

    boolean isStopped(long work) {
        return work <= stopped;
    }

    /** What must be cancelled; null: nothing. Ask isStopped after it. */
    void computing(Session session) {
        computing = session;
    }

    void stop() {
        stopped = issued.get(); // before computing is read: one of the two threads sees what the other wrote
        Session now = computing;
        if (now != null) {
            now.cancel();
        }
    }
}
