"""Big bounds stay small: no nested optionals, no repetition over what llama.cpp takes."""

import re

import pytest

import grammars
from tests.grammars.support import DONE, Judges, dumps

PROPS = {f"property_{i}": {"type": "string"} for i in range(100)}
TOOLS = {
    "anyOf": [
        {
            "type": "object",
            "properties": {
                "name": {"const": f"tool_{t}"},
                "arguments": {
                    "type": "object",
                    "properties": {
                        f"argument_{t}_{i}": {
                            "type": "string",
                            "description": "what it is for " * 6,
                        }
                        for i in range(12)
                    },
                    "required": [f"argument_{t}_0"],
                },
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for t in range(60)
    ]
}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "maxLength": 10_000},
        {"type": "string", "minLength": 5_000, "maxLength": 10_000},
        {"type": "array", "items": {"type": "integer"}, "maxItems": 5_000},
        {"type": "object", "properties": PROPS},
        {"type": "object", "properties": PROPS, "additionalProperties": False},
        {"type": "object", "properties": PROPS, "maxProperties": 5, "additionalProperties": False},
        {"type": "string", "pattern": "^[a-z]{0,3000}$"},
    ],
)
def test_one_schema(schema):
    compiled = grammars.compile(schema)
    assert len(compiled.gbnf) < 64_000 and len(compiled.lark) < 64_000
    bounds = [
        int(n) for pair in re.findall(r"\{(\d+)(?:,(\d+))?\}", compiled.gbnf) for n in pair if n
    ]
    assert all(bound <= 2_000 for bound in bounds)


def test_sixty_tools():
    assert len(dumps(TOOLS["anyOf"][0])) > 1_500
    for tool in TOOLS["anyOf"]:
        assert len(grammars.compile(tool).gbnf) < 64_000


def test_sixty_tools_in_one_grammar():
    compiled = grammars.compile(TOOLS)
    assert len(compiled.gbnf) < 64_000 and len(compiled.lark) < 64_000
    judges = Judges(compiled)
    arguments = {"argument_7_0": "x", "argument_7_11": "y", "argument_7_12": 1, "argument_8_1": []}
    assert judges.judge(dumps({"name": "tool_7", "arguments": arguments})) == DONE
    others = {"argument_8_0": "x", "argument_7_0": 5, "argument_7": None}
    assert judges.judge(dumps({"name": "tool_8", "arguments": others})) == DONE
    for name, wrong in (("tool_7", {"argument_7_1": "y"}), ("tool_7", {"argument_7_0": 1})):
        assert judges.judge(dumps({"name": name, "arguments": wrong})) != DONE
    twice = '{"argument_7_0": "x", "argument_7_0": "y"}'
    assert judges.judge('{"name": "tool_7", "arguments": ' + twice + "}") != DONE


@pytest.mark.parametrize(("low", "high"), [(0, 10_000), (2_500, 2_501), (3_000, None), (0, 2_001)])
def test_factored_bounds_are_exact(low, high):
    schema = {"type": "string", "minLength": low} | ({} if high is None else {"maxLength": high})
    judges = Judges(grammars.compile(schema))
    ends = {low - 1: False, low: True, low + 7: high is None or low + 7 <= high}
    if high is not None:
        ends |= {high: True, high + 1: False, high - 1: high - 1 >= low}
    for length, wanted in ends.items():
        if length >= 0:
            assert (judges.judge('"' + "a" * length + '"') == DONE) == wanted, length


def test_helper_rules_do_not_take_each_others_names():
    """Rules made while printing live as long as their names."""
    props = {f"s{i}": {"type": "string", "maxLength": 2_001 + i} for i in range(6)}
    props |= {f"n{i}": {"type": "integer", "minimum": 0, "maximum": 65_535 + i} for i in range(12)}
    schema = {"type": "object", "properties": props, "required": list(props)}
    judges = Judges(grammars.compile(schema))
    value = {name: "x" if name[0] == "s" else 65_535 for name in props}
    assert judges.judge(dumps(value)) == DONE
    assert judges.judge(dumps(value | {"n0": 65_536})) != DONE
    assert judges.judge(dumps(value | {"n3": "x"})) != DONE


def test_a_hundred_optional_properties():
    judges = Judges(
        grammars.compile({"type": "object", "properties": PROPS, "additionalProperties": False})
    )
    for names in (["property_0"], ["property_3", "property_50", "property_99"], [], list(PROPS)):
        assert judges.judge(dumps(dict.fromkeys(names, "x"))) == DONE
    assert judges.judge('{"property_5": "", "property_4": ""}') != DONE
