package org.spikingbrain;

import java.util.ArrayList;
import java.util.List;
import java.util.UUID;

/** From the text of an answer to a message: text alone, the arguments of one tool, or text and calls in the template's form. As chat_answer.py. */
final class AnswerReader {
    private final ChatPrompt.Parser parser; // null: text alone, or arguments
    private final String forced; // the tool whose arguments the answer is; null: none
    private final StringBuilder all = new StringBuilder();
    private final List<String> ids = new ArrayList<>();
    private String content = "";
    private String reasoning = "";
    private List<ToolCall> calls = new ArrayList<>();

    AnswerReader(ChatPrompt.Parser parser, String forced) {
        this.parser = parser;
        this.forced = forced;
    }

    /** Of an answer that is no chat's. */
    static AnswerReader ofText() {
        return new AnswerReader(null, null);
    }

    /** What more text adds to the content. */
    String push(String text) {
        all.append(text);
        if (forced != null) {
            calls = new ArrayList<>();
            calls.add(new ToolCall(id(0), forced, all.toString()));
            return "";
        }
        if (parser == null) {
            content += text;
            return text;
        }
        return text.isEmpty() ? "" : read(false);
    }

    /** What is added now that no more text comes; complete: the model ended it. Cut short, it may end inside of a call: what is there counts. */
    String end(boolean complete) {
        if (parser == null) {
            return push("");
        }
        String before = content;
        String more = read(complete);
        boolean nothing = content.isEmpty() && reasoning.isEmpty() && calls.isEmpty();
        if (nothing && before.isEmpty()) { // in no form that the template has
            content = all.toString();
            return content;
        }
        return more;
    }

    private String read(boolean last) {
        byte[][] found;
        try {
            found = Native.parseAnswer(parser.format, parser.parser, parser.generationPrompt, Prints.utf8(all.toString()), last);
        } catch (IllegalArgumentException e) {
            return ""; // in no form that the template has: that is certain at its end
        }
        String now = Prints.text(found[0]);
        if (!now.startsWith(content)) {
            return "";
        }
        String more = now.substring(content.length());
        content = now;
        reasoning = Prints.text(found[1]);
        calls = new ArrayList<>();
        for (int i = 2; i + 2 < found.length; i += 3) {
            calls.add(new ToolCall(id(calls.size()), Prints.text(found[i + 1]), Prints.text(found[i + 2])));
        }
        return more;
    }

    private String id(int call) {
        while (ids.size() <= call) {
            ids.add("call_" + UUID.randomUUID().toString().replace("-", ""));
        }
        return ids.get(call);
    }

    boolean hasCalls() {
        return !calls.isEmpty();
    }

    /** So far. */
    ChatMessage message() {
        return new ChatMessage("assistant", content, reasoning.isEmpty() ? null : reasoning, calls, null);
    }
}
