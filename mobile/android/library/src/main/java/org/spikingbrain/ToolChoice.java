package org.spikingbrain;

import org.jspecify.annotations.Nullable;

/** Whether tools are called; see {@link GenerateOptions#toolChoice}. */
public final class ToolChoice {
    /** The model decides. */
    public static final ToolChoice AUTO = new ToolChoice(0, null);
    /** One is called. */
    public static final ToolChoice REQUIRED = new ToolChoice(1, null);
    /** None is called; the prompt shows them all the same. */
    public static final ToolChoice NONE = new ToolChoice(2, null);

    final int number; // Native's
    /** The one tool that is called; null: any. */
    public final @Nullable String name;

    private ToolChoice(int number, String name) {
        this.number = number;
        this.name = name;
    }

    /** This one is called, once. */
    public static ToolChoice named(String tool) {
        return new ToolChoice(REQUIRED.number, Check.given("tool choice: tool", tool));
    }

    @Override
    public String toString() {
        return name != null ? name : number == 0 ? "auto" : number == 1 ? "required" : "none";
    }
}
