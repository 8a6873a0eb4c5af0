package org.spikingbrain;

import java.util.Collections;
import java.util.List;

import org.jspecify.annotations.Nullable;

/** One message of a chat. */
public final class ChatMessage {
    /** "system", "user", "assistant", "tool", or another that the model's template knows. */
    public final String role;
    /** Empty, not null, where the assistant did nothing but call tools. */
    public final String content;
    /** What the assistant thought before; null: nothing that the template tells apart. */
    public final @Nullable String reasoning;
    /** Tools that the assistant called. */
    public final List<ToolCall> toolCalls;
    /** Of a tool's result: the call that it answers; null: none. */
    public final @Nullable String toolCallId;

    /** IllegalArgumentException: no role or no content. */
    public ChatMessage(String role, String content) {
        this(role, content, null, Collections.emptyList(), null);
    }

    ChatMessage(String role, String content, String reasoning, List<ToolCall> toolCalls, String toolCallId) {
        Check.that(role != null && !role.isEmpty(), "message: role: got none, expected a text such as \"user\"");
        Check.that(content != null, "message: content: got none, expected a text");
        this.role = role;
        this.content = content;
        this.reasoning = reasoning;
        this.toolCalls = Check.list("message: tool_calls", toolCalls);
        this.toolCallId = toolCallId;
    }

    public static ChatMessage system(String text) {
        return new ChatMessage("system", text);
    }

    public static ChatMessage user(String text) {
        return new ChatMessage("user", text);
    }

    public static ChatMessage assistant(String text) {
        return new ChatMessage("assistant", text);
    }

    /** text: may be empty. */
    public static ChatMessage assistant(String text, List<ToolCall> toolCalls) {
        return new ChatMessage("assistant", text, null, toolCalls, null);
    }

    /** What a tool gave back. callId: {@link ToolCall#id}. */
    public static ChatMessage tool(String callId, String result) {
        return new ChatMessage("tool", result, null, Collections.emptyList(), Check.given("message: tool_call_id", callId));
    }

    /** As Native.chatPrompt takes it. */
    byte[][] flat() {
        byte[][] out = new byte[4 + 3 * toolCalls.size()][];
        out[0] = Prints.utf8(role);
        out[1] = Prints.utf8(content);
        out[2] = Prints.utf8(reasoning == null ? "" : reasoning);
        out[3] = Prints.utf8(toolCallId == null ? "" : toolCallId);
        for (int i = 0; i < toolCalls.size(); ++i) {
            ToolCall call = toolCalls.get(i);
            out[4 + 3 * i] = Prints.utf8(call.id);
            out[5 + 3 * i] = Prints.utf8(call.name);
            out[6 + 3 * i] = Prints.utf8(call.arguments);
        }
        return out;
    }
}
