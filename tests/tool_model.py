"""examples/tiny with a template that knows tools, and random weights that call them by a bias of two tokens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from binding_models import convert

ROOT = Path(__file__).resolve().parent.parent
TOOL = {"type": "function", "function": {"name": "get_temperature", "description": "of a town", "parameters": {
    "type": "object", "properties": {"unit": {"type": "string", "enum": ["celsius", "kelvin"]}}, "required": ["unit"]}}}
CALL, END = 509, 511  # the ids of "<tool_call>\n" below and "<|im_end|>": by a bias, random weights write them where the grammar allows it
BIAS = {str(CALL): 50, str(END): 100}
TOOL_TEMPLATE = """\
{%- if tools %}{{- '<|im_start|>system\\nFunctions:' }}{%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}{{- '<|im_end|>\\n' }}{%- endif %}
{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + (message.content or '') }}
{%- for call in message.tool_calls or [] %}
{{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' + (call.function.arguments | tojson) + '}\\n</tool_call>' }}
{%- endfor %}{{- '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""


def tool_model(folder: Path) -> Path:
    """The example with "<tool_call>\\n" in the place of "<|endoftext|>" and the template above."""
    checkpoint = folder / "tools"
    shutil.copytree(ROOT / "examples" / "tiny", checkpoint)
    for path in checkpoint.glob("*token*.json"):
        path.write_text(path.read_text().replace("<|endoftext|>", "<tool_call>\\n"))
    config = json.loads((checkpoint / "tokenizer_config.json").read_text())
    config["added_tokens_decoder"][str(CALL)]["special"] = False  # else it is not shown
    (checkpoint / "tokenizer_config.json").write_text(json.dumps({**config, "eos_token": "<|im_end|>", "chat_template": TOOL_TEMPLATE}))
    ends = json.loads((checkpoint / "config.json").read_text()) | {"bos_token_id": 511, "eos_token_id": 511}
    (checkpoint / "config.json").write_text(json.dumps(ends))
    return convert(checkpoint, folder / "tools.gguf", "--outtype", "f32")
