"""Schemas as Pydantic, Zod, OpenAI's SDK and MCP servers emit them, none of them in the corpus."""

import pytest

from tests.grammars.support import check

NULL = {"type": "null"}
PET = {
    "$defs": {
        "Cat": {
            "type": "object",
            "properties": {
                "kind": {"const": "cat", "type": "string"},
                "lives": {"type": "integer"},
            },
            "required": ["kind", "lives"],
        },
        "Dog": {
            "type": "object",
            "properties": {"kind": {"const": "dog"}, "size": {"exclusiveMinimum": 0}},
            "required": ["kind", "size"],
        },
    },
    "discriminator": {"mapping": {"cat": "#/$defs/Cat"}, "propertyName": "kind"},
    "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}],
}
DECIMAL = {
    "anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"}]
}
COLOURS = {
    "$defs": {"Colour": {"enum": ["red", "blue"], "title": "Colour", "type": "string"}},
    "type": "object",
    "properties": {
        "one": {"anyOf": [{"$ref": "#/$defs/Colour"}, NULL], "default": None},
        "some": {"type": "array", "uniqueItems": True, "items": {"$ref": "#/$defs/Colour"}},
    },
}
ZOD_NESTED = {"anyOf": [{"anyOf": [{"not": {}}, {"type": "string"}]}, NULL]}
EITHER = {
    "type": "object",
    "properties": {"id": {"type": "integer"}, "name": {"type": "string"}},
    "anyOf": [{"required": ["id"]}, {"required": ["name"]}],
    "additionalProperties": False,
}
BY_KIND = {
    "type": "object",
    "properties": {"kind": {"enum": ["a", "b"]}, "x": {"type": "integer"}},
    "required": ["kind"],
    "additionalProperties": False,
    "allOf": [
        {"if": {"properties": {"kind": {"const": "a"}}}, "then": {"required": ["x"]}},
        {"if": {"properties": {"kind": {"const": "b"}}}, "then": {"properties": {"x": False}}},
    ],
}
OUTLINE = {
    "type": "object",
    "properties": {
        "title": {"type": ["string", "null"], "enum": ["top", None]},
        "parts": {"type": "array", "items": {"$ref": "#"}, "maxItems": 2},
    },
    "required": ["title", "parts"],
    "additionalProperties": False,
}
CODES = {"enum": [f"code-{n:04}" for n in range(1500)]}
WIDE = {
    "type": "object",
    "properties": {f"field_{n}": {"type": ["integer", "null"]} for n in range(120)},
    "required": ["field_77"],
    "additionalProperties": {"type": "boolean"},
}
MIXED = {"type": "array", "uniqueItems": True, "items": {"type": ["string", "object"]}}


@pytest.mark.parametrize(
    ("schema", "accepted", "rejected"),
    [
        (PET, ['{"kind": "cat", "lives": 9}', '{"kind": "dog", "size": 0.5}'],
         ['{"kind": "cat", "size": 1}', '{"kind": "dog", "size": 0}', '{"kind": "cow"}']),
        (DECIMAL, ["1.5", '"+00.10"', '"7"'], ['""', '"-"', '".."', '"1.2.3"']),
        (COLOURS, ["{}", '{"one": null, "some": ["blue", "red"]}', '{"other": [1]}'],
         ['{"one": "green"}', '{"some": ["red", "red"]}', '{"other": 1, "one": 1}']),
        (ZOD_NESTED, ["null", '"x"'], ["1", "{}"]),
        (EITHER, ['{"id": 1}', '{"name": "x"}', '{"id": 1, "name": "x"}'], ["{}", '{"x": 1}']),
        (BY_KIND, ['{"kind": "a", "x": 1}', '{"kind": "b"}'],
         ['{"kind": "a"}', '{"kind": "b", "x": 1}']),
        (OUTLINE, ['{"title": null, "parts": [{"title": "top", "parts": []}]}'],
         ['{"title": "low", "parts": []}', '{"title": null, "parts": [null]}']),
        (CODES, ['"code-0000"', '"code-1499"'], ['"code-1500"', '"code-"', '""']),
        (WIDE, ['{"field_77": null}', '{"field_3": 1, "field_77": 2, "more": true}'],
         ['{"field_3": 1}', '{"field_77": 2, "more": 1}', '{"field_77": true}']),
        (MIXED, ["[]", "[{}]", '["a", "b"]', '["a", {}]', '["x", "yy", {"k": []}]'],
         ['["a", "a"]', "[{}, {}]", '["a", {}, {}]', '["a", "b", "a"]', "[1]"]),
    ],
)  # fmt: skip
def test_generated_schemas(schema, accepted, rejected):
    check(schema, accepted, rejected)
