package org.spikingbrain;

import java.util.Arrays;

/**
 * The last turn of a chat: its text, prompt and answer, and the tokens that were read and written for it. What a model wrote is not always
 * split as the tokenizer would split it, and read again it would be another text to it.
 */
final class Turn {
    /** Nothing is known. */
    static final Turn NONE = new Turn("", new int[0]);

    private final String text;
    private final int[] ids;

    Turn(String text, int[] ids) {
        this.text = text;
        this.ids = ids;
    }

    /** Of tokens that were kept, maybe of another model: then nothing is known. */
    static Turn of(SpikingBrain model, int[] ids) {
        for (int id : ids) {
            if (id < 0 || id >= model.nVocab()) {
                return NONE;
            }
        }
        return ids.length == 0 ? NONE : new Turn(Prints.wholeText(model.detokenize(ids, true)), ids);
    }

    /** A copy. */
    int[] ids() {
        return ids.clone();
    }

    /** Tokens of a prompt: where it goes on from this turn, the turn's own and those of the rest. */
    int[] extend(SpikingBrain model, String prompt) {
        if (ids.length > 0 && prompt.startsWith(text)) {
            int[] rest = model.tokenize(prompt.substring(text.length()), false, true);
            if (rest.length > 0 && model.isControl(rest[0])) { // no word goes on across it
                return join(ids, rest);
            }
        }
        return model.tokenize(prompt, true, true);
    }

    static int[] join(int[] first, int[] then) {
        int[] out = Arrays.copyOf(first, first.length + then.length);
        System.arraycopy(then, 0, out, first.length, then.length);
        return out;
    }
}
