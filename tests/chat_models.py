"""examples/tiny (512 tokens, random weights) as GGUF, with a chat template of the test's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from binding_models import ONE, convert
from conftest import ROOT

END = {509: 50.0, 511: 50.0}       # <|endoftext|>, <|im_end|>: a random model ends as soon as its grammar lets it
NO_END = {509: -100.0, 511: -100.0}

TOOL_TEMPLATE = """\
{%- if tools %}{{- '<|im_start|>system\\nYou can call functions:\\n<tools>' }}
{%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}
{{- '\\n</tools>\\nCall one so:\\n<tool_call>\\n{"name": ..., "arguments": ...}\\n</tool_call><|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'nobody' %}{{- raise_exception('nobody may speak') }}{%- endif %}
{%- if message.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
{%- elif message.tool_calls %}{{- '<|im_start|>assistant' }}
{%- if message.content %}{{- '\\n' + message.content }}{%- endif %}
{%- for call in message.tool_calls %}
{{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' + (call.function.arguments | tojson) + '}\\n</tool_call>' }}
{%- endfor %}{{- '<|im_end|>\\n' }}
{%- else %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""


def tiny_with(folder: Path, template: str | None) -> Path:
    """None: the example's own ChatML template, which knows no tools; "": no template."""
    checkpoint = folder / "checkpoint"
    shutil.copytree(ROOT / "examples" / "tiny", checkpoint)
    config = checkpoint / "tokenizer_config.json"
    if template is not None:
        content = json.loads(config.read_text())
        content.pop("chat_template")
        config.write_text(json.dumps({**content, "chat_template": template} if template else content))
    return convert(checkpoint, folder / "model.gguf", "--outtype", "f32")


# n_ctx: an answer that no grammar ends comes to an end all the same
@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    """ChatML without tools."""
    from spikingbrain_cpp import Llama
    with Llama(tiny_with(tmp_path_factory.mktemp("chat"), None), **ONE, seed=1, n_ctx=4000) as model:
        yield model


@pytest.fixture(scope="module")
def tool_llm(tmp_path_factory):
    from spikingbrain_cpp import Llama
    with Llama(tiny_with(tmp_path_factory.mktemp("tools"), TOOL_TEMPLATE), **ONE, seed=1, n_ctx=4000) as model:
        yield model


def tool(name: str, **properties) -> dict:
    return {"type": "function", "function": {"name": name, "description": f"the {name}", "parameters": {
        "type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}}}


WEATHER, ADD = tool("weather", city={"enum": ["Oslo", "Rome"]}), tool("add", round={"type": "boolean"})
