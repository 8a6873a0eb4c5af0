package org.spikingbrain.app.core;

import org.json.JSONException;
import org.json.JSONObject;
import org.spikingbrain.GenerateOptions;
import org.spikingbrain.ModelOptions;
import org.spikingbrain.SessionOptions;
import org.spikingbrain.SpikingBrain;

import java.util.Locale;
import java.util.Objects;

/** What the settings screen holds. Made of what a user typed; the library's own options check the ranges. */
public final class Settings {
    /** Whether the projections read integer spike counts. */
    public enum Spikes { AS_FILE, ON, OFF }

    public static final Settings DEFAULT = new Settings("0", Spikes.AS_FILE, "", "0.8", "512", "0", false);

    /** 0: the number of big cores. */
    public final int nThreads;
    public final Spikes spikes;
    /** Threshold = mean |x| / k; null: as the file says. */
    public final Double k;
    public final double temperature;
    public final int nUbatch;
    /** 0: the library's default, {@link org.spikingbrain.Session#defaultMaxTokens}. */
    public final int maxTokens;
    /** Count the spikes; only where the model spikes. */
    public final boolean spikeStats;

    /** Texts as typed; an empty k means the file's. IllegalArgumentException: what is wrong, as a sentence for the user. */
    public Settings(String nThreads, Spikes spikes, String k, String temperature, String nUbatch, String maxTokens, boolean spikeStats) {
        this.nThreads = whole("threads", nThreads);
        this.spikes = spikes;
        this.k = k.trim().isEmpty() ? null : (Double) number("k", k);
        this.temperature = number("temperature", temperature);
        this.nUbatch = whole("n_ubatch", nUbatch);
        this.maxTokens = whole("max_tokens", maxTokens);
        this.spikeStats = spikeStats;
        if (spikes == Spikes.OFF && (this.k != null || spikeStats)) {
            throw new IllegalArgumentException("settings: spikes: got off with " + (this.k != null ? "k" : "statistics") + ", expected neither; do switch spikes on");
        }
        modelOptions(); // each throws for what it refuses
        sessionOptions(false);
        generateOptions();
    }

    private static int whole(String name, String text) {
        try {
            return Integer.parseInt(text.trim());
        } catch (NumberFormatException e) {
            throw new IllegalArgumentException("settings: " + name + ": got \"" + text + "\", expected a whole number; do correct it", e);
        }
    }

    private static double number(String name, String text) {
        try {
            double value = Double.parseDouble(text.trim());
            if (!Double.isNaN(value) && !Double.isInfinite(value)) {
                return value;
            }
        } catch (NumberFormatException e) {
            // said below
        }
        throw new IllegalArgumentException("settings: " + name + ": got \"" + text + "\", expected a number such as 0.8; do correct it");
    }

    /** New each time: the library's options can be changed. */
    public ModelOptions modelOptions() {
        return new ModelOptions().spike(spikes == Spikes.AS_FILE ? null : (Boolean) (spikes == Spikes.ON)).spikeK(k);
    }

    /** spiking: the model that it is for does. */
    public SessionOptions sessionOptions(boolean spiking) {
        return new SessionOptions().nThreads(nThreads).nUbatch(nUbatch).spikeStats(spikeStats && spiking);
    }

    public GenerateOptions generateOptions() {
        return new GenerateOptions().temperature(temperature).maxTokens(maxTokens);
    }

    /** Threads that compute. */
    public int threads() {
        return nThreads > 0 ? nThreads : SpikingBrain.defaultThreads();
    }

    /** Whether the model must be loaded again to go from other to these. */
    public boolean reloads(Settings other) {
        return spikes != other.spikes || !Objects.equals(k, other.k) || nThreads != other.nThreads || nUbatch != other.nUbatch
            || spikeStats != other.spikeStats;
    }

    /** As the screen shows a number. */
    public static String text(double value) {
        return value == Math.rint(value) && Math.abs(value) < 1e9 ? String.format(Locale.ROOT, "%.0f", value) : Double.toString(value);
    }

    public String kText() {
        return k == null ? "" : text(k);
    }

    JSONObject toJson() throws JSONException {
        return new JSONObject().put("threads", nThreads).put("spikes", spikes.name()).put("k", kText()).put("temperature", text(temperature))
            .put("n_ubatch", nUbatch).put("max_tokens", maxTokens).put("spike_stats", spikeStats);
    }

    /** IllegalArgumentException or JSONException: not what toJson gave. */
    static Settings fromJson(JSONObject o) throws JSONException {
        return new Settings(Integer.toString(o.getInt("threads")), Spikes.valueOf(o.getString("spikes")), o.getString("k"),
            o.getString("temperature"), Integer.toString(o.getInt("n_ubatch")), Integer.toString(o.getInt("max_tokens")), o.getBoolean("spike_stats"));
    }
}
