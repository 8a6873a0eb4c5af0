package org.spikingbrain.app.core;

import org.spikingbrain.CountHistogram;
import org.spikingbrain.SpikeStats;

import java.util.Locale;
import java.util.Map;

/** Spike statistics as bars and lines. */
public final class SpikeReport {
    private static final int[] FROM = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64, CountHistogram.N_BINS };

    /** Tokens counted; 0: nothing to show. */
    public final long nTokens;
    /** |s| of each bar: "0", "8-15", ... */
    public final String[] labels;
    /** Share of all channels, 0 to 1. */
    public final double[] shares;
    /** The whole model, then a line per layer. */
    public final String text;

    SpikeReport(SpikeStats stats) {
        CountHistogram all = stats.model();
        nTokens = stats.nTokens();
        labels = new String[FROM.length];
        shares = new double[FROM.length];
        long[] bins = all.bins();
        for (int i = 0; i < FROM.length; ++i) {
            boolean last = i == FROM.length - 1;
            long n = last ? all.nOver() : 0;
            for (int s = FROM[i]; !last && s < FROM[i + 1]; ++s) {
                n += bins[s];
            }
            labels[i] = last ? FROM[i] + "-" : FROM[i + 1] == FROM[i] + 1 ? "" + FROM[i] : FROM[i] + "-" + (FROM[i + 1] - 1);
            shares[i] = all.n() == 0 ? 0 : (double) n / all.n();
        }
        StringBuilder out = new StringBuilder(String.format(Locale.ROOT, "k = %s, scope %s, %d tokens, %d refused%n", Settings.text(stats.k), stats.scope,
            nTokens, stats.nRefused()));
        if (nTokens > 0) {
            out.append("all: ").append(line(all)).append('\n');
            for (Map.Entry<Integer, CountHistogram> layer : stats.byLayer().entrySet()) {
                out.append("layer ").append(layer.getKey()).append(": ").append(line(layer.getValue())).append('\n');
            }
        }
        text = out.toString();
    }

    private static String line(CountHistogram h) {
        return String.format(Locale.ROOT, "silent %.1f%%, |s| <= 7 %.2f%%, spikes per channel %.2f, sparsity %.1f%%, largest %d", 100 * h.silentShare(),
            100 * h.shareTo7(), h.meanSpikes(), 100 * h.sparsity(), h.largest());
    }
}
