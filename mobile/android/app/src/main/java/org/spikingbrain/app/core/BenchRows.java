package org.spikingbrain.app.core;

import org.json.JSONArray;
import org.json.JSONException;
import org.json.JSONObject;
import org.spikingbrain.Session;
import org.spikingbrain.SpikingBrain;

import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.List;
import java.util.Locale;
import java.util.function.BooleanSupplier;

/** Rows of results with the fields of bench/rows.py, so that `python -m bench` reads them. */
public final class BenchRows {
    private static final String[] FIELDS = { "case", "kind", "name", "machine", "cpu_features", "pin", "commit", "build", "model", "model_hash", "type",
        "spikes", "threads", "n_prompt", "n_gen", "n_seq", "depth", "repetitions", "unit", "values", "median", "spread", "fitted", "peak_resident_bytes",
        "state_bytes", "noise", "skipped", "date" };

    private final Machine machine;
    private final String pin;
    private final String commit;

    /** cpuName: for a machine whose /proc/cpuinfo has none; pin: llama.cpp's requirement; commit: this repository's. */
    public BenchRows(String cpuName, String pin, String commit) {
        this.machine = new Machine(new File("/proc"), cpuName);
        this.pin = pin;
        this.commit = commit;
    }

    /** What the rows of one model share. Reads the whole file for its hash. */
    JSONObject about(ModelSource source, SpikingBrain model, Session session, Settings settings, BooleanSupplier stopped) throws IOException, JSONException {
        String fileName = source.entry().name;
        String type = type(model.metadata().get("general.file_type"), fileName);
        String named = model.metadata().get("general.name");
        String name = named == null ? fileName : named;
        JSONObject row = new JSONObject();
        for (String field : FIELDS) {
            row.put(field, JSONObject.NULL);
        }
        return row.put("name", name + " " + type + (model.spiking() ? " spikes" : "")).put("machine", machine.describe())
            .put("cpu_features", machine.cpuFeatures()).put("pin", pin).put("commit", commit).put("build", "app-" + commit).put("model", name)
            .put("model_hash", sha256(source, stopped)).put("type", type).put("spikes", model.spiking()).put("threads", settings.threads()).put("n_seq", 1)
            .put("depth", 0).put("fitted", false).put("peak_resident_bytes", machine.peakResident()).put("state_bytes", session.stateBytes())
            .put("date", Instant.now().truncatedTo(ChronoUnit.SECONDS).toString().replace("Z", "+00:00"));
    }

    /** Seconds for a prompt. */
    JSONObject prompt(JSONObject about, int n, double[] seconds) throws JSONException {
        return filled(about, "pp" + n, "prefill " + n, "s", seconds).put("n_prompt", n);
    }

    /** Tokens per second, one by one. */
    JSONObject single(JSONObject about, int n, double[] seconds) throws JSONException {
        double[] rates = new double[seconds.length];
        for (int i = 0; i < rates.length; ++i) {
            rates[i] = n / seconds[i];
        }
        return filled(about, "tg" + n, "decode", "tokens/s", rates).put("n_gen", n);
    }

    private static JSONObject filled(JSONObject about, String name, String kind, String unit, double[] values) throws JSONException {
        JSONObject row = new JSONObject(about.toString()); // a copy
        JSONArray list = new JSONArray();
        for (double v : values) {
            list.put(v);
        }
        return row.put("case", name).put("kind", kind).put("unit", unit).put("values", list).put("repetitions", values.length)
            .put("median", Scatter.median(values)).put("spread", Math.round(Scatter.spread(values) * 1e5) / 1e5);
    }

    /** llama.cpp's file types that sb-convert writes. INT8 has none of its own: its files say 7, so their name must tell. */
    static String type(String fileType, String fileName) {
        switch (fileType == null ? "" : fileType) {
            case "0":
                return "f32";
            case "1":
                return "f16";
            case "2":
                return "q4_0";
            case "7":
                return fileName.toLowerCase(Locale.ROOT).contains("int8") ? "int8" : "q8_0";
            case "32":
                return "bf16";
            default:
                return "file_type " + fileType;
        }
    }

    private static String sha256(ModelSource source, BooleanSupplier stopped) throws IOException {
        try (InputStream in = source.read()) {
            MessageDigest digest = MessageDigest.getInstance("SHA-256");
            byte[] block = new byte[1 << 20];
            for (int n = in.read(block); n >= 0; n = in.read(block)) {
                Benchmark.check(stopped);
                digest.update(block, 0, n);
            }
            StringBuilder hex = new StringBuilder();
            for (byte b : digest.digest()) {
                hex.append(String.format("%02x", b));
            }
            return hex.toString();
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException(e); // every Java has it
        }
    }

    /** One JSON object a line. */
    public static String jsonl(List<JSONObject> rows) {
        StringBuilder out = new StringBuilder();
        for (JSONObject row : rows) {
            out.append(row).append('\n');
        }
        return out.toString();
    }
}
