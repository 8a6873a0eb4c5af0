package org.spikingbrain.app.core;

import org.spikingbrain.Generation;
import org.spikingbrain.Timings;

import java.util.Locale;

/** Numbers as texts for the screens. */
public final class Format {
    private static final long MIB = 1 << 20;

    private Format() {}

    /** "1,254 MiB"; a decimal below 10. */
    public static String mib(long bytes) {
        return bytes < 10 * MIB ? String.format(Locale.ROOT, "%.1f MiB", (double) bytes / MIB) : String.format(Locale.ROOT, "%,d MiB", bytes / MIB);
    }

    /** "34%" */
    static String share(double share) {
        return String.format(Locale.ROOT, "%.0f%%", 100 * share);
    }

    /** "prompt: 128 of 512 tokens" */
    static String progress(int done, int total) {
        return String.format(Locale.ROOT, "prompt: %d of %d tokens", done, total);
    }

    /** "prompt 512 tokens, 12 of them new, 0.3 s; answer 64 tokens, 12.5 tokens/s, cancelled" */
    static String timings(Timings t, Generation.FinishReason reason) {
        String end = reason == Generation.FinishReason.STOP ? "" : ", " + String.valueOf(reason).toLowerCase(Locale.ROOT);
        return String.format(Locale.ROOT, "prompt %d tokens, %d of them new, %.1f s; answer %d tokens, %.1f tokens/s%s", t.nPrompt, t.nPromptEvaluated,
            t.promptMs / 1000, t.nGenerated, t.tokensPerSecond(), end);
    }

    /** "12.34 ± 2% tokens/s" */
    static String rate(double median, double spread) {
        return String.format(Locale.ROOT, "%.2f ± %.0f%% tokens/s", median, 100 * spread);
    }

    /** The library's messages are sentences already. */
    public static String failure(Throwable e) {
        String message = e.getMessage();
        return message == null || message.isEmpty() ? e.toString() : message;
    }
}
