package org.spikingbrain.app.core;

/**
 * When the foreground service starts and stops. Android ends an app whose service is stopped between startForegroundService and
 * startForeground, so a stop waits until the start was carried out.
 */
public final class Foreground {
    /** What must be done now. */
    public enum Command { NONE, START, STOP }

    private boolean wanted;
    private boolean starting;
    private boolean running;

    /** Whether something is computed that must not be interrupted. */
    public synchronized Command want(boolean on) {
        wanted = on;
        if (on && !starting && !running) {
            starting = true;
            return Command.START;
        }
        return stopIfIdle();
    }

    /** The service called startForeground. */
    public synchronized Command started() {
        starting = false;
        running = true;
        return stopIfIdle();
    }

    /** Android refused the start, or ended the service: the next want() starts it anew. */
    public synchronized void gone() {
        starting = false;
        running = false;
    }

    private Command stopIfIdle() {
        if (wanted || !running) {
            return Command.NONE;
        }
        running = false;
        return Command.STOP;
    }
}
