package org.spikingbrain;

import java.io.BufferedReader;
import java.io.File;
import java.io.FileReader;
import java.io.IOException;
import java.util.Collections;
import java.util.Map;
import java.util.TreeMap;

/** Which cores a phone computes fastest with: ggml's barriers wait for the slowest. */
final class Threads {
    static final File CPUS = new File("/sys/devices/system/cpu");

    private Threads() {}

    /**
     * Cores with at least half of the largest capacity, rising; none where all are, or nothing is known. A frequency says nothing of the work
     * per cycle, and little cores do less of it: where only frequencies are told, the slowest cluster is left out, too, if it is a tenth slower.
     * cpus: /sys/devices/system/cpu.
     */
    static int[] bigCores(File cpus) {
        Map<Integer, Long> speeds = speeds(cpus, "cpu_capacity");
        boolean capacities = !speeds.isEmpty();
        if (!capacities) {
            speeds = speeds(cpus, "cpufreq/cpuinfo_max_freq");
        }
        if (speeds.isEmpty()) {
            return new int[0];
        }
        long largest = Collections.max(speeds.values());
        long slowest = Collections.min(speeds.values());
        long least = capacities || 10 * slowest >= 9 * largest ? (largest + 1) / 2 : Math.max((largest + 1) / 2, slowest + 1);
        int n = speeds.size();
        speeds.values().removeIf(speed -> speed < least);
        return speeds.size() == n ? new int[0] : speeds.keySet().stream().mapToInt(i -> i).toArray();
    }

    /** Their number, or that of all cores; no more than there are for this process. */
    static int count(File cpus, int available) {
        int big = bigCores(cpus).length;
        return big == 0 ? available : Math.min(big, available);
    }

    private static Map<Integer, Long> speeds(File cpus, String file) {
        Map<Integer, Long> out = new TreeMap<>();
        File[] folders = cpus.listFiles((folder, name) -> name.matches("cpu[0-9]{1,4}"));
        for (File folder : folders == null ? new File[0] : folders) {
            try (BufferedReader reader = new BufferedReader(new FileReader(new File(folder, file)))) {
                long speed = Long.parseLong(String.valueOf(reader.readLine()).trim());
                if (speed > 0) {
                    out.put(Integer.parseInt(folder.getName().substring(3)), speed);
                }
            } catch (IOException | NumberFormatException e) {
                continue; // switched off, or a kernel that does not tell
            }
        }
        return out;
    }
}
