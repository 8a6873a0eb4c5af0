package org.spikingbrain;

import java.util.Map;

/** Whether and how a model spikes: the file's keys, and what the options make of them. As spiking.py. */
final class Overrides {
    static final String ARCH = "spikingbrain";
    private static final String ENABLE = "spikingbrain.spike.enable";
    private static final String K = "spikingbrain.spike.k";
    private static final String SCOPE = "spikingbrain.spike.scope";
    private static final double DEFAULT_K = 3.0; // of a file without the key

    final Boolean spike;
    final Double k;

    /** IllegalArgumentException: k of a model told not to spike. */
    Overrides(String where, ModelOptions options) {
        this(Check.given(where + ": options", options).spike, options.spikeK);
        Check.that(k == null || !Boolean.FALSE.equals(spike),
            "load: spike_k: got " + k + " for a model told not to spike, expected one that does; leave one of the two out");
    }

    private Overrides(Boolean spike, Double k) {
        this.spike = spike;
        this.k = k;
    }

    int spikeForNative() {
        return spike == null ? -1 : spike ? 1 : 0;
    }

    double kForNative() {
        return k == null ? Double.NaN : k;
    }

    boolean enabled(Map<String, String> metadata) {
        return isOurs(metadata) && (spike != null ? spike : enabledInFile(metadata));
    }

    double k(Map<String, String> metadata) {
        return k != null ? k : kInFile(metadata);
    }

    static String scope(Map<String, String> metadata) {
        return metadata.containsKey(SCOPE) ? metadata.get(SCOPE) : "paper";
    }

    static boolean isOurs(Map<String, String> metadata) {
        return ARCH.equals(metadata.get("general.architecture"));
    }

    /** IllegalArgumentException: an option that means nothing to the model just loaded. */
    void check(Map<String, String> metadata) {
        String arch = metadata.get("general.architecture");
        Check.that(spike == null || isOurs(metadata),
            "load: spike: got " + spike + " for a model of architecture " + arch + ", expected " + ARCH + "; leave it out");
        Check.that(k == null || isOurs(metadata),
            "load: spike_k: got " + k + " for a model of architecture " + arch + ", expected " + ARCH + "; leave it out");
        Check.that(k == null || enabled(metadata),
            "load: spike_k: got " + k + " for a model that does not spike, expected one that does; load it with spike(true)");
    }

    private static boolean enabledInFile(Map<String, String> metadata) {
        return "true".equals(metadata.get(ENABLE));
    }

    private static double kInFile(Map<String, String> metadata) {
        return metadata.containsKey(K) ? Double.parseDouble(metadata.get(K)) : DEFAULT_K;
    }
}
