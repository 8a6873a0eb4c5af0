package org.spikingbrain;

import java.io.BufferedReader;
import java.io.File;
import java.io.FileReader;
import java.io.IOException;

/** Memory of the system. */
final class MemInfo {
    private MemInfo() {}

    /** What an app can take before Android begins to end others: of ActivityManager.MemoryInfo; nothing while it is about to. */
    static long usable(long availMem, long threshold, boolean lowMemory) {
        return lowMemory ? 0 : Math.max(0, availMem - threshold);
    }

    /** MemAvailable in bytes. IOException: no such file or line. */
    static long available(File meminfo) throws IOException {
        try (BufferedReader reader = new BufferedReader(new FileReader(meminfo))) {
            for (String line = reader.readLine(); line != null; line = reader.readLine()) {
                String[] words = line.trim().split("\\s+");
                if (words.length >= 2 && words[0].equals("MemAvailable:")) {
                    return Long.parseLong(words[1]) << 10;
                }
            }
        } catch (NumberFormatException e) {
            throw new IOException("memory: " + meminfo + ": got " + e.getMessage() + ", expected a number of kB", e);
        }
        throw new IOException("memory: " + meminfo + ": got no MemAvailable, expected a line of it; give the bytes available");
    }
}
