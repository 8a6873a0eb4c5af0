"""Grammars: what is drawn matches them, ends where they are complete, and a bad one is refused without harm."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from chat_models import END, NO_END, llm  # noqa: F401
from spikingbrain_cpp import LlamaError, LlamaGrammar

TREE = 'leaf ::= "."\nnode ::= leaf | "(" node node ")"\nroot ::= node\n'


def text_of(answer: dict) -> str:
    return answer["choices"][0]["text"]


@pytest.mark.parametrize("seed", range(4))
def test_completion_matches_its_grammar_and_ends_with_it(llm, seed):
    answer = llm("x", grammar=LlamaGrammar.from_string('root ::= "yes" [0-9]{3}'), max_tokens=None, seed=seed)
    assert re.fullmatch(r"yes[0-9]{3}", text_of(answer)) and answer["choices"][0]["finish_reason"] == "stop"


def test_answers_differ_between_seeds_and_not_within_one(llm):
    digits = LlamaGrammar.from_string("root ::= [0-9]{8}")
    texts = [text_of(llm("x", grammar=digits, max_tokens=None, seed=seed)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_end_of_generation_waits_for_the_grammar(llm):
    """Wished for with all its might, it comes at once without a grammar and only after six letters with one."""
    assert text_of(llm("x", logit_bias=END, max_tokens=20)) == ""
    answer = llm("x", logit_bias=END, max_tokens=20, grammar=LlamaGrammar.from_string("root ::= [a-z]{6} [a-z]*"))
    assert re.fullmatch("[a-z]{6,}", text_of(answer)) and answer["choices"][0]["finish_reason"] == "stop"


def test_greedy_takes_the_likeliest_token_that_fits(llm):
    llm.reset()
    llm.eval(llm.tokenize(b"x"))
    allowed = [t for t in range(509) if re.fullmatch(rb"[a-c]+", llm.detokenize([t]))]
    best = max(allowed, key=lambda t: llm.logits[t])
    assert best != int(llm.logits.argmax())
    assert llm.sample(temp=0, grammar=LlamaGrammar.from_string("root ::= [a-c]+")) == best


def test_sample_follows_the_tokens_evaluated_since(llm):
    grammar = LlamaGrammar.from_string('root ::= "ab" "cd"')
    llm.reset()
    llm.eval(llm.tokenize(b"x"))
    text = b""
    while not text.endswith(b"d"):
        token = llm.sample(temp=0, grammar=grammar)
        text += llm.detokenize([token])
        llm.eval([token])
    assert text == b"abcd"


def test_sample_says_when_what_was_evaluated_does_not_fit(llm):
    grammar = LlamaGrammar.from_string('root ::= "ab"')
    llm.reset()
    llm.eval(llm.tokenize(b"x"))
    llm.sample(grammar=grammar)
    llm.eval(llm.tokenize(b"zz"))
    with pytest.raises(LlamaError, match="grammar: got token"):
        llm.sample(grammar=grammar)
    assert 0 <= llm.sample() < 512


def test_root_rule_can_be_chosen(llm):
    grammar = LlamaGrammar.from_string('root ::= "a"\nother ::= "b"', root="other")
    assert text_of(llm("x", grammar=grammar, max_tokens=None)) == "b"


@pytest.mark.parametrize("mode", [1, 2])
def test_mirostat_and_processors_work_with_a_grammar(llm, mode):
    seen = []

    def processor(ids, logits):
        seen.append(ids.size)
        return logits

    answer = llm("x", grammar=LlamaGrammar.from_string(TREE), mirostat_mode=mode, max_tokens=40, logits_processor=processor, seed=1)
    assert set(text_of(answer)) <= set(".()") and text_of(answer) and seen


@pytest.mark.parametrize(("schema", "check"), [
    ({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}}, "required": ["a", "b"]},
     lambda v: isinstance(v["a"], int) and v["b"] in ("x", "y")),
    ({"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3}, lambda v: len(v) in (2, 3) and {*map(type, v)} == {bool}),
    ({"type": "string", "pattern": "^[a-c]{4}$"}, lambda v: re.fullmatch("[a-c]{4}", v)),
    ({"anyOf": [{"const": 7}, {"type": "null"}]}, lambda v: v in (7, None)),
    ({"$defs": {"A": {"type": "object", "properties": {"n": {"type": "boolean"}}, "required": ["n"]}}, "$ref": "#/$defs/A"}, lambda v: v["n"] in (True, False)),
])
def test_json_schema_is_satisfied(llm, schema, check):
    for given in (schema, json.dumps(schema)):
        answer = llm("x", grammar=LlamaGrammar.from_json_schema(given), max_tokens=None, logit_bias=END, seed=3)
        assert check(json.loads(text_of(answer)))


def test_grammar_from_a_file(llm, tmp_path):
    (tmp_path / "g.gbnf").write_text('# a comment\nroot ::= "ok"\n')
    assert text_of(llm("x", grammar=LlamaGrammar.from_file(tmp_path / "g.gbnf"), max_tokens=None)) == "ok"
    with pytest.raises(FileNotFoundError):
        LlamaGrammar.from_file(tmp_path / "none.gbnf")
    (tmp_path / "b.gbnf").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="not UTF-8"):
        LlamaGrammar.from_file(tmp_path / "b.gbnf")


def test_verbose_shows_the_grammar(capfd):
    LlamaGrammar.from_string(TREE)
    assert capfd.readouterr() == ("", "")
    LlamaGrammar.from_string(TREE, verbose=True)
    assert capfd.readouterr().err.strip() == TREE.strip()


@pytest.mark.parametrize(("text", "words"), [
    ("", "no rule 'root'"), ('other ::= "a"', "no rule 'root'"), ("root ::= a", "no rule 'a'"), ("root ::= (", "not GBNF"),
    ("root", "not GBNF"), ('root ::= "a', "not GBNF"), ("root ::= [", "not GBNF"), ('root ::= "a" {3', "not GBNF"),
    ("root ::= " + "(" * 5000 + '"a"' + ")" * 5000, "256 deep"), ('root ::= "a"\0', "NUL"), ("#" * 300_000, "262144"),
    ('root ::= "\ud800"', "not UTF-8"),
])
def test_bad_grammar_is_refused_in_silence(capfd, text, words):
    with pytest.raises(ValueError, match=f"grammar: .*{words}"):
        LlamaGrammar.from_string(text)
    assert capfd.readouterr() == ("", "")


def in_a_row(n: int, part: str = '"a"?') -> str:
    return "root ::= " + " ".join([part] * n)


@pytest.mark.parametrize("text", [in_a_row(101), in_a_row(400), in_a_row(20, "g?") + "\ng ::= " + " ".join(['"a"?'] * 20), in_a_row(51, '("a"? [b]*)?')])
def test_optional_parts_that_would_take_minutes_are_refused(text):
    with pytest.raises(ValueError, match="grammar: got more than 100 optional characters in a row, expected fewer"):
        LlamaGrammar.from_string(text)


@pytest.mark.parametrize("text", [in_a_row(30), "root ::= " + " ".join(f'"{i}x"?' for i in range(400)), in_a_row(200, '"a"? "b"'), "root ::= [a-z]{0,1999}", 'root ::= ("a"? "b"?)* "c"?', 'root ::= x\nx ::= "a" x | ""'])
def test_other_optional_parts_are_not(llm, text):
    assert text_of(llm("x", grammar=LlamaGrammar.from_string(text), max_tokens=3)) is not None


def test_a_schema_of_many_optional_properties_is_used(llm):
    grammar = LlamaGrammar.from_json_schema({"type": "object", "properties": {f"p{i}": {"type": "integer"} for i in range(160)}})
    text = text_of(llm("x", grammar=grammar, max_tokens=60, seed=1, logit_bias={t: 20.0 for t in llm.tokenize(b'{"p":1,')}))
    assert text.startswith("{") and text.count('"p') > 1


@pytest.mark.parametrize("text", ['root ::= root "a" | "b"', "root ::= <|nothing|>"])
def test_what_only_use_can_find_out_is_refused_then(llm, text):
    grammar = LlamaGrammar.from_string(text)
    with pytest.raises(ValueError, match="grammar"):
        llm("x", grammar=grammar)
    assert text_of(llm("x", max_tokens=2, logit_bias=NO_END)) is not None


@pytest.mark.parametrize("rule", ["<|im_start|>", "<[510]>"])
def test_token_named_in_a_grammar_is_drawn(llm, rule):
    name = rule if rule.startswith("<[") else f"<{rule.strip('<>')}>"
    tokens = llm.generate(llm.tokenize(b"x"), grammar=LlamaGrammar.from_string(f"root ::= {name}"))
    assert next(tokens) == 510


def test_control_tokens_are_no_text_to_a_grammar(llm):
    """<|im_start|> would pass for thirteen letters."""
    tokens = llm.generate(llm.tokenize(b"x"), grammar=LlamaGrammar.from_string("root ::= [a-z<|>_]+"), logit_bias={510: 100.0}, temp=0)
    assert next(tokens) != 510


@pytest.mark.parametrize(("given", "error", "words"), [
    ("root ::= \"a\"", TypeError, "LlamaGrammar.from_string"), (5, TypeError, "LlamaGrammar.from_string"),
])
def test_wrong_types_of_grammar(llm, given, error, words):
    for call in (lambda: llm("x", grammar=given), lambda: llm.generate([1], grammar=given), lambda: llm.sample(grammar=given)):
        llm.reset()
        llm.eval([1])
        with pytest.raises(error, match=words):
            call()
    with pytest.raises(TypeError, match="expected str"):
        LlamaGrammar.from_string(b"root")


@pytest.mark.parametrize("schema", [
    "{", "[]", "5", {"type": "foo"}, {"properties": 5}, {"$ref": "#/nowhere"}, {"type": "string", "pattern": "(abc"},
    {"a": float("nan")}, {"a": object()}, {"type": "string", "minLength": 10**9, "maxLength": 10**9},
])
def test_bad_schema_is_refused_in_silence(capfd, schema):
    with pytest.raises(ValueError, match="json schema|grammar"):
        LlamaGrammar.from_json_schema(schema)
    assert capfd.readouterr() == ("", "")


def test_deep_schema_is_refused():
    deep: dict = {"type": "boolean"}
    for _ in range(100_000):
        deep = {"type": "array", "items": deep}
    with pytest.raises(ValueError, match="json schema"):
        LlamaGrammar.from_json_schema(deep)


def test_nothing_left_to_draw_is_an_error_and_no_abort(llm):
    grammar = LlamaGrammar.from_string('root ::= "a" "b"')
    never = {t: -np.inf for t in range(509) if llm.detokenize([t]).startswith(b"b")}
    with pytest.raises(LlamaError, match="grammar: got no token"):
        llm("x", grammar=grammar, logit_bias=never)
    with pytest.raises(LlamaError, match="-inf for every token"):
        llm("x", logit_bias={t: -np.inf for t in range(512)})
    assert text_of(llm("x", grammar=grammar, max_tokens=None)) == "ab"


@pytest.mark.parametrize(("arguments", "error", "words"), [
    ({"tfs_z": 0.5}, ValueError, "tfs_z"), ({"penalize_nl": False}, ValueError, "penalize_nl"), ({"temp": "hot"}, TypeError, "temp"),
    ({"top_k": 1.5}, TypeError, "top_k"), ({"logit_bias": [1]}, TypeError, "logit_bias"), ({"logit_bias": {"a": 1}}, ValueError, "logit_bias"),
    ({"logit_bias": {2**40: 1}}, ValueError, "logit_bias"), ({"logit_bias": {512: 1}}, ValueError, "token"),
    ({"logit_bias": {1: float("nan")}}, ValueError, "logit_bias"), ({"logits_processor": 5}, TypeError, "logits_processor"),
])
def test_bad_sampling_arguments(llm, arguments, error, words):
    llm.reset()
    llm.eval([1])
    for call in (lambda: llm.sample(**arguments), lambda: llm.generate([1], **arguments)):
        with pytest.raises(error, match=words):
            call()
    assert 0 <= llm.sample() < 512


def test_sample_takes_the_logits_of_a_position(llm):
    llm.reset()
    llm.eval([1, 2, 3])
    assert llm.sample(temp=0, idx=2) == llm.sample(temp=0) == int(llm.logits.argmax())
    with pytest.raises(LlamaError, match="logits_all"):
        llm.sample(idx=0)
    with pytest.raises(ValueError, match="idx"):
        llm.sample(idx=3)


@pytest.mark.parametrize("schema, words", [([], "got list, expected an object"), ("[1]", "got list, "), ("7", "got int, "), (None, "got NoneType, "), ("null", "got NoneType, "), (True, "got bool, "),
                                           ("{", "got something that is not JSON: "), ({"const": float("nan")}, "got something that is not JSON: "), ({"enum": [{1}]}, "got something that is not JSON: ")])
def test_a_schema_is_an_object_of_json(schema, words):
    with pytest.raises(ValueError, match=f"json schema: {words}"):
        LlamaGrammar.from_json_schema(schema)
