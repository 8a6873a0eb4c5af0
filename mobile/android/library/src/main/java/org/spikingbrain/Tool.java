package org.spikingbrain;

import org.jspecify.annotations.Nullable;

/** A function that the model may call; see {@link GenerateOptions#tools}. */
public final class Tool {
    public final String name;
    /** What it is for; null: not said. */
    public final @Nullable String description;
    /** JSON schema of its arguments, an object; null: it has none. */
    public final @Nullable String parameters;

    /** IllegalArgumentException: no name, or parameters that are no JSON. */
    public Tool(String name, @Nullable String description, @Nullable String parameters) {
        Check.that(name != null && !name.isEmpty(), "tool: name: got none, expected a text such as \"weather\"");
        this.name = name;
        this.description = description;
        this.parameters = parameters == null ? null : normal(name, parameters);
    }

    private static String normal(String name, String parameters) {
        Library.load(null);
        String out = Prints.text(Native.normalJson(Prints.utf8("tool: " + name + ": parameters"), Prints.utf8(parameters)));
        Check.that(out.startsWith("{"), "tool: " + name + ": parameters: got " + out + ", expected a JSON schema, an object");
        return out;
    }
}
