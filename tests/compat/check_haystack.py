"""haystack's LlamaCppChatGenerator and LlamaCppGenerator."""

from __future__ import annotations

from haystack.dataclasses import ChatMessage
from haystack.tools import create_tool_from_function
from haystack_integrations.components.generators.llama_cpp import LlamaCppChatGenerator


def weather(city: str) -> str:
    """The weather of a city."""
    return f"rain in {city}"


def made(path, **given):
    one = LlamaCppChatGenerator(model=str(path), n_ctx=2000, n_batch=128, model_kwargs={"n_gpu_layers": -1, "n_threads": 1}, **given)
    one.warm_up()
    return one


def test_a_chat(path):
    answer = made(path).run([ChatMessage.from_user("hello")], generation_kwargs={"max_tokens": 8, "temperature": 0.0})["replies"][0]
    assert answer.text is not None and answer.meta["finish_reason"] in ("stop", "length")


def test_a_chat_in_chunks(path):
    seen = []
    answer = made(path, streaming_callback=seen.append).run([ChatMessage.from_user("hello")], generation_kwargs={"max_tokens": 8, "temperature": 0.0})["replies"][0]
    assert "".join(chunk.content for chunk in seen) == (answer.text or "")


def test_tools(path, ends):
    tool = create_tool_from_function(weather)
    choice = {"type": "function", "function": {"name": "weather"}}
    answer = made(path, tools=[tool]).run([ChatMessage.from_user("Oslo?")], generation_kwargs={"max_tokens": 400, "tool_choice": choice, "logit_bias": ends})["replies"][0]
    assert answer.tool_calls and answer.tool_calls[0].tool_name == "weather"
