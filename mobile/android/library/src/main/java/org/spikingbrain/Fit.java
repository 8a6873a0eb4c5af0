package org.spikingbrain;

import java.util.Locale;

/** Whether a model will fit into memory. */
public final class Fit {
    /** Beside the estimate: libraries, the virtual machine, the app itself. */
    public static final long RESERVE = 64L << 20;

    /** Go. */
    public final boolean ok;
    /** Bytes that loading and its sessions take, {@link #RESERVE} included. */
    public final long needed;
    /** Bytes there are. */
    public final long available;
    /** Of what is needed, bytes that a text of n_ctx tokens takes; 0: its length does not matter. */
    public final long cache;

    Fit(long total, long cache, long available) {
        this.needed = total + RESERVE;
        this.available = available;
        this.cache = cache;
        this.ok = needed <= available;
    }

    /** A sentence for the user: what is needed, what there is, and what to do. */
    public String sentence() {
        String numbers = String.format(Locale.ROOT, "memory: got %d MiB available, expected %d MiB", available >> 20, mib(needed))
            + (cache == 0 ? "" : String.format(Locale.ROOT, ", %d MiB of them for n_ctx tokens of text", mib(cache)));
        return ok ? numbers + "; it fits" : numbers + "; close other apps, or take a smaller model, quantisation" + (cache == 0 ? " or n_ubatch" : ", n_ctx or n_ubatch");
    }

    private static long mib(long bytes) {
        return (bytes + (1 << 20) - 1) >> 20;
    }

    @Override
    public String toString() {
        return sentence();
    }
}
