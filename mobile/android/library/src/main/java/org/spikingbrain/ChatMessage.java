package org.spikingbrain;

/** One message of a chat. */
public final class ChatMessage {
    /** "system", "user", "assistant", or another that the model's template knows. */
    public final String role;
    public final String content;

    /** IllegalArgumentException: no role or no content. */
    public ChatMessage(String role, String content) {
        Check.that(role != null && !role.isEmpty(), "message: role: got none, expected a text such as \"user\"");
        Check.that(content != null, "message: content: got none, expected a text");
        this.role = role;
        this.content = content;
    }
}
