"""langchain-community's LlamaCpp, ChatLlamaCpp and LlamaCppEmbeddings."""

from __future__ import annotations

import json
import warnings

import pytest
from langchain_community.chat_models import ChatLlamaCpp
from langchain_community.embeddings import LlamaCppEmbeddings
from langchain_community.llms import LlamaCpp
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import PromptTemplate
from langchain_core.tools import tool
from pydantic import BaseModel, Field

QUICK = {"n_threads": 1, "n_ctx": 2000, "verbose": False, "max_tokens": 8, "temperature": 0.0}


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"rain in {city}"


class City(BaseModel):
    name: str = Field(max_length=8)
    big: bool


@pytest.fixture(scope="module")
def text(path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = LlamaCpp(model_path=str(path), n_gpu_layers=8, **QUICK)
    assert [w.category for w in caught if "taken and left out" in str(w.message)] == [UserWarning]
    return made


@pytest.fixture(scope="module")
def chat(path):
    return ChatLlamaCpp(model_path=str(path), **QUICK)


def test_text(text, llm):
    want = llm("def f(", max_tokens=8, temperature=0.0, repeat_penalty=1.1)["choices"][0]["text"]
    assert text.invoke("def f(") == want == "".join(text.stream("def f("))
    assert text.invoke("def f(", stop=[want[2:4]]) == want[:want.index(want[2:4])]
    assert text.get_num_tokens("def f(") == len(llm.tokenize("def f("))
    assert (PromptTemplate.from_template("def {name}(") | text | StrOutputParser()).invoke({"name": "f"}) == want


def test_a_grammar(path):
    made = LlamaCpp(model_path=str(path), grammar='root ::= "yes" | "no"', **QUICK)
    assert made.invoke("is it?") in ("yes", "no")


def test_chat(chat):
    messages = [SystemMessage("terse"), HumanMessage("hello")]
    whole = chat.invoke(messages)
    assert isinstance(whole, AIMessage) and whole.content == "".join(chunk.content for chunk in chat.stream(messages))
    assert whole.response_metadata["finish_reason"] in ("stop", "length")


def test_a_tool_by_its_name(chat):
    bound = chat.bind_tools([weather], tool_choice={"type": "function", "function": {"name": "weather"}}).bind(max_tokens=300, temperature=0.5)
    answer = bound.invoke([HumanMessage("the weather in Oslo?")])
    call = answer.tool_calls[0] if answer.tool_calls else answer.invalid_tool_calls[0]  # cut at the limit, it is no JSON
    assert call["name"] == "weather"


def test_tools_of_ones_own_choice(chat):
    bound = chat.bind_tools([weather]).bind(max_tokens=40)
    first = bound.invoke([HumanMessage("the weather in Oslo?")])
    assert isinstance(first, AIMessage)
    history = [HumanMessage("the weather?"), AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Oslo"}, "id": "1"}]), ToolMessage("rain", tool_call_id="1")]
    assert isinstance(bound.invoke(history), AIMessage)
    assert [chunk for chunk in bound.stream(history)]


def test_structured_output(path):
    made = ChatLlamaCpp(model_path=str(path), **{**QUICK, "max_tokens": 400}).with_structured_output(City, include_raw=True)
    calls = made.invoke("a city")["raw"].additional_kwargs["tool_calls"]
    assert json.loads(calls[0]["function"]["arguments"]).keys() == {"name", "big"}


def test_embeddings(path, llm):
    """One per token, as of every model that generates."""
    made = LlamaCppEmbeddings(model_path=str(path), n_threads=1, verbose=False, n_ctx=512)
    rows = made.embed_documents(["a cat", "a dog"])
    assert len(rows) == sum(len(llm.tokenize(text)) for text in ("a cat", "a dog")) and {len(row) for row in rows} == {llm.n_embd()}
    assert made.embed_query("a cat") == pytest.approx(rows[0])
