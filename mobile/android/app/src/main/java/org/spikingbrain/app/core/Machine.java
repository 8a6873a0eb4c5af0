package org.spikingbrain.app.core;

import org.json.JSONArray;
import org.json.JSONException;
import org.json.JSONObject;

import java.io.File;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

/** What a row of results says of the machine, as bench/measure/machine.py says it. */
final class Machine {
    private static final List<String> FEATURES = Arrays.asList("sse3", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16",
        "avx512_fp16", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "sve");

    private static final File SYS = new File("/sys");
    private static final File CPUS = new File(SYS, "devices/system/cpu");

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
        List<Integer> allowed = allowed();
        Set<String> cores = new HashSet<>();
        for (int cpu : allowed) {
            String siblings = told(new File(CPUS, "cpu" + cpu + "/topology/thread_siblings_list"));
            cores.add(siblings.isEmpty() ? Integer.toString(cpu) : siblings);
        }
        return new JSONObject().put("cpu", model.isEmpty() ? cpuName : model).put("arch", arch).put("cpus", allowed.size())
            .put("cores", cores.size()).put("smt", cores.size() < allowed.size()).put("pinned", allowed.size() < list(told(new File(CPUS, "online"))).size())
            .put("governor", told(new File(CPUS, "cpu0/cpufreq/scaling_governor"))).put("huge_pages", told(new File(SYS, "kernel/mm/transparent_hugepage/enabled")))
            .put("memory_bytes", kib("meminfo", "MemTotal")).put("system", System.getProperty("os.name") + " " + System.getProperty("os.version"));
    }

    /** CPUs that this process may use. */
    private List<Integer> allowed() throws IOException {
        List<Integer> said = list(value("self/status", "Cpus_allowed_list"));
        return said.isEmpty() ? list("0-" + (Runtime.getRuntime().availableProcessors() - 1)) : said;
    }

    /** "0-2,5" as numbers; empty for what is no such list. */
    private static List<Integer> list(String text) {
        List<Integer> out = new ArrayList<>();
        for (String part : text.split(",")) {
            String[] ends = part.trim().split("-");
            if (!part.trim().matches("\\d{1,6}(-\\d{1,6})?")) {
                return new ArrayList<>();
            }
            for (int i = Integer.parseInt(ends[0]); i <= Integer.parseInt(ends[ends.length - 1]); ++i) {
                out.add(i);
            }
        }
        return out;
    }

    /** Of a file of the kernel, the choice in brackets where it lists some; empty where there is none or it may not be read. */
    private static String told(File file) {
        String text;
        try {
            text = TextFile.read(file);
        } catch (IOException e) {
            return "";
        }
        text = text == null ? "" : text.trim();
        int open = text.indexOf('['), close = text.indexOf(']', open + 1);
        return open >= 0 && close > open ? text.substring(open + 1, close) : text;
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
