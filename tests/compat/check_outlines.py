"""outlines.from_llamacpp: its own logits processors on our rows."""

from __future__ import annotations

from typing import Literal

import outlines
import pytest
from outlines.types import Regex
from pydantic import BaseModel, Field


class Point(BaseModel):
    x: int = Field(ge=0, le=99)
    y: Literal["a", "b"]


@pytest.fixture(scope="module")
def model(llm):
    return outlines.from_llamacpp(llm)


def test_a_choice(model):
    assert model("yes or no?", Literal["yes", "no"], max_tokens=10) in ("yes", "no")


def test_a_regex(model, ends):
    assert model("a number", Regex("[0-9]{3}"), max_tokens=10, logit_bias=ends).isdigit()


def test_a_schema(model, ends):
    Point.model_validate_json(model("a point", Point, max_tokens=100, temperature=0.5, logit_bias=ends))


def test_a_stream(model):
    assert "".join(model.stream("yes or no?", Literal["yes", "no"], max_tokens=10)) in ("yes", "no")


def test_plain_text(llm):
    assert isinstance(outlines.from_llamacpp(llm, chat_mode=False)("def f(", max_tokens=4), str)
