package org.spikingbrain.app.core;

import org.json.JSONArray;
import org.json.JSONException;
import org.json.JSONObject;

import java.io.File;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** What a row of results says of the machine, as bench/machine.py says it. */
final class Machine {
    private static final List<String> FEATURES = Arrays.asList("sse3", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16",
        "avx512_fp16", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "sve");

    private final File proc;
    private final String cpuName;

    /** cpuName: the system's name of it, used where /proc/cpuinfo has none, as on most phones. */
    Machine(File proc, String cpuName) {
        this.proc = proc;
        this.cpuName = cpuName;
    }

    JSONObject describe() throws IOException, JSONException {
        String arch = System.getProperty("os.arch").replace("amd64", "x86_64");
        String model = value("cpuinfo", "model name");
        return new JSONObject().put("cpu", model.isEmpty() ? cpuName : model).put("arch", arch).put("cpus", Runtime.getRuntime().availableProcessors())
            .put("memory_bytes", kib("meminfo", "MemTotal")).put("system", System.getProperty("os.name") + " " + System.getProperty("os.version"));
    }

    JSONArray cpuFeatures() throws IOException {
        String flags = value("cpuinfo", "flags");
        List<String> all = Arrays.asList((flags.isEmpty() ? value("cpuinfo", "Features") : flags).split("\\s+"));
        List<String> found = new ArrayList<>(FEATURES);
        found.retainAll(all);
        return new JSONArray(found);
    }

    /** Bytes that this process had resident at most. */
    long peakResident() throws IOException {
        return kib("self/status", "VmHWM");
    }

    private long kib(String file, String key) throws IOException {
        String value = value(file, key);
        try {
            return Long.parseLong(value.split("\\s+")[0]) << 10;
        } catch (NumberFormatException e) {
            throw new IOException("machine: " + file + ": " + key + ": got \"" + value + "\", expected a number of kB", e);
        }
    }

    /** The first one of a key; empty: none. */
    private String value(String file, String key) throws IOException {
        String text = TextFile.read(new File(proc, file));
        for (String line : text == null ? new String[0] : text.split("\n")) {
            int colon = line.indexOf(':');
            if (colon > 0 && line.substring(0, colon).trim().equals(key)) {
                return line.substring(colon + 1).trim();
            }
        }
        return "";
    }
}
