"""llama_cpp.llama_grammar."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional, Union

from .. import grammar
from ..grammar import LLAMA_GRAMMAR_DEFAULT_ROOT as LLAMA_GRAMMAR_DEFAULT_ROOT, schema_to_gbnf
from .refused import missing

if TYPE_CHECKING:
    from typing_extensions import Self

Schema = Union[str, Mapping[str, Any]]


class LlamaGrammar(grammar.LlamaGrammar):
    """As spikingbrain_cpp.LlamaGrammar; of a JSON schema, what no grammar holds is left out with a warning that names it."""

    @property
    def _grammar(self) -> str:
        return self.text

    @property
    def _root(self) -> str:
        return self.root

    @classmethod
    def from_json_schema(cls, json_schema: Schema, verbose: bool = False, lenient: bool = True) -> Self:
        """lenient=False: such a keyword is a ValueError."""
        return super().from_json_schema(json_schema, verbose, lenient)


def json_schema_to_gbnf(schema: Schema, prop_order: Optional[Sequence[str]] = None) -> str:
    """GBNF of a JSON schema. prop_order: properties in this order, the others behind them."""
    if not prop_order:
        return schema_to_gbnf(schema, lenient=True)
    return schema_to_gbnf(_ordered(json.loads(schema) if isinstance(schema, str) else schema, list(prop_order)), lenient=True)


def _ordered(tree: Any, order: list[str]) -> Any:
    if isinstance(tree, list):
        return [_ordered(item, order) for item in tree]
    if not isinstance(tree, Mapping):
        return tree
    out = {key: _ordered(value, order) for key, value in tree.items()}
    if isinstance(out.get("properties"), dict):
        names = sorted(out["properties"], key=lambda name: order.index(name) if name in order else len(order))
        out["properties"] = {name: out["properties"][name] for name in names}
    return out


_OF_SCHEMA = {"JSON_GBNF": '{"type": "object"}', "JSON_ARR_GBNF": '{"type": "array"}'}


def __getattr__(name: str) -> str:
    """JSON_GBNF, JSON_ARR_GBNF: any object, any array."""
    if name in _OF_SCHEMA:
        return schema_to_gbnf(_OF_SCHEMA[name])
    raise missing("llama_cpp.llama_grammar", name)
