"""JSON schemas are kept: what a grammar allows satisfies its schema, and a keyword that no grammar holds is refused by name."""

from __future__ import annotations

import json
import time
import warnings

import pytest
from chat_models import END, llm, tool_llm  # noqa: F401
from spikingbrain_cpp import LlamaGrammar

HELLO = [{"role": "user", "content": "hello"}]
LONG = {n: '"' + "a" * n + '"' for n in (1999, 2000, 2001, 4099, 4100, 5000, 5001)}
TEXT, WHOLE, NUMBER, ARRAY, OBJECT, NULL = ({"type": t} for t in ("string", "integer", "number", "array", "object", "null"))


def text(**more) -> dict:
    return {**TEXT, **more}


def pattern(value: str, **more) -> dict:
    return {**TEXT, "pattern": value, **more}


def whole(**more) -> dict:
    return {**WHOLE, **more}


def number(**more) -> dict:
    return {**NUMBER, **more}


def array(**more) -> dict:
    return {**ARRAY, **more}


def thing(properties=None, **more) -> dict:
    return {**OBJECT, **({} if properties is None else {"properties": properties}), **more}


# a schema, texts that satisfy it, texts that do not
KEPT = [
    # patterns: ECMA-262's, found anywhere unless anchored, within a JSON string
    (pattern(r"^\d{3}$"), ['"123"'], ['"12"', '"abc"', '"1234"']), (pattern(r"^\w+$"), ['"a_1"'], ['"a b"', '""']),
    (pattern(r"^a\sb$"), ['"a b"', r'"a\tb"'], ['"ab"', '"a\tb"']), (pattern(r"^\D\W\S$"), ['"a-b"'], ['"1-b"', '"aab"', '"a- "']),
    (pattern("foo"), ['"foo"', '"a foo b"'], ['"fo"', '""']), (pattern("^foo"), ['"foobar"'], ['"afoo"']), (pattern("foo$"), ['"a foo"'], ['"foo "']),
    (pattern("^.*$"), ['"a"', r'"a\"b"', '""'], ['"a"b"', r'"a\nb"', '"\\"']), (pattern("^a|b$"), ['"ax"', '"xb"'], ['"xa"', '"bx"']),
    (pattern("^(a|b)$"), ['"a"', '"b"'], ['"ab"', '"c"']), (pattern("^(?:ab)+c?$"), ['"abab"', '"abc"'], ['"a"', '"abcc"']),
    (pattern("^[^a-c]{2,3}$"), ['"xy"', r'"\"y"'], ['"ab"', '"xyxy"', r'"\a"']), (pattern(r"^é\x41\/\-\.$"), ['"éA/-."'], ['"eA/-."']),
    (pattern(r"^[\w.-]+@[\w-]+\.[a-z]{2,}$"), ['"a.b@c-d.ef"'], ['"a@b"']),
    (pattern("^[a-z]+$", minLength=3, maxLength=5), ['"abc"', '"abcde"'], ['"ab"', '"abcdef"', '"ABC"']),
    (pattern("^[a-z]+@[a-z]+$", maxLength=9), ['"abcd@efgh"', '"a@b"'], ['"abcde@fghi"', '"@"']),
    (pattern(r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"), ['"1.5"', '"-2"'], ['"-"', '"."', '""']),
    # lengths, in code points; llama.cpp takes a number above 2000 for "any"
    (text(minLength=2, maxLength=3), ['"ab"', r'"a\n\u00e9"', r'"\ud83d\ude00a"'], ['"a"', '"abcd"', r'"\ud83d\ude00"', r'"\ud83da"']),
    (text(maxLength=5000), ['""', LONG[1999], LONG[2001], LONG[5000]], [LONG[5001]]), (text(minLength=4100), [LONG[4100], LONG[5001]], [LONG[4099]]),
    (array(items=NULL, maxItems=3000), ["[null]", f"[{','.join(['null'] * 3000)}]"], [f"[{','.join(['null'] * 3001)}]"]),
    # formats
    (text(format="date"), ['"2024-02-29"', '"2023-12-31"'], ['"2023-02-29"', '"2023-04-31"', '"2023-13-01"', '"0000-01-01"']),
    (text(format="date-time"), ['"2024-02-29T12:30:00Z"', '"2024-01-01T00:00:00.123+02:00"'], ['"2024-02-29"', '"2024-02-30T00:00:00Z"']),
    (text(format="time"), ['"12:30:00Z"'], ['"25:00:00Z"']), (text(format="duration"), ['"P1DT2H"', '"PT5M"'], ['"1D"', '"P"', '"P1DT"']),
    (text(format="uuid"), ['"123e4567-e89b-12d3-a456-426614174000"'], ['"123"']), (text(format="email"), ['"a.b@c.de"'], ['"a@b"', '"x"']),
    (text(format="ipv4"), ['"10.0.0.255"'], ['"10.0.0.256"']), (text(format="ipv6"), ['"fe80::1"'], ['"fe80"']), (text(format="hostname"), ['"a-b.c"'], ['"-a"']),
    (text(format="uri", minLength=1, maxLength=2083), ['"https://a.de/b?c=d#e"'], ['"a"']), (text(format="password"), ['"x"'], ["1"]),
    # bounds
    (whole(minimum=3), ["3", "10", "99999"], ["2", "-3", "03"]), (whole(maximum=-5), ["-5", "-123"], ["-4", "-05", "-00", "0"]),
    (whole(minimum=-3, maximum=12), ["-3", "0", "7", "12"], ["-4", "13"]), (whole(minimum=5, exclusiveMinimum=7), ["8"], ["7", "6"]),
    (whole(minimum=1.5, maximum=3.5), ["2", "3"], ["1", "4"]), (whole(exclusiveMinimum=True, minimum=5), ["6"], ["5"]),
    (whole(minimum=-2**63, maximum=2**63 - 1), [str(2**63 - 1), str(-2**63)], [str(2**63), str(-2**63 - 1)]),
    (number(minimum=0, maximum=1), ["0", "1", "0.5", "0.999999", "1.0"], ["1.1", "-0.1", "1.000001", "1e5"]),
    (number(exclusiveMinimum=0), ["0.000001", "1", "99.5"], ["0", "0.0", "-1"]), (number(minimum=-1.25, maximum=2.5), ["-1.25", "0", "2.5"], ["-1.26", "2.51"]),
    (number(maximum=-0.5), ["-0.5", "-100.25"], ["-0.49", "0"]), (number(minimum=99.5, maximum=1000), ["99.5", "1000"], ["99.4", "1000.1"]),
    (number(multipleOf=0.01, minimum=0), ["1.25", "3"], ["1.255", "-1"]), (number(multipleOf=1), ["3"], ["3.5"]),
    (whole(multipleOf=10), ["0", "-120"], ["5", "101", "00"]), (whole(multipleOf=5, exclusiveMinimum=0), ["5", "15"], ["0", "-5", "7"]),
    (whole(multipleOf=7, minimum=0, maximum=30), ["0", "28"], ["8", "35", "-7"]),
    # const, enum, types
    ({**TEXT, "enum": ["a", 1, "b"]}, ['"a"', '"b"'], ["1", '"c"']), ({"enum": [1, 2, 3], "minimum": 2}, ["2", "3"], ["1"]),
    ({"const": 'a"b\\c\n'}, [r'"a\"b\\c\n"'], ['"a"']), ({"type": ["string", "null"], "maxLength": 2}, ['"ab"', "null"], ['"abc"', "1"]),
    (text(nullable=True, maxLength=2), ['"ab"', "null"], ['"abc"', "1"]), ({"minLength": 2}, ['"ab"'], ['"a"', "1"]),
    # objects
    (thing(required=["a"]), ['{"a":1}', '{"a":null,"b":2}'], ["{}", '{"b":1}']), (thing({"a": WHOLE}, required=["a", "b"]), ['{"a":1,"b":"x"}'], ['{"a":1}']),
    (thing({"a": False}), ["{}"], ['{"a":1}']), (thing({"a": NULL}, additionalProperties=False), ['{"a":null}'], ['{"b":1}']),
    (thing({"ab": WHOLE, "a]": NULL}, additionalProperties=TEXT), ['{"ab":1,"c":"x"}', '{"a":"x"}', '{"a]":null}'],
     ['{"ab":"x"}', r'{"\u0061b":"x"}', '{"a]":"x"}', '{"\\":"x"}']),
    (thing(patternProperties={"^x-": WHOLE}), ["{}", '{"x-a":1,"x-b":2}'], ['{"y":1}', '{"x-a":"s"}']),
    (thing(propertyNames={"enum": ["a", "b"]}, additionalProperties=WHOLE), ["{}", '{"a":1,"b":2}'], ['{"c":1}', '{"a":"x"}']),
    (thing(propertyNames={"pattern": "^[a-z]$"}), ['{"a":1}'], ['{"A":1}', '{"ab":1}']), (thing(minProperties=1), ['{"a":1}'], ["{}"]),
    (thing({"a": WHOLE, "b": WHOLE}, minProperties=1), ['{"a":1}', '{"b":1}'], ["{}"]),
    (thing(additionalProperties=WHOLE, maxProperties=2), ["{}", '{"a":1,"b":2}'], ['{"a":1,"b":2,"c":3}']),
    (thing(unevaluatedProperties=False), ["{}"], ['{"b":1}']),
    # a property may be called as a keyword is; data is no schema
    (thing({"default": pattern(r"^\d$")}, required=["default"]), ['{"default":"1"}'], ['{"default":"x"}']),
    (thing({"x": {**WHOLE, "default": {"pattern": 5, "not": 1}, "examples": [{"$ref": 3}]}}), ['{"x":1}'], ['{"x":"a"}']),
    (thing({"date_time": WHOLE, "at": text(format="date-time"), "integral_part": NULL, "n": NUMBER}, required=["at", "n"]),
     ['{"at":"2024-01-01T00:00:00Z","n":1.5}'], ['{"at":1,"n":1.5}', '{"at":"2024-01-01T00:00:00Z","n":null}']),
    # arrays
    (array(items=WHOLE, minItems=2, maxItems=3), ["[1,2]", "[1, 2, 3]"], ["[1]", "[1,2,3,4]", '[1,"a"]']), (array(items=False), ["[]"], ["[1]"]),
    (array(items=WHOLE, maxItems=0), ["[]"], ["[1]"]), (array(prefixItems=[WHOLE, TEXT]), ['[1,"a"]'], ['["a",1]']),
    (array(prefixItems=[WHOLE], items=TEXT, minItems=3), ['[1,"a","b"]'], ["[1,2,3]", "[1]"]),
    (array(items=[WHOLE], additionalItems=TEXT, minItems=2), ['[1,"a"]'], ["[1,2]"]), (array(uniqueItems=True, maxItems=1), ["[]", "[1]"], ["[1,1]"]),
    # references and combinations
    ({"$ref": "#/$defs/A", "$defs": {"A": TEXT}, "minLength": 3}, ['"abc"'], ['"ab"']), ({"$defs": {"a/b~c d": NULL}, "$ref": "#/$defs/a~1b~0c%20d"}, ["null"], ["1"]),
    ({"$defs": {"a_b": WHOLE, "a-b": NULL}, **thing({"x": {"$ref": "#/$defs/a_b"}, "y": {"$ref": "#/$defs/a-b"}}, required=["x", "y"])},
     ['{"x":1,"y":null}'], ['{"x":1,"y":1}']),
    (thing({"next": {"anyOf": [{"$ref": "#"}, NULL]}}, required=["next"]), ['{"next":{"next":null}}'], ['{"next":1}']),
    ({"anyOf": [WHOLE, TEXT], "minLength": 3, "minimum": 2}, ['"abc"', "2"], ['"ab"', "1"]), ({"oneOf": [WHOLE, TEXT]}, ["1", '"a"'], ["null"]),
    ({"oneOf": [thing({"k": {"const": "a"}, "x": WHOLE}, required=["k"]), thing({"k": {"const": "b"}}, required=["k"])]},
     ['{"k":"a","x":1}', '{"k":"b"}'], ['{"k":"c"}', '{"k":"b","x":1}']),
    ({"allOf": [thing({"a": WHOLE}, required=["a"]), {"properties": {"b": TEXT}, "required": ["b"]}]}, ['{"a":1,"b":"x"}'], ['{"a":1}', '{"b":"x"}']),
    ({"allOf": [{"minimum": 3}, {"maximum": 5}], **WHOLE}, ["3", "5"], ["2", "6"]),
]

# a schema, and words of its refusal
REFUSED = [
    (whole(multipleOf=12345), "multipleOf: got 12345"), (number(multipleOf=0.3), "multipleOf"), (array(uniqueItems=True), "uniqueItems"), ({"not": TEXT}, "not: got"),
    ({"if": {}, "then": TEXT}, "if: got"), (array(contains=WHOLE), "contains"), (thing({"a": {}}, dependentRequired={"a": ["b"]}), "dependentRequired"),
    (thing(dependentSchemas={"a": {}}), "dependentSchemas"), ({"dependencies": {"a": ["b"]}}, "dependencies"), ({"$dynamicRef": "#a"}, r"\$dynamicRef"),
    (thing({"a": {}}, patternProperties={"^x-": WHOLE}), "patternProperties"), (thing(minProperties=2), "minProperties"), (thing({"a": {}, "b": {}}, maxProperties=1), "maxProperties"),
    ({"oneOf": [WHOLE, NUMBER]}, "oneOf"), (text(min_length=3), "min_length: got 3, expected 'minLength'"), (pattern("^(?=a)b$"), "looking ahead"), (pattern(r"^(a)\1$"), "pattern"),
    (pattern("^[a-z]+(-[a-z]+)*$", maxLength=9), "maxLength"), (pattern("^[a-c]$", format="date"), "format"), (text(maxLength=10**9), "maxLength: got 1000000000"),
    (pattern("^a{1,30000}$"), "20000"), (thing({"tags": thing({"deep": array(uniqueItems=True)})}), "/properties/tags/properties/deep: uniqueItems"),
]

# no schema, or one that no value satisfies: leniency does not help
WRONG = [
    (pattern(5), "pattern: got 5"), (text(minLength="3"), "minLength: got \"3\""), ({"type": "foo"}, "type: got \"foo\""), ({"properties": 5}, "properties: got 5"),
    ({"required": "a"}, "required"), ({"enum": []}, "enum"), ({"anyOf": []}, "anyOf"), (number(minimum="1"), "minimum"), ({"items": 5}, "items"),
    ({"$ref": "http://x/y"}, r"\$ref"), ({"$ref": "#/nowhere"}, r"\$ref"), ({"$ref": "#"}, "leads back"),
    ({"$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}, NULL]}}, "$ref": "#/$defs/A"}, "leads back"),
    (text(minLength=5, maxLength=3), "no value satisfies"), (whole(minimum=5, maximum=3), "no value satisfies"), (array(minItems=2, maxItems=1), "no value satisfies"),
    ({"allOf": [TEXT, WHOLE]}, "no value satisfies"), (thing({"a": {}}, required=["b"], additionalProperties=False), "no value satisfies"),
]


@pytest.mark.parametrize(("schema", "satisfy", "fail"), KEPT, ids=lambda v: json.dumps(v)[:60] if isinstance(v, dict) else "")
def test_a_grammar_allows_what_satisfies_its_schema_only(schema, satisfy, fail):
    grammar = LlamaGrammar.from_json_schema(schema)
    assert [t for t in satisfy if not grammar.matches(t)] == []
    assert [t for t in fail if grammar.matches(t)] == []


@pytest.mark.parametrize(("schema", "words"), REFUSED, ids=lambda v: json.dumps(v)[:60] if isinstance(v, dict) else "")
def test_what_no_grammar_holds_is_refused_by_name_or_left_out_with_a_warning(schema, words, capfd):
    with pytest.raises(ValueError, match=f"json schema: #.*{words}.*lenient_schema"):
        LlamaGrammar.from_json_schema(schema)
    with pytest.warns(UserWarning, match=f"json schema: #.*{words}.*ignored"):
        LlamaGrammar.from_json_schema(schema, lenient=True)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("schema", "words"), WRONG, ids=lambda v: json.dumps(v)[:60] if isinstance(v, dict) else "")
@pytest.mark.parametrize("lenient", [False, True])
def test_what_is_no_schema_is_refused(schema, words, lenient):
    with pytest.raises(ValueError, match=f"json schema: .*{words}"):
        LlamaGrammar.from_json_schema(schema, lenient=lenient)


def test_leniency_drops_what_it_names_and_nothing_else():
    with pytest.warns(UserWarning, match="uniqueItems"):
        grammar = LlamaGrammar.from_json_schema(array(items=whole(minimum=3), uniqueItems=True), lenient=True)
    assert grammar.matches("[3,3]") and not grammar.matches("[2]")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LlamaGrammar.from_json_schema(whole(minimum=3), lenient=True)


@pytest.mark.parametrize("schema", [
    {"$defs": {f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(40)} | {"a40": TEXT}, "$ref": "#/$defs/a0"},
    {"allOf": [{"anyOf": [{"minimum": i}, {"maximum": -i}]} for i in range(1, 30)]},
    {"$defs": {"A": {**OBJECT, "anyOf": [{"$ref": "#/$defs/A"}, {"required": ["x"]}]}}, "$ref": "#/$defs/A"},
])
def test_schemas_that_combine_without_end_are_refused_soon(schema):
    began = time.monotonic()
    with pytest.raises(ValueError, match="json schema"):
        LlamaGrammar.from_json_schema(schema)
    assert time.monotonic() - began < 20


def test_annotations_are_accepted():
    notes = {"title": "t", "description": "d", "default": 1, "examples": [2], "deprecated": True, "readOnly": True, "$comment": "c", "x-own": 1,
             "$schema": "https://json-schema.org/draft/2020-12/schema", "contentEncoding": "base64", "format": "unknown", "propertyOrdering": ["a"]}
    assert LlamaGrammar.from_json_schema({**TEXT, **notes}).matches('"a"')


def test_what_pydantic_and_openai_emit_is_kept():
    pydantic = pytest.importorskip("pydantic")
    from typing import Annotated, Literal, Optional, Union

    class Cat(pydantic.BaseModel):
        kind: Literal["cat"]
        lives: int = pydantic.Field(ge=0, le=9)

    class Dog(pydantic.BaseModel):
        kind: Literal["dog"]
        code: Annotated[str, pydantic.Field(pattern=r"^\d{3}-\w+$", max_length=9)]

    class Home(pydantic.BaseModel):
        pet: Union[Cat, Dog] = pydantic.Field(discriminator="kind")
        share: Annotated[float, pydantic.Field(ge=0, le=1)]
        inner: Optional["Home"] = None

    cat = {"kind": "cat", "lives": 9}
    good = [{"pet": cat, "share": 0.25}, {"pet": {"kind": "dog", "code": "123-ab"}, "share": 1, "inner": {"pet": cat, "share": 0}}]
    bad = [{"pet": {"kind": "cat", "lives": 10}, "share": 0.5}, {"pet": {"kind": "dog", "code": "12-a"}, "share": 0.5}, {"pet": cat, "share": 1.5}, {"pet": cat}]
    grammar = LlamaGrammar.from_json_schema(Home.model_json_schema())
    assert [v for v in good if not grammar.matches(json.dumps(v))] == [] and [v for v in bad if grammar.matches(json.dumps(v))] == []
    openai = pytest.importorskip("openai")
    strict = LlamaGrammar.from_json_schema(openai.pydantic_function_tool(Home)["function"]["parameters"])
    assert strict.matches(json.dumps({**good[0], "inner": None})) and not strict.matches(json.dumps({**bad[2], "inner": None}))


# --- chats and tools -------------------------------------------------------------------------------------------------------

def ring(**parameters) -> dict:
    return {"type": "function", "function": {"name": "ring", "parameters": thing(parameters, required=list(parameters))}}


RING = ring(number=pattern(r"^\d\d$"), times=whole(minimum=2, maximum=4), share=number(minimum=0.5, maximum=0.75), who={"anyOf": [text(maxLength=3), NULL]})


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "ring"}}])
def test_parameters_of_tools_are_kept(tool_llm, choice, seed):
    answer = tool_llm.create_chat_completion(HELLO, tools=[RING], tool_choice=choice, logit_bias=END, seed=seed, temperature=1.0)
    call, = answer["choices"][0]["message"]["tool_calls"]  # one: parallel calls were not asked for
    found = json.loads(call["function"]["arguments"])
    assert len(found["number"]) == 2 and found["number"].isdigit() and 2 <= found["times"] <= 4 and 0.5 <= found["share"] <= 0.75
    assert found["who"] is None or len(found["who"]) <= 3


