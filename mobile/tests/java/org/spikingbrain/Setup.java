package org.spikingbrain;

import java.io.File;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.List;

/** What the cases share. */
final class Setup {
    static final GenerateOptions GREEDY = new GenerateOptions().temperature(0).maxTokens(24);

    private Setup() {}

    /** A path, or the number of an inherited descriptor as "fd:7". */
    static SpikingBrain load(String file, ModelOptions options) throws IOException {
        return file.startsWith("fd:") ? SpikingBrain.load(Integer.parseInt(file.substring(3)), options) : SpikingBrain.load(new File(file), options);
    }

    static SpikingBrain load(String file) throws IOException {
        return load(file, new ModelOptions());
    }

    /** ggml's barriers spin: one thread. */
    static SessionOptions small() {
        return new SessionOptions().nThreads(1).nUbatch(32);
    }

    static String text(String file) throws IOException {
        return new String(Files.readAllBytes(new File(file).toPath()), StandardCharsets.UTF_8);
    }

    /** All of a stream. */
    static String read(Generation answer) {
        StringBuilder out = new StringBuilder();
        while (answer.hasNext()) {
            out.append(answer.next());
        }
        return out.toString();
    }

    static long rssAnonKb() throws IOException {
        for (String line : Files.readAllLines(new File("/proc/self/status").toPath())) {
            if (line.startsWith("RssAnon:")) {
                return Long.parseLong(line.trim().split("\\s+")[1]);
            }
        }
        throw new IOException("no RssAnon");
    }

    /** role, content, role, content ... */
    static List<ChatMessage> chat(String... flat) {
        List<ChatMessage> out = new ArrayList<>();
        for (int i = 0; i < flat.length; i += 2) {
            out.add(new ChatMessage(flat[i], flat[i + 1]));
        }
        return out;
    }
}
