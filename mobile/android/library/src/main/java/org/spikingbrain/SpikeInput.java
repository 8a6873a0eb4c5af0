package org.spikingbrain;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;

/** One encoded input of one layer: what it counted, and the projections that read it. */
public final class SpikeInput {
    private static final List<String> ORDER = Arrays.asList(
        "attn_q", "attn_k", "attn_v", "attn_gate", "attn_output", "ffn_gate", "ffn_up", "ffn_down");

    public final int layer;
    /** "attn", "attn_out", "ffn", "ffn_down". */
    public final String name;
    /** Its channels. */
    public final int n;
    public final long nTokens;
    /** Tokens left out of the histogram: values that are no numbers, or beyond 32 bits. */
    public final long nRefused;
    /** "attn_q", ... in a layer's order. */
    public final List<String> projections;
    public final CountHistogram counts = new CountHistogram();

    /**
     * @param names   node and weights: "spike_attn-3\nblk.3.attn_q.weight\n..."
     * @param numbers n, n_tokens, n_refused, n_over, over_spikes, largest, then the bins
     */
    SpikeInput(String names, long[] numbers) {
        String[] lines = names.split("\n");
        int dash = lines[0].lastIndexOf('-');
        this.layer = Integer.parseInt(lines[0].substring(dash + 1));
        this.name = lines[0].substring(lines[0].startsWith("spike_") ? 6 : 0, dash);
        this.n = (int) numbers[0];
        this.nTokens = numbers[1];
        this.nRefused = numbers[2];
        counts.add(numbers, 6, numbers[3], numbers[4], numbers[5], 1);
        List<String> found = new ArrayList<>();
        for (int i = 1; i < lines.length; ++i) {
            String[] parts = lines[i].split("\\.");
            found.add(parts.length >= 4 ? parts[2] : lines[i]);
        }
        found.sort((a, b) -> rank(a) != rank(b) ? Integer.compare(rank(a), rank(b)) : a.compareTo(b));
        this.projections = Collections.unmodifiableList(found);
    }

    private static int rank(String projection) {
        int at = ORDER.indexOf(projection);
        return at < 0 ? ORDER.size() : at;
    }
}
