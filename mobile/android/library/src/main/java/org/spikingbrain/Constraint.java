package org.spikingbrain;

import java.util.Arrays;

/** A grammar as Native.newChain takes it, with what the chat layer asks for beside the text. */
final class Constraint {
    private static final int[] NO_TOKENS = {};

    /** Text and root, then the patterns that trigger it. */
    final byte[][] grammar;
    /** Tokens: preserved, triggers, those that the prompt already holds of what it describes. */
    final int[][] lists;
    /** It constrains only from a trigger on. */
    final boolean lazy;

    Constraint(String text, byte[][] patterns, int[] preserved, int[] triggers, int[] prefill, boolean lazy) {
        this("root", text, patterns, preserved, triggers, prefill, lazy);
    }

    private Constraint(String root, String text, byte[][] patterns, int[] preserved, int[] triggers, int[] prefill, boolean lazy) {
        grammar = new byte[2 + patterns.length][];
        grammar[0] = Prints.utf8(text);
        grammar[1] = Prints.utf8(root);
        System.arraycopy(patterns, 0, grammar, 2, patterns.length);
        lists = new int[][] { preserved, triggers, prefill };
        this.lazy = lazy;
    }

    /** Bytes that a token adds to the answer: control tokens that the template's form of a call needs count as text. */
    static byte[] piece(Constraint constraint, SpikingBrain model, int token) {
        boolean shown = constraint != null && Arrays.stream(constraint.lists[0]).anyMatch(id -> id == token);
        return shown ? model.show(token) : model.piece(token);
    }

    /** null for null. */
    static Constraint of(Grammar g) {
        return g == null ? null : new Constraint(g.root(), g.text(), new byte[0][], NO_TOKENS, NO_TOKENS, NO_TOKENS, false);
    }
}
