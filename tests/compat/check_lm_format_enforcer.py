"""lm-format-enforcer's logits processor."""

from __future__ import annotations

import json

from llama_cpp import LogitsProcessorList
from lmformatenforcer import JsonSchemaParser, RegexParser
from lmformatenforcer.integrations.llamacpp import build_llamacpp_logits_processor, build_token_enforcer_tokenizer_data


def test_a_regex_and_a_schema(llm):
    data = build_token_enforcer_tokenizer_data(llm)
    one = build_llamacpp_logits_processor(data, RegexParser("(yes|no)"))
    assert llm("is it?", max_tokens=10, logits_processor=LogitsProcessorList([one]))["choices"][0]["text"] in ("yes", "no")
    schema = {"type": "object", "properties": {"a": {"type": "integer", "maximum": 9, "minimum": 0}}, "required": ["a"], "additionalProperties": False}
    two = build_llamacpp_logits_processor(data, JsonSchemaParser(schema))
    assert "a" in json.loads(llm("json:", max_tokens=60, logits_processor=LogitsProcessorList([two]), logit_bias={llm.token_eos(): 40.0})["choices"][0]["text"])
