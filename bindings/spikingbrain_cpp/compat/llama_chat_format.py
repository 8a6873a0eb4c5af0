"""llama_cpp.llama_chat_format: chat formats by their names, one's own among them, and the handlers that answer by them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional, Protocol, TypeVar, Union

from ..chat import render
from .formats import FORMATS
from .llama_tokenizer import auto_tokenizer
from .refused import missing, reason, refuse

Messages = Sequence[Mapping[str, Any]]
Handler = TypeVar("Handler", bound=Callable[..., Any])


@dataclass
class ChatFormatterResponse:
    """A chat as a prompt. stop: texts that end the answer; stopping_criteria: see Llama.generate; added_special: the prompt has its BOS."""

    prompt: str
    stop: Optional[Union[str, list[str]]] = None
    stopping_criteria: Optional[Sequence[Callable[..., bool]]] = None
    added_special: bool = False


class ChatFormatter(Protocol):
    """Makes the prompt of a chat."""

    def __call__(self, *, messages: Messages, **given: Any) -> ChatFormatterResponse: ...


class LlamaChatCompletionHandler(Protocol):
    """Answers a chat, whole or in chunks, in create_chat_completion's place and with its arguments."""

    def __call__(self, *, llama: Any, messages: Messages, **given: Any) -> Any: ...


class LlamaChatCompletionHandlerNotFoundException(Exception):
    """No handler has this name."""


class FormatterHandler:
    """Answers by a formatter: tools, grammars, streams are what they are with the model's own template."""

    def __init__(self, formatter: Callable[..., ChatFormatterResponse]) -> None:
        self.formatter = formatter

    def __call__(self, *, llama: Any, messages: Messages, **given: Any) -> Any:
        return llama.answer_by(self.formatter, messages, given)


# --- by name -----------------------------------------------------------------------------------------------------------


class LlamaChatCompletionHandlerRegistry:
    """The handlers of this process by their names; one object, whoever makes it."""

    _chat_handlers: dict[str, Callable[..., Any]] = {}

    def register_chat_completion_handler(self, name: str, chat_handler: Callable[..., Any], overwrite: bool = False) -> None:
        """ValueError: the name is taken."""
        if name in self._chat_handlers and not overwrite:
            raise ValueError(f"chat_format: {name!r}: got it twice, expected a new name; pass overwrite=True or take another")
        self._chat_handlers[name] = chat_handler

    def unregister_chat_handler(self, name: str) -> None:
        """ValueError: there is none."""
        if self._chat_handlers.pop(name, None) is None:
            raise ValueError(f"chat_format: {name!r}: got an unknown name, expected one of: {', '.join(self._chat_handlers)}")

    def get_chat_completion_handler_by_name(self, name: str) -> Callable[..., Any]:
        """LlamaChatCompletionHandlerNotFoundException: there is none."""
        if name not in self._chat_handlers:
            raise LlamaChatCompletionHandlerNotFoundException(
                f"chat_format: got {name!r}, expected {'another: ' + reason(name) if reason(name) else 'one of: ' + ', '.join(sorted(self._chat_handlers))}")
        return self._chat_handlers[name]


def get_chat_completion_handler(name: str) -> Callable[..., Any]:
    """The handler of that name. LlamaChatCompletionHandlerNotFoundException: there is none."""
    return LlamaChatCompletionHandlerRegistry().get_chat_completion_handler_by_name(name)


def register_chat_completion_handler(name: str) -> Callable[[Handler], Handler]:
    """Decorator: Llama(chat_format=name) answers by this function. ValueError: the name is taken."""
    def decorate(handler: Handler) -> Handler:
        LlamaChatCompletionHandlerRegistry().register_chat_completion_handler(name, handler)
        return handler
    return decorate


def register_chat_format(name: str) -> Callable[[Handler], Handler]:
    """Decorator: Llama(chat_format=name) makes its prompts by this ChatFormatter. ValueError: the name is taken."""
    def decorate(formatter: Handler) -> Handler:
        LlamaChatCompletionHandlerRegistry().register_chat_completion_handler(name, FormatterHandler(formatter))
        return formatter
    return decorate


def formatter_of(name: str) -> Callable[..., ChatFormatterResponse]:
    """The formatter of a format of the table."""
    found = FORMATS[name]

    def formatter(messages: Messages, **_: Any) -> ChatFormatterResponse:
        return ChatFormatterResponse(found.prompt(messages), found.stop)
    return formatter


def _attribute(name: str) -> str:
    """format_mistral_instruct, format_llama2, ..."""
    return "format_" + re.sub("-([0-9])", r"\1", name).replace("-", "_")


