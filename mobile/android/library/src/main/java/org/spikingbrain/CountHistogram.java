package org.spikingbrain;

/** Absolute spike counts |s|: how many of each below 4096, and of those above their number, spikes and largest. The figures are those of the paper's section 5.5. */
public final class CountHistogram {
    /** |s| below are counted one by one. */
    public static final int N_BINS = 4096;
    private static final int STEPS = 3; // of the paper's sparsity; counts up to 7

    private final long[] bins = new long[N_BINS];
    private long over;
    private long overSpikes;
    private long largest;

    CountHistogram() {}

    /** Adds another histogram a number of times. */
    void add(long[] otherBins, int from, long nOver, long spikesOver, long largestOther, int times) {
        for (int i = 0; i < N_BINS && times > 0; ++i) {
            bins[i] += times * otherBins[from + i];
        }
        over += times * nOver;
        overSpikes += times * spikesOver;
        largest = times > 0 ? Math.max(largest, largestOther) : largest;
    }

    void add(CountHistogram other, int times) {
        add(other.bins, 0, other.over, other.overSpikes, other.largest, times);
    }

    /** Number of each |s| below {@link #N_BINS}, a copy. */
    public long[] bins() {
        return bins.clone();
    }

    /** Number of counts at or above {@link #N_BINS}. */
    public long nOver() {
        return over;
    }

    /** The largest |s|. */
    public long largest() {
        return largest;
    }

    /** Counts in all. */
    public long n() {
        return sum(0, N_BINS) + over;
    }

    /** Share of |s| at most 7: three bits. NaN, as all shares, where nothing was counted. */
    public double shareTo7() {
        return share(sum(0, 8), n());
    }

    /** Share of |s| above 16. */
    public double shareAbove16() {
        return share(sum(17, N_BINS) + over, n());
    }

    /** Share of s = 0. */
    public double silentShare() {
        return share(bins[0], n());
    }

    /** Spikes in all, bitwise bidirectional coding: the set bits of each |s|. */
    public long spikes() {
        return spikes(N_BINS) + overSpikes;
    }

    /** Spikes per channel. */
    public double meanSpikes() {
        return share(spikes(), n());
    }

    /** 1 - spikes / (3 x channels); counts above 7 with all their spikes: the least sparse it can be. */
    public double sparsity() {
        return 1 - share(spikes(), STEPS * n());
    }

    /** The same over the channels with |s| at most 7 alone, which fit in 3 steps. */
    public double sparsityTo7() {
        return 1 - share(spikes(8), STEPS * sum(0, 8));
    }

    private long sum(int from, int to) {
        long sum = 0;
        for (int i = from; i < to; ++i) {
            sum += bins[i];
        }
        return sum;
    }

    private long spikes(int below) {
        long sum = 0;
        for (int i = 0; i < below; ++i) {
            sum += bins[i] * Integer.bitCount(i);
        }
        return sum;
    }

    private static double share(long n, long of) {
        return of == 0 ? Double.NaN : (double) n / of;
    }
}
