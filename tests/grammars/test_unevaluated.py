"""unevaluatedProperties and unevaluatedItems."""

# ruff: noqa: E501 - rows of tables

import pytest

from tests.grammars.support import check

INT, STR = {"type": "integer"}, {"type": "string"}
HAS_A = {"properties": {"a": INT}, "required": ["a"]}
HAS_B = {"properties": {"b": STR}, "required": ["b"]}


@pytest.mark.parametrize(
    ("schema", "accepted", "rejected"),
    [
        ({"properties": {"a": INT}}, ["{}", '{"a": 1}'], ['{"b": 1}']),
        ({"allOf": [{"properties": {"a": INT}}], "properties": {"b": STR}}, ['{"b": "", "a": 1}'],
         ['{"c": 1}']),
        ({"anyOf": [HAS_A, HAS_B]}, ['{"a": 1}', '{"b": ""}', '{"a": 1, "b": ""}'],
         ['{"a": 1, "b": 1}', '{"a": 1, "c": 1}']),
        ({"oneOf": [HAS_A, HAS_B]}, ['{"a": 1}', '{"b": ""}'], ['{"a": 1, "b": ""}']),
        ({"if": HAS_A, "then": {"properties": {"t": INT}}, "else": HAS_B},
         ['{"a": 1, "t": 1}', '{"b": ""}'], ['{"b": "", "t": 1}', '{"a": 1, "b": ""}']),
        ({"dependentSchemas": {"a": {"properties": {"b": INT}}}, "properties": {"a": INT}},
         ['{"a": 1, "b": 2}'], ['{"b": 2}']),
        ({"patternProperties": {"^x": INT}}, ['{"xa": 1}'], ['{"y": 1}']),
        ({"additionalProperties": INT}, ['{"q": 1}'], ['{"q": ""}']),
        ({"$ref": "#/$defs/a", "$defs": {"a": HAS_A}}, ['{"a": 1}'], ['{"a": 1, "b": 1}']),
        ({"anyOf": [HAS_A, True]}, ['{"a": 1}', "{}"], ['{"a": ""}', '{"b": 1}']),
    ],
)  # fmt: skip
def test_properties(schema, accepted, rejected):
    check({"type": "object", **schema, "unevaluatedProperties": False}, accepted, rejected)


@pytest.mark.parametrize(
    ("schema", "accepted", "rejected"),
    [
        ({"prefixItems": [INT]}, ["[]", "[1]"], ["[1, 2]"]),
        ({"allOf": [{"prefixItems": [INT, STR]}], "prefixItems": [True]}, ['[1, "a"]'], ['[1, "a", 1]']),
        ({"contains": STR}, ['["a"]', '["a", "b"]'], ["[]", '["a", 1]']),
        ({"items": INT}, ["[1, 2]"], ['["a"]']),
        ({"anyOf": [{"prefixItems": [True, {"const": 1}]}, {"prefixItems": [True]}]},
         ["[5]", "[5, 1]"], ["[5, 2]"]),
    ],
)  # fmt: skip
def test_items(schema, accepted, rejected):
    check({"type": "array", **schema, "unevaluatedItems": False}, accepted, rejected)


def test_a_schema_for_what_is_left():
    schema = {"type": "object", "properties": {"a": INT}, "unevaluatedProperties": STR}
    check(schema, ['{"a": 1, "b": ""}'], ['{"b": 1}'])
