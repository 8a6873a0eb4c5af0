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

    Fit(long total, long available) {
        this.needed = total + RESERVE;
        this.available = available;
        this.ok = needed <= available;
    }

    /** A sentence for the user: what is needed, what there is, and what to do. */
    public String sentence() {
        String numbers = String.format(Locale.ROOT, "memory: got %d MiB available, expected %d MiB", available >> 20, (needed + (1 << 20) - 1) >> 20);
        return ok ? numbers + "; it fits" : numbers + "; close other apps, or take a smaller model, quantisation or n_ubatch";
    }

    @Override
    public String toString() {
        return sentence();
    }
}
