package org.spikingbrain;

import java.io.BufferedReader;
import java.io.File;
import java.io.FileReader;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/** How many threads a phone computes fastest with: ggml's barriers wait for the slowest core. */
final class Threads {
    private Threads() {}

    /** Cores of all clusters but the slowest; all cores where there is one cluster or nothing is known. cpus: /sys/devices/system/cpu. */
    static int bigCores(File cpus, int available) {
        List<Long> speeds = speeds(cpus, "cpu_capacity");
        if (speeds.isEmpty()) {
            speeds = speeds(cpus, "cpufreq/cpuinfo_max_freq");
        }
        long slowest = speeds.isEmpty() ? 0 : Collections.min(speeds);
        int big = 0;
        for (long speed : speeds) {
            big += speed > slowest ? 1 : 0;
        }
        return big == 0 ? available : Math.min(big, available);
    }

    private static List<Long> speeds(File cpus, String file) {
        List<Long> out = new ArrayList<>();
        File[] folders = cpus.listFiles((folder, name) -> name.matches("cpu[0-9]+"));
        for (File folder : folders == null ? new File[0] : folders) {
            try (BufferedReader reader = new BufferedReader(new FileReader(new File(folder, file)))) {
                out.add(Long.parseLong(reader.readLine().trim()));
            } catch (IOException | NumberFormatException | NullPointerException e) {
                continue; // switched off, or a kernel that does not tell
            }
        }
        return out;
    }
}
