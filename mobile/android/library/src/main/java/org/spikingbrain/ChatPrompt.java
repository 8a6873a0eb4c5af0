package org.spikingbrain;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;

/** What a chat request becomes: a prompt, and what constrains and reads the answer. As ChatFormat.read of chat_request.py. */
final class ChatPrompt {
    private static final String NO_ARGUMENTS = "{\"type\": \"object\", \"properties\": {}, \"additionalProperties\": false}";

    final String text;
    final List<String> stops;
    /** null: none. */
    final Constraint constraint;
    private final Parser parser;
    private final String forced;

    /** How llama.cpp reads answers in this template's form. */
    static final class Parser {
        final int format;
        final byte[] parser;
        final byte[] generationPrompt;

        Parser(int format, byte[] parser, byte[] generationPrompt) {
            this.format = format;
            this.parser = parser;
            this.generationPrompt = generationPrompt;
        }
    }

    private ChatPrompt(String text, List<String> stops, Constraint constraint, Parser parser, String forced) {
        this.text = text;
        this.stops = stops;
        this.constraint = constraint;
        this.parser = parser;
        this.forced = forced;
    }

    AnswerReader reader() {
        return new AnswerReader(parser, forced);
    }

    /** IllegalArgumentException: the request, or the template's own refusal of it. */
    static ChatPrompt of(String where, SpikingBrain model, List<ChatMessage> messages, GenerateOptions o, boolean addGenerationPrompt) {
        Check.that(messages != null && !messages.isEmpty(), where + ": messages: got none, expected at least one");
        ToolChoice choice = choice(where, o);
        boolean tools = choice.number != ToolChoice.NONE.number;
        Check.that(o.grammar == null || !tools, where + ": grammar: got one with tools, expected one of them; leave the other out");
        byte[][][] flat = Check.list(where + ": messages", messages).stream().map(ChatMessage::flat).toArray(byte[][][]::new);
        Found all = new Found(model.chatPrompt(flat, flat(o.tools), choice.number, addGenerationPrompt));
        if (!tools) {
            return new ChatPrompt(all.text, all.stops, Constraint.of(o.grammar), null, null);
        }
        Tool one = choice.name != null ? named(o.tools, choice.name) : choice == ToolChoice.REQUIRED && o.tools.size() == 1 ? o.tools.get(0) : null;
        if (all.grammar.isEmpty()) {
            return argumentsAlone(where, all, one);
        }
        // the prompt shows all tools, the answer may call one
        Found called = choice.name == null ? all : new Found(model.chatPrompt(flat, flat(Collections.singletonList(one)), choice.number, addGenerationPrompt));
        return new ChatPrompt(all.text, called.stops, called.constraint(), called.parser(), null);
    }

    /** NONE without tools. */
    private static ToolChoice choice(String where, GenerateOptions o) {
        Check.that(o.toolChoice.number != ToolChoice.REQUIRED.number || !o.tools.isEmpty(),
            where + ": tool_choice: got " + o.toolChoice + " without tools, expected tools; give some");
        Check.that(o.toolChoice.name == null || named(o.tools, o.toolChoice.name) != null,
            where + ": tool_choice: got " + o.toolChoice.name + ", expected one of the tools");
        return o.tools.isEmpty() ? ToolChoice.NONE : o.toolChoice;
    }

    private static Tool named(List<Tool> tools, String name) {
        return tools.stream().filter(tool -> tool.name.equals(name)).findFirst().orElse(null);
    }

    /** As Native.chatPrompt takes them. */
    private static byte[][] flat(List<Tool> tools) {
        List<byte[]> out = new ArrayList<>();
        for (Tool tool : tools) {
            for (String part : new String[] { tool.name, tool.description, tool.parameters }) {
                out.add(Prints.utf8(part == null ? "" : part));
            }
        }
        return out.toArray(new byte[0][]);
    }

    /** A template that knows no tools: one tool can still be had, as the JSON of its arguments. */
    private static ChatPrompt argumentsAlone(String where, Found all, Tool one) {
        Check.that(one != null, where + ": tools: got some with a chat template that knows none, expected tool_choice to name one; "
            + "or convert the model with a template for tools");
        Grammar arguments = Grammar.jsonSchema(one.parameters == null ? NO_ARGUMENTS : one.parameters);
        return new ChatPrompt(all.text, all.stops, Constraint.of(arguments), null, one.name);
    }

    /** What Native.chatPrompt found. */
    private static final class Found {
        final String text;
        final String grammar;
        final List<String> stops = new ArrayList<>();
        private final Object[] raw;

        Found(Object[] raw) {
            this.raw = raw;
            this.text = Prints.text(texts(0)[0]);
            this.grammar = Prints.text(texts(0)[1]);
            Arrays.stream(texts(1)).map(Prints::text).forEach(stops::add);
        }

        private byte[][] texts(int i) {
            return (byte[][]) raw[i];
        }

        private int[] numbers(int i) {
            return (int[]) raw[i];
        }

        Constraint constraint() {
            return new Constraint(grammar, texts(2), numbers(4), numbers(5), numbers(6), numbers(3)[0] != 0);
        }

        Parser parser() {
            return new Parser(numbers(3)[1], texts(0)[3], texts(0)[2]);
        }
    }
}
