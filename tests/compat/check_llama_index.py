"""llama-index's LlamaCPP."""

from __future__ import annotations

import pytest
from llama_index.core.llms import ChatMessage
from llama_index.llms.llama_cpp import LlamaCPP


@pytest.fixture(scope="module")
def model(path):
    return LlamaCPP(model_path=str(path), temperature=0.0, max_new_tokens=8, context_window=2000, verbose=False,
                    model_kwargs={"n_gpu_layers": -1, "n_threads": 1}, messages_to_prompt=lambda messages: messages[-1].content, completion_to_prompt=lambda text: text)


def test_text_and_chat(model, llm):
    want = llm("def f(", max_tokens=8, temperature=0.0)["choices"][0]["text"]
    assert model.complete("def f(").text == want
    assert "".join(chunk.delta for chunk in model.stream_complete("def f(")) == want
    assert model.chat([ChatMessage(role="user", content="def f(")]).message.content == want
