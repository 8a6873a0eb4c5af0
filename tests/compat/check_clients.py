"""The openai client and pydantic-ai on sb-server; answers in openai's types."""

from __future__ import annotations

from typing import Literal

import openai
import pytest
from pydantic import BaseModel, Field
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


class Point(BaseModel):
    x: int = Field(ge=0, le=99)
    y: Literal["a", "b"]


@pytest.fixture(scope="module")
def client(url):
    return openai.OpenAI(base_url=url, api_key="none", max_retries=0)


def test_openai(client):
    asked = {"model": "any", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    assert whole.choices[0].message.content == "".join(c.choices[0].delta.content or "" for c in client.chat.completions.create(stream=True, **asked) if c.choices)
    assert client.completions.create(model="any", prompt="def f(", max_tokens=4).choices[0].finish_reason == "length"
    parsed = client.chat.completions.parse(**{**asked, "max_tokens": 300, "temperature": 0.5}, response_format=Point)
    assert isinstance(parsed.choices[0].message.parsed, Point)


def test_the_class_answers_in_openais_types(llm):
    answer = llm.create_chat_completion_openai_v1(messages=[{"role": "user", "content": "hello"}], max_tokens=4)
    assert isinstance(answer, openai.types.chat.ChatCompletion)
    chunks = list(llm.create_chat_completion_openai_v1(messages=[{"role": "user", "content": "hello"}], max_tokens=4, stream=True))
    assert all(isinstance(chunk, openai.types.chat.ChatCompletionChunk) for chunk in chunks)


def test_pydantic_ai_on_the_server(url):
    model = OpenAIChatModel("any", provider=OpenAIProvider(base_url=url, api_key="none"))
    text = Agent(model).run_sync("hello", model_settings={"max_tokens": 8})
    assert isinstance(text.output, str)
    made = Agent(model, output_type=NativeOutput(Point)).run_sync("a point", model_settings={"max_tokens": 300, "temperature": 0.5})
    assert isinstance(made.output, Point)
