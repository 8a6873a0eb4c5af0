package org.spikingbrain.app.core;

import org.spikingbrain.SpikingBrain;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/**
 * The tokens of a chat's prompt. What a model wrote is not always split as the tokenizer would split it: made of the text alone, a prompt
 * would now and then differ from what a restored session holds, which would then read all of it again.
 */
final class ChatTokens {
    private ChatTokens() {}

    /** known: tokens read and written before, also by another process or model; they are used if the text begins with theirs. */
    static int[] of(SpikingBrain model, int[] known, String text) {
        String before = text(model, known);
        return before.isEmpty() || !text.startsWith(before) ? model.tokenize(text, true, true)
            : join(known, model.tokenize(text.substring(before.length()), false, true));
    }

    /** Empty: not this model's tokens. */
    private static String text(SpikingBrain model, int[] known) {
        for (int token : known) {
            if (token < 0 || token >= model.nVocab()) {
                return "";
            }
        }
        return known.length == 0 ? "" : new String(model.detokenize(known, true), StandardCharsets.UTF_8);
    }

    static int[] join(int[] first, int[] then) {
        int[] out = Arrays.copyOf(first, first.length + then.length);
        System.arraycopy(then, 0, out, first.length, then.length);
        return out;
    }
}
