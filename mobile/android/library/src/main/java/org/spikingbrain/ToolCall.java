package org.spikingbrain;

/** A call of a tool in an answer. */
public final class ToolCall {
    /** Of this call: {@link ChatMessage#tool} answers it. */
    public final String id;
    /** Of the tool. */
    public final String name;
    /** JSON text; of an answer that was cut short maybe a part of it. */
    public final String arguments;

    public ToolCall(String id, String name, String arguments) {
        this.id = Check.given("tool call: id", id);
        this.name = Check.given("tool call: name", name);
        this.arguments = Check.given("tool call: arguments", arguments);
    }
}
