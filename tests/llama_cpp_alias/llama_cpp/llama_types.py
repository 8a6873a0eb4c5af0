"""Messages are plain dicts here."""

ChatCompletionRequestUserMessage = ChatCompletionRequestAssistantMessage = dict
