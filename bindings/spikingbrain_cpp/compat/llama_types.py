"""llama_cpp.llama_types: the shapes of requests and answers, OpenAI's, as typed dicts under llama-cpp-python's names."""

import sys
from typing import TYPE_CHECKING, Any, Dict, List, Literal, Optional, Union

if TYPE_CHECKING:
    from typing_extensions import NotRequired, TypedDict
elif sys.version_info >= (3, 12):
    from typing import NotRequired, TypedDict
else:  # pydantic, where it is there, reads those of typing_extensions alone, and brings it
    try:
        from typing_extensions import NotRequired, TypedDict
    except ImportError:
        from typing import Optional as NotRequired, TypedDict

JsonType = Union[None, int, str, bool, List[Any], Dict[str, Any]]
JsonSchema = Dict[str, JsonType]
ChatCompletionFunctionParameters = JsonSchema
Finish = Literal["stop", "length", "tool_calls", "function_call"]

# --- embeddings and completions --------------------------------------------------------------------------------------


class EmbeddingUsage(TypedDict):
    prompt_tokens: int
    total_tokens: int


class Embedding(TypedDict):
    object: str
    index: int
    embedding: Union[List[float], List[List[float]]]


class CreateEmbeddingResponse(TypedDict):
    object: Literal["list"]
    data: List[Embedding]
    model: str
    usage: EmbeddingUsage


class CompletionUsage(EmbeddingUsage):
    completion_tokens: int


class CompletionLogprobs(TypedDict):
    tokens: List[str]
    text_offset: List[int]
    token_logprobs: List[Optional[float]]
    top_logprobs: List[Optional[Dict[str, float]]]


class CompletionChoice(TypedDict):
    index: int
    text: str
    logprobs: Optional[CompletionLogprobs]
    finish_reason: Optional[Literal["stop", "length"]]


class CreateCompletionResponse(TypedDict):
    object: Literal["text_completion"]
    id: str
    created: int
    model: str
    choices: List[CompletionChoice]
    usage: NotRequired[CompletionUsage]


# --- functions and tools ---------------------------------------------------------------------------------------------


class _Named(TypedDict):
    name: str


class _Called(_Named):
    arguments: str


class ChatCompletionFunction(_Named):
    description: NotRequired[str]
    parameters: JsonSchema


class ChatCompletionTool(TypedDict):
    type: Literal["function"]
    function: ChatCompletionFunction


class ChatCompletionNamedToolChoice(TypedDict):
    type: Literal["function"]
    function: _Named


class ChatCompletionMessageToolCall(TypedDict):
    type: Literal["function"]
    id: str
    function: _Called


ChatCompletionMessageToolCalls = List[ChatCompletionMessageToolCall]
ChatCompletionToolChoiceOption = Union[Literal["none", "auto", "required"], ChatCompletionNamedToolChoice]
ChatCompletionRequestFunctionCallOption = _Named
ChatCompletionRequestFunctionCall = Union[Literal["none", "auto"], _Named]

# --- what a chat is asked ---------------------------------------------------------------------------------------------


class ChatCompletionRequestMessageContentPartText(TypedDict):
    type: Literal["text"]
    text: str


class ChatCompletionRequestMessageContentPartImageImageUrl(TypedDict):
    url: str
    detail: NotRequired[Literal["auto", "low", "high"]]


class ChatCompletionRequestMessageContentPartImage(TypedDict):
    type: Literal["image_url"]
    image_url: Union[str, ChatCompletionRequestMessageContentPartImageImageUrl]


ChatCompletionRequestMessageContentPart = Union[ChatCompletionRequestMessageContentPartText, ChatCompletionRequestMessageContentPartImage]


class ChatCompletionRequestSystemMessage(TypedDict):
    role: Literal["system"]
    content: Optional[str]


class ChatCompletionRequestUserMessage(TypedDict):
    role: Literal["user"]
    content: Optional[Union[str, List[ChatCompletionRequestMessageContentPart]]]


class ChatCompletionRequestAssistantMessage(TypedDict):
    role: Literal["assistant"]
    content: NotRequired[Optional[str]]
    tool_calls: NotRequired[ChatCompletionMessageToolCalls]
    function_call: NotRequired[_Called]


class ChatCompletionRequestToolMessage(TypedDict):
    role: Literal["tool"]
    content: Optional[str]
    tool_call_id: str