_formatters = {_attribute(name): register_chat_format(name)(formatter_of(name)) for name in FORMATS}

# --- by a template -------------------------------------------------------------------------------------------------------


class Jinja2ChatFormatter:
    """Makes prompts by a Jinja template."""

    def __init__(self, template: str, eos_token: str, bos_token: str, add_generation_prompt: bool = True,
                 stop_token_ids: Optional[Sequence[int]] = None) -> None:
        """stop_token_ids: tokens that end the answer, beside the text of eos_token."""
        self.template, self.eos_token, self.bos_token = template, eos_token, bos_token
        self.add_generation_prompt = add_generation_prompt
        self.stop_token_ids = None if stop_token_ids is None else set(stop_token_ids)

    def __call__(self, *, messages: Messages, functions: Any = None, function_call: Any = None, tools: Any = None, tool_choice: Any = None,
                 **given: Any) -> ChatFormatterResponse:
        """ValueError: the template fails, or refuses the messages."""
        prompt = render(self.template, messages, eos_token=self.eos_token, bos_token=self.bos_token, add_generation_prompt=self.add_generation_prompt,
                        functions=functions, function_call=function_call, tools=tools, tool_choice=tool_choice, **given)
        return ChatFormatterResponse(prompt, [self.eos_token] if self.eos_token else None, None if self.stop_token_ids is None else [self._ends], True)

    def _ends(self, tokens: Any, _: Any) -> bool:
        return self.stop_token_ids is not None and int(tokens[-1]) in self.stop_token_ids

    def to_chat_handler(self) -> FormatterHandler:
        """What answers by it."""
        return FormatterHandler(self)


def chat_formatter_to_chat_completion_handler(chat_formatter: Callable[..., ChatFormatterResponse]) -> FormatterHandler:
    """What answers by a formatter."""
    return FormatterHandler(chat_formatter)


def hf_tokenizer_config_to_chat_formatter(tokenizer_config: Mapping[str, Any], add_generation_prompt: bool = True) -> Callable[..., ChatFormatterResponse]:
    """Of a tokenizer_config.json that is read: chat_template, bos_token, eos_token. ValueError: one is missing, or no text."""
    for name in ("chat_template", "bos_token", "eos_token"):
        if not isinstance(tokenizer_config.get(name), str):
            raise ValueError(f"tokenizer_config: {name}: got {tokenizer_config.get(name)!r:.60}, expected a text")
    template, bos, eos = (tokenizer_config[name] for name in ("chat_template", "bos_token", "eos_token"))

    def formatter(messages: Messages, **given: Any) -> ChatFormatterResponse:
        blank = [{"role": "assistant", "content": ""}] if add_generation_prompt else []  # its way of asking for an answer
        return ChatFormatterResponse(render(template, [*messages, *blank], bos_token=bos, eos_token=eos, **given), [eos, bos], added_special=True)
    return formatter


def hf_tokenizer_config_to_chat_completion_handler(tokenizer_config: Mapping[str, Any], add_generation_prompt: bool = True) -> FormatterHandler:
    """What answers by it."""
    return FormatterHandler(hf_tokenizer_config_to_chat_formatter(tokenizer_config, add_generation_prompt))


def hf_autotokenizer_to_chat_formatter(pretrained_model_name_or_path: str) -> Callable[..., ChatFormatterResponse]:
    """By transformers' tokenizer of a model. ImportError: transformers is not installed."""
    tokenizer = auto_tokenizer("chat format", pretrained_model_name_or_path)

    def formatter(messages: Messages, **given: Any) -> ChatFormatterResponse:
        return ChatFormatterResponse(tokenizer.apply_chat_template(messages, tokenize=False, **given), tokenizer.eos_token, added_special=True)
    return formatter


def hf_autotokenizer_to_chat_completion_handler(pretrained_model_name_or_path: str) -> FormatterHandler:
    """What answers by it."""
    return FormatterHandler(hf_autotokenizer_to_chat_formatter(pretrained_model_name_or_path))


# --- what is not here ----------------------------------------------------------------------------------------------------


def _refused_class(name: str) -> type:
    """Can be imported, as programs do that never make one."""
    def never(*_: Any, **__: Any) -> None:
        refuse(name)
    return type(name, (), {"__init__": never, "from_pretrained": staticmethod(never), "__doc__": f"Not here: {reason(name)}."})


def __getattr__(name: str) -> Any:
    if name in _formatters:
        return _formatters[name]
    if name.endswith("ChatHandler") and reason(name):
        found = globals()[name] = _refused_class(name)
        return found
    raise missing("llama_cpp.llama_chat_format", name)
