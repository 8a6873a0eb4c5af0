package org.spikingbrain;

import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** What computes here. */
public final class SystemInfo {
    /** Features of the CPU library in use: {"DOTPROD": true, ...}. */
    public final Map<String, Boolean> features;
    /** Which integer kernels run: "avx512", "avx2", "dotprod", "generic"; "" where the library does not say. */
    public final String spikeKernels;
    /** CPUs this process may use. */
    public final int cpus;
    /** See {@link SpikingBrain#defaultThreads}. */
    public final int defaultThreads;
    /** llama.cpp's own line. */
    public final String llamaCpp;

    SystemInfo(String line, String spikeKernels) {
        Map<String, Boolean> found = new LinkedHashMap<>();
        Matcher m = Pattern.compile("(\\w+) = (\\d+)").matcher(line);
        while (m.find()) {
            found.put(m.group(1), !m.group(2).equals("0"));
        }
        this.features = Collections.unmodifiableMap(found);
        this.spikeKernels = spikeKernels;
        this.cpus = Runtime.getRuntime().availableProcessors();
        this.defaultThreads = SpikingBrain.defaultThreads();
        this.llamaCpp = line;
    }
}