class ChatCompletionRequestFunctionMessage(TypedDict):
    role: Literal["function"]
    content: Optional[str]
    name: str


ChatCompletionRequestMessage = Union[
    ChatCompletionRequestSystemMessage, ChatCompletionRequestUserMessage, ChatCompletionRequestAssistantMessage,
    ChatCompletionRequestToolMessage, ChatCompletionRequestFunctionMessage]


class ChatCompletionRequestResponseFormat(TypedDict):
    type: Literal["text", "json_object"]
    schema: NotRequired[JsonType]


# --- what it answers -------------------------------------------------------------------------------------------------


class ChatCompletionTopLogprobToken(TypedDict):
    token: str
    logprob: float
    bytes: Optional[List[int]]


class ChatCompletionLogprobToken(ChatCompletionTopLogprobToken):
    top_logprobs: List[ChatCompletionTopLogprobToken]


class ChatCompletionLogprobs(TypedDict):
    content: Optional[List[ChatCompletionLogprobToken]]
    refusal: Optional[List[ChatCompletionLogprobToken]]


class ChatCompletionResponseMessage(TypedDict):
    role: Literal["assistant", "function"]
    content: Optional[str]
    tool_calls: NotRequired[ChatCompletionMessageToolCalls]
    function_call: NotRequired[_Called]


class ChatCompletionResponseChoice(TypedDict):
    index: int
    message: ChatCompletionResponseMessage
    logprobs: Optional[ChatCompletionLogprobs]
    finish_reason: Optional[str]


class CreateChatCompletionResponse(TypedDict):
    object: Literal["chat.completion"]
    id: str
    created: int
    model: str
    choices: List[ChatCompletionResponseChoice]
    usage: CompletionUsage


class ChatCompletionMessageToolCallChunkFunction(TypedDict):
    name: NotRequired[Optional[str]]
    arguments: str


class ChatCompletionMessageToolCallChunk(TypedDict):
    index: int
    id: NotRequired[str]
    type: NotRequired[Literal["function"]]
    function: ChatCompletionMessageToolCallChunkFunction


class ChatCompletionStreamResponseDeltaEmpty(TypedDict):
    pass


class ChatCompletionStreamResponseDelta(TypedDict):
    role: NotRequired[Optional[Literal["system", "user", "assistant", "tool"]]]
    content: NotRequired[Optional[str]]
    tool_calls: NotRequired[Optional[List[ChatCompletionMessageToolCallChunk]]]
    function_call: NotRequired[Optional[_Called]]


class ChatCompletionStreamResponseChoice(TypedDict):
    index: int
    delta: Union[ChatCompletionStreamResponseDelta, ChatCompletionStreamResponseDeltaEmpty]
    logprobs: NotRequired[Optional[ChatCompletionLogprobs]]
    finish_reason: Optional[Finish]


class CreateChatCompletionStreamResponse(TypedDict):
    object: Literal["chat.completion.chunk"]
    id: str
    created: int
    model: str
    choices: List[ChatCompletionStreamResponseChoice]


# --- other names of these ----------------------------------------------------------------------------------------------

EmbeddingData = Embedding
Completion = CompletionChunk = CreateCompletionStreamResponse = CreateCompletionResponse
ChatCompletionFunctions = ChatCompletionToolFunction = ChatCompletionResponseFunction = ChatCompletionFunction
ChatCompletionFunctionCallOption = ChatCompletionNamedToolChoiceFunction = _Named
ChatCompletionFunctionCall = ChatCompletionMessageToolCallFunction = ChatCompletionResponseFunctionCall = _Called
ChatCompletionRequestAssistantMessageFunctionCall = ChatCompletionStreamResponseDeltaFunctionCall = _Called
ChatCompletion = CreateChatCompletionResponse
ChatCompletionMessage = ChatCompletionResponseMessage
ChatCompletionChoice = ChatCompletionResponseChoice
ChatCompletionChunk = ChatCompletionStreamResponse = CreateChatCompletionStreamResponse
ChatCompletionChunkChoice = ChatCompletionStreamResponseChoice
ChatCompletionChunkDelta = ChatCompletionStreamResponseDelta
ChatCompletionChunkDeltaEmpty = ChatCompletionStreamResponseDeltaEmpty