def test_a_tool_is_called_once_though_the_model_would_go_on(tool_llm):
    again = {t: 30.0 for t in tool_llm.tokenize(b"<tool_call>\n", special=True)}
    for choice in ("required", {"type": "function", "function": {"name": "ring"}}):
        answer = tool_llm.create_chat_completion(HELLO, tools=[ring(times=whole(minimum=2, maximum=4))], tool_choice=choice, logit_bias=again, max_tokens=200, temperature=0)
        assert len(answer["choices"][0]["message"]["tool_calls"]) == 1


def test_what_no_grammar_holds_is_refused_in_chats(tool_llm, capfd):
    tools, form = [ring(tags=array(uniqueItems=True, items=NULL, maxItems=2))], {"type": "json_object", "schema": array(uniqueItems=True, items=NULL, maxItems=2)}
    with pytest.raises(ValueError, match="create_chat_completion: .*tools: ring: #/properties/tags: uniqueItems"):
        tool_llm.create_chat_completion(HELLO, tools=tools)
    with pytest.raises(ValueError, match="#: uniqueItems"):
        tool_llm.create_chat_completion(HELLO, response_format=form)
    for asked in ({"tools": tools, "tool_choice": "required"}, {"response_format": form}):
        with pytest.warns(UserWarning, match="uniqueItems.*ignored"):
            tool_llm.create_chat_completion(HELLO, **asked, lenient_schema=True, max_tokens=3)
    assert capfd.readouterr() == ("", "")


def test_the_prompt_shows_the_schema_as_it_was_given(tool_llm):
    sizes = {tool_llm.create_chat_completion(HELLO, tools=[RING], tool_choice=c, max_tokens=1)["usage"]["prompt_tokens"] for c in ("none", "auto", "required")}
    assert len(sizes) == 1
