package org.spikingbrain;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;

/** A checked grammar, as Python's LlamaGrammar. Tokens that do not fit are never drawn, and an answer ends only where it is whole. */
public final class Grammar {
    private final String text;
    private final String root;
    private final List<String> leftOut;

    private Grammar(String text, String root, List<String> leftOut) {
        this.text = text;
        this.root = root;
        this.leftOut = Collections.unmodifiableList(leftOut);
    }

    /** From GBNF whose first rule is "root". IllegalArgumentException: it cannot be parsed. */
    public static Grammar gbnf(String text) {
        return gbnf(text, "root");
    }

    /** root: the rule that an answer must match. */
    public static Grammar gbnf(String text, String root) {
        return made(Check.given("grammar: text", text), Check.given("grammar: root", root), new ArrayList<>());
    }

    private static Grammar made(String text, String root, List<String> leftOut) {
        Library.load(null);
        Native.checkGrammar(Prints.utf8(text), Prints.utf8(root));
        return new Grammar(text, root, leftOut);
    }

    /**
     * From a JSON schema, as text: any answer is then JSON that satisfies it. IllegalArgumentException: no JSON, no schema, one that nothing
     * satisfies, or a keyword that constrains and that no grammar holds (bindings/README.md lists them).
     */
    public static Grammar jsonSchema(String schema) {
        return jsonSchema(schema, false);
    }

    /** lenient: such keywords are left out; {@link #leftOut} names them. */
    public static Grammar jsonSchema(String schema, boolean lenient) {
        Library.load(null);
        byte[][] found = Native.schemaToGrammar(Prints.utf8(Check.given("json schema: text", schema)), lenient);
        List<String> leftOut = new ArrayList<>();
        for (byte[] one : Arrays.asList(found).subList(1, found.length)) {
            leftOut.add(Prints.text(one));
        }
        return made(Prints.text(found[0]), "root", leftOut);
    }

    /** GBNF. */
    public String text() {
        return text;
    }

    /** The rule that an answer must match. */
    public String root() {
        return root;
    }

    /** What leniency left out of a schema, a sentence each. */
    public List<String> leftOut() {
        return leftOut;
    }

    /** Whether a text is a whole answer that the grammar allows. IllegalArgumentException: it recurs on the left. */
    public boolean matches(String answer) {
        return Native.grammarMatches(Prints.utf8(text), Prints.utf8(root), Prints.utf8(Check.given("grammar: answer", answer)));
    }
}
