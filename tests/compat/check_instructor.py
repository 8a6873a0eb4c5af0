"""instructor on create_chat_completion_openai_v1."""

from __future__ import annotations

import instructor
import pytest
from pydantic import BaseModel, Field


class User(BaseModel):
    name: str = Field(max_length=8)
    age: int = Field(ge=0, le=99)


@pytest.mark.parametrize("mode", [instructor.Mode.JSON_SCHEMA, instructor.Mode.TOOLS, instructor.Mode.JSON, instructor.Mode.MD_JSON])
def test_a_model_comes_back(llm, ends, mode):
    create = instructor.patch(create=llm.create_chat_completion_openai_v1, mode=mode)
    ask = lambda: create(messages=[{"role": "user", "content": "Extract Jason is 25"}], response_model=User, max_tokens=300, temperature=0.5, logit_bias=ends, max_retries=1)  # noqa: E731
    if mode in (instructor.Mode.JSON_SCHEMA, instructor.Mode.TOOLS):
        user = ask()
        assert isinstance(user, User) and 0 <= user.age <= 99
    else:  # nothing holds the model to these
        with pytest.raises(Exception, match="(?i)json|valid|incomplete"):
            ask()


def test_partial_models_are_streamed(llm, ends):
    create = instructor.patch(create=llm.create_chat_completion_openai_v1, mode=instructor.Mode.JSON_SCHEMA)
    found = list(create(messages=[{"role": "user", "content": "Extract Jason is 25"}], response_model=instructor.Partial[User], max_tokens=300, temperature=0.5,
                        logit_bias=ends, stream=True))
    assert found and found[-1].age is not None
