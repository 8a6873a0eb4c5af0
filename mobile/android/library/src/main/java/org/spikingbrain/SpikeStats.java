package org.spikingbrain;

import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/** What a model's projections were fed. An input counts once for each projection that reads it, as in the paper. */
public final class SpikeStats {
    private static final List<String> ORDER = Arrays.asList("attn", "attn_out", "ffn", "ffn_down");

    /** Threshold = mean |x| / k. */
    public final double k;
    /** "paper": every projection; "released": not the MLP's down projection. */
    public final String scope;
    /** By layer and name. */
    public final List<SpikeInput> inputs;

    SpikeStats(double k, String scope, List<SpikeInput> inputs) {
        this.k = k;
        this.scope = scope;
        inputs.sort((a, b) -> a.layer != b.layer ? Integer.compare(a.layer, b.layer) : Integer.compare(ORDER.indexOf(a.name), ORDER.indexOf(b.name)));
        this.inputs = Collections.unmodifiableList(inputs);
    }

    /** Tokens counted. */
    public long nTokens() {
        long most = 0;
        for (SpikeInput i : inputs) {
            most = Math.max(most, i.nTokens);
        }
        return most;
    }

    /** Tokens, summed over the inputs, that could not be encoded. */
    public long nRefused() {
        long sum = 0;
        for (SpikeInput i : inputs) {
            sum += i.nRefused;
        }
        return sum;
    }

    /** All inputs of all spiking projections. */
    public CountHistogram model() {
        CountHistogram sum = new CountHistogram();
        for (SpikeInput i : inputs) {
            sum.add(i.counts, i.projections.size());
        }
        return sum;
    }

    /** Each layer over all its projections. */
    public Map<Integer, CountHistogram> byLayer() {
        Map<Integer, CountHistogram> out = new TreeMap<>();
        for (SpikeInput i : inputs) {
            out.computeIfAbsent(i.layer, layer -> new CountHistogram()).add(i.counts, i.projections.size());
        }
        return out;
    }
}
