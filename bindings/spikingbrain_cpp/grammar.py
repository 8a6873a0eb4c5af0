"""Grammars that constrain what is sampled: GBNF texts and JSON schemas, parsed and applied by upstream."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from . import _core

if TYPE_CHECKING:
    from typing_extensions import Self

LLAMA_GRAMMAR_DEFAULT_ROOT = "root"


@dataclass(frozen=True)
class LlamaGrammar:
    """A checked grammar. text: GBNF; root: the rule an answer must match.

    Tokens that do not fit are never drawn; end-of-generation tokens are drawn only where the grammar is complete.
    """

    text: str
    root: str = LLAMA_GRAMMAR_DEFAULT_ROOT

    def __post_init__(self) -> None:
        for name in ("text", "root"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"grammar: {name}: got {type(getattr(self, name)).__name__}, expected str")
            try:
                getattr(self, name).encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"grammar: {name}: got text that is not UTF-8 ({error}), expected a grammar in GBNF") from error
        try:
            _core.check_grammar(self.text, self.root)
        except ValueError as error:
            if "no vocab" not in str(error):  # a token by its name: checked where it is used
                raise

    @classmethod
    def from_string(cls, grammar: str, verbose: bool = False, root: str = LLAMA_GRAMMAR_DEFAULT_ROOT) -> Self:
        """From GBNF. verbose: show it on stderr. ValueError: it cannot be parsed, or recurs on the left."""
        made = cls(grammar, root)
        if verbose:
            print(made.text, file=sys.stderr)
        return made

    @classmethod
    def from_file(cls, file: Union[str, os.PathLike[str]], verbose: bool = False, root: str = LLAMA_GRAMMAR_DEFAULT_ROOT) -> Self:
        """From a file of GBNF. OSError: not readable."""
        try:
            text = Path(file).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"grammar: {os.fspath(file)}: got bytes that are not UTF-8, expected a grammar in GBNF") from error
        return cls.from_string(text, verbose, root)

    @classmethod
    def from_json_schema(cls, json_schema: Union[str, Mapping[str, Any]], verbose: bool = False, lenient: bool = False) -> Self:
        """From a JSON schema, as text or as a dict: any answer is then JSON that satisfies it.

        ValueError: no JSON, no schema, one that nothing satisfies, or a keyword that constrains and that no grammar holds (bindings/README.md
        lists them). lenient: such keywords are left out with a UserWarning that names them.
        """
        return cls.from_string(schema_to_gbnf(json_schema, lenient), verbose)

    def matches(self, text: str) -> bool:
        """Whether the text is a whole answer that the grammar allows. ValueError: it recurs on the left."""
        return _core.grammar_matches(self.text, self.root, text)

    def constrain(self, chain: _core.Sampler) -> None:
        """Hand it to a sampler chain."""
        chain.set_grammar(self.text, self.root)


@dataclass(frozen=True)
class ChatGrammar(LlamaGrammar):
    """What upstream's chat layer asks for beside the text (see _core.Sampler.set_grammar)."""

    lazy: bool = False
    trigger_patterns: tuple[str, ...] = ()
    trigger_tokens: tuple[int, ...] = ()
    preserved: tuple[int, ...] = ()
    prefill: tuple[int, ...] = ()

    def constrain(self, chain: _core.Sampler) -> None:
        """Puts it into a sampler chain."""
        chain.set_grammar(self.text, self.root, lazy=self.lazy, trigger_patterns=list(self.trigger_patterns),
                          trigger_tokens=list(self.trigger_tokens), preserved=list(self.preserved), prefill=list(self.prefill))


def schema_to_gbnf(schema: Union[str, Mapping[str, Any]], lenient: bool = False) -> str:
    """GBNF that keeps a schema; see LlamaGrammar.from_json_schema."""
    try:
        tree = json.loads(schema) if isinstance(schema, (str, bytes)) else schema
        text = json.dumps(tree, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"json schema: got something that is not JSON: {error}") from error
    if not isinstance(tree, Mapping):
        raise ValueError(f"json schema: got {type(tree).__name__}, expected an object")
    gbnf, left_out = _core.json_schema_to_grammar(text, lenient)
    warn_of(left_out)
    return gbnf


def warn_of(left_out: Iterable[str]) -> None:
    """A UserWarning for each keyword that leniency left out."""
    for text in left_out:
        warnings.warn(text, UserWarning, stacklevel=2)
