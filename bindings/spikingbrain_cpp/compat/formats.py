"""The prompt formats that llama-cpp-python knows by name and llama.cpp does not, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

Around = tuple[str, str]  # what stands before a message and behind it


@dataclass(frozen=True)
class Format:
    """A chat as text: the system message in its place, then one turn after another, then what the answer goes on from."""

    head: str                 # {} is the system message; it is left out where there is none
    user: Around
    assistant: Around
    tail: str
    stop: Optional[str] = None
    system: str = ""          # where the chat has none
    first: Optional[Around] = None  # around the first turn behind a system message, where that opens it

    def prompt(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The text of a chat that is to be answered; the last system message counts."""
        system = next((text_of(m) for m in reversed(messages) if m["role"] == "system"), "") or self.system
        out = [self.head.format(system)] if system and self.head else []
        for message in messages:
            around = {"user": self.user, "assistant": self.assistant, "system": self.turn_of_system()}.get(message["role"])
            if around is not None:
                before, behind = self.first if self.first and system and len(out) == 1 else around
                out += [before, text_of(message), behind]
        return "".join([*out, self.tail])

    def turn_of_system(self) -> Optional[Around]:
        """Of formats whose system message is a turn among the others."""
        return None


@dataclass(frozen=True)
class Turns(Format):
    """One in which it is."""

    own: Around = ("", "")

    def turn_of_system(self) -> Optional[Around]:
        return self.own


def text_of(message: Mapping[str, Any]) -> str:
    """The text of a message, of which parts are joined."""
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part["text"] for part in content if part.get("type") == "text")


def _named(user: str, assistant: str, end: str, last: str = "", join: str = ": ") -> tuple[Around, Around, str]:
    """Turns that begin with a name; last: behind an answer, where it differs."""
    return (user + join, end), (assistant + join, last or end), assistant + join.rstrip(" ")


def _header(role: str, end: str = "<|eot_id|>") -> Around:
    return f"<|start_header_id|>{role}<|end_header_id|>\n\n", end


_IM = ("<|im_start|>user\n", "<|im_end|>\n"), ("<|im_start|>assistant\n", "<|im_end|>\n"), "<|im_start|>assistant\n"
_IM_SYSTEM = "<|im_start|>system\n{}<|im_end|>\n"
_END = "<|end_of_turn|>"

FORMATS: dict[str, Format] = {
    "llama-2": Format("[INST] <<SYS>>\n{}\n<</SYS>> ", ("<s>[INST]", "  "), ("[/INST]", " </s>"), "[/INST]", first=("", " ")),
    "llama-3": Turns("", _header("user"), _header("assistant"), _header("assistant")[0], "<|eot_id|>", own=_header("system")),
    "alpaca": Format("{}\n\n", *_named("### Instruction", "### Response", "\n\n", "</s>")),
    "qwen": Format(_IM_SYSTEM, *_IM, "<|endoftext|>", system="You are a helpful assistant."),
    "chatml": Format(_IM_SYSTEM, *_IM, "<|im_end|>"),
    "vicuna": Format("{} ", *_named("USER", "ASSISTANT", " ", "</s>")),
    "oasst_llama": Format("[INST] <<SYS>>\n{}\n<</SYS>>\n\n", ("<|prompter|>", "</s>"), ("<|assistant|>", "</s>"), "<|assistant|>"),
    "baichuan-2": Format("{}", ("<reserved_106>", ""), ("<reserved_107>", ""), "<reserved_107>"),
    "baichuan": Format("{}", ("<reserved_102>", ""), ("<reserved_103>", ""), "<reserved_103>"),
    "openbuddy": Format("{}\n", *_named("User", "Assistant", "\n")),
    "redpajama-incite": Format("{}\n", *_named("<human>", "<bot>", "\n"), "<human>"),
    "snoozy": Format("{}\n", *_named("### Prompt", "### Response", "\n"), "###"),
    "phind": Format("### System Prompt\n{}\n\n", *_named("### User Message", "### Assistant", "\n\n")),
    "intel": Format("### System:\n{}\n", *_named("### User", "### Assistant", "\n", join=":\n")),
    "open-orca": Format("{}" + _END + "\n", ("User: ", _END + "\n"), ("Assistant: ", _END + "\n"), "Assistant: ", "User"),
    "mistrallite": Format("<|system|>{}</s>", ("<|prompter|>", " "), ("</s>\n<|assistant|>", " "), "</s>\n<|assistant|>"),
    "zephyr": Format("<|system|>\n{}</s>\n", ("<|user|>\n\n", "</s>\n"), ("<|assistant|>\n\n", "</s>\n"), "<|assistant|>\n\n", "</s>"),
    "pygmalion": Format("<|system|>{}\n\n", ("<|user|>\n", "\n\n"), ("<|model|>\n", "\n\n"), "<|model|>\n", "\n"),
    "mistral-instruct": Format("", ("[INST] ", ""), (" [/INST]", "</s>"), " [/INST]", "</s>"),
    "chatglm3": Format("<|system|>\n{}", ("<|user|>\n ", ""), ("<|assistant|>\n ", ""), "<|assistant|>", "</s>"),
    "openchat": Format("{}" + 2*_END + "\n", ("GPT4 Correct User: \n", _END + "\n"), (_END + "GPT4 Correct Assistant: \n", _END + "\n"),
                       _END + "GPT4 Correct Assistant: \n", _END),
    "saiga": Turns("", ("<s>user\n", "</s>"), ("<s>bot\n", "</s>"), "<s>bot", own=("<s>system\n", "</s>")),
    "gemma": Format("", ("<start_of_turn>user\n", "<end_of_turn>\n"), ("<start_of_turn>model\n", "<end_of_turn>\n"), "<start_of_turn>model\n", "<end_of_turn>\n"),
}
