"""allOf, anyOf, oneOf, not, if/then/else, references."""

# ruff: noqa: E501 - rows of tables

import pytest

from tests.grammars.support import check, refused

INT, STR, NULL = {"type": "integer"}, {"type": "string"}, {"type": "null"}


def obj(**props):
    return {"type": "object", "properties": props, "required": list(props)}


CAT = obj(kind={"const": "cat"}, lives=INT)
DOG = obj(kind={"const": "dog"}, name=STR)


@pytest.mark.parametrize(
    ("schema", "accepted", "rejected"),
    [
        ({"allOf": [{"minimum": 3}, {"maximum": 5}], "type": "integer"}, ["3", "5"], ["2", "6"]),
        ({"allOf": [obj(a=INT), obj(b=STR)]}, ['{"a": 1, "b": ""}'], ['{"a": 1}', '{"b": ""}']),
        ({"allOf": [obj(a=INT), {"properties": {"a": {"minimum": 5}}}]}, ['{"a": 5}'], ['{"a": 4}']),
        ({"anyOf": [INT, STR]}, ["1", '"a"'], ["null", "1.5"]),
        ({"anyOf": [obj(a=INT), obj(b=STR)]}, ['{"a": 1}', '{"b": ""}', '{"a": 1, "b": 2}'], ["{}"]),
        ({"anyOf": [CAT, DOG]}, ['{"kind": "cat", "lives": 9}', '{"kind": "dog", "name": "x"}'],
         ['{"kind": "cat", "name": "x"}', '{"kind": "cow"}']),
        ({"oneOf": [INT, NULL]}, ["1", "null"], ['"x"']),
        ({"oneOf": [CAT, DOG]}, ['{"kind": "cat", "lives": 9}'], ['{"kind": "dog", "lives": 9}']),
        ({"oneOf": [{"multipleOf": 2}, {"multipleOf": 3}], "type": "integer"}, ["2", "3", "9"],
         ["6", "12", "5"]),
        ({"oneOf": [{"required": ["a"]}, {"required": ["b"]}], "type": "object"},
         ['{"a": 1}', '{"b": 1}', '{"a": 1, "c": 2}'], ["{}", '{"a": 1, "b": 1}']),
        ({"oneOf": [{"pattern": "^a"}, {"pattern": "b$"}], "type": "string"}, ['"a"', '"xb"'],
         ['"ab"', '"c"']),
        ({"oneOf": [{"type": "number"}, INT]}, ["1.5"], ["1", '"x"']),
        ({"not": INT}, ["1.5", '"a"', "null", "[]"], ["1", "-3"]),
        ({"not": {"type": ["integer", "object"]}}, ['"a"', "[]"], ["1", "{}"]),
        ({"not": {"not": INT}}, ["1"], ['"a"']),
        ({"not": {"anyOf": [STR, NULL]}}, ["1", "[]"], ["null", '"a"']),
        ({"not": {"enum": [1, "a", None]}}, ["2", '"b"'], ["1", '"a"', "null"]),
        ({"type": "integer", "if": {"minimum": 10}, "then": {"multipleOf": 5}, "else": {"maximum": 3}},
         ["10", "15", "3", "-9"], ["11", "4", "9"]),
        ({**obj(k={"enum": ["a", "b"]}), "if": {"properties": {"k": {"const": "a"}}},
          "then": {"required": ["x"]}}, ['{"k": "b"}', '{"k": "a", "x": 1}'], ['{"k": "a"}']),
        ({"if": {"type": "string"}, "then": {"maxLength": 1}}, ['"a"', "5"], ['"ab"']),
        ({"if": INT}, ["1", '"a"'], []),
    ],
)  # fmt: skip
def test_combined(schema, accepted, rejected):
    check(schema, accepted, rejected)


@pytest.mark.parametrize(
    ("schema", "accepted", "rejected"),
    [
        ({"$defs": {"n": INT}, "items": {"$ref": "#/$defs/n"}, "type": "array"}, ["[1]"], ['["a"]']),
        ({"$defs": {"a/b%~": INT}, "$ref": "#/$defs/a~1b%25~0"}, ["1"], ['"a"']),
        ({"$ref": "#/$defs/n", "maximum": 5, "$defs": {"n": INT}}, ["5"], ["6", "1.5"]),
        ({"type": "object", "properties": {"c": {"type": "array", "items": {"$ref": "#"}}},
          "additionalProperties": False}, ["{}", '{"c": [{"c": []}, {}]}'], ['{"c": [1]}']),
        ({"$id": "http://x/root", "$defs": {"n": {"$anchor": "num", **INT}}, "$ref": "#num"},
         ["1"], ['"a"']),
        ({"$id": "http://x/a/root", "$defs": {"n": {"$id": "leaf", **INT}}, "$ref": "leaf"},
         ["1"], ['"a"']),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"n": INT},
          "properties": {"a": {"$ref": "#/definitions/n", "maximum": 5}}}, ['{"a": 6}'], ['{"a": ""}']),
        ({"allOf": [{"$ref": "#/$defs/t"}, {"required": ["v"]}],
          "$defs": {"t": {"type": "object", "properties": {"v": INT, "t": {"$ref": "#/$defs/t"}},
                          "additionalProperties": False}}},
         ['{"v": 1, "t": {"t": {}}}'], ["{}", '{"v": 1, "w": 1}', '{"v": 1, "t": {"w": 1}}']),
    ],
)  # fmt: skip
def test_references(schema, accepted, rejected):
    check(schema, accepted, rejected)


def test_a_dynamic_reference_sees_who_extends_it():
    tree = {
        "$id": "http://x/tree",
        "$dynamicAnchor": "node",
        "type": "object",
        "properties": {
            "data": True,
            "children": {"type": "array", "items": {"$dynamicRef": "#node"}},
        },
    }
    strict = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "http://x/strict",
        "$dynamicAnchor": "node",
        "$ref": "tree",
        "unevaluatedProperties": False,
        "$defs": {"tree": tree},
    }
    check(strict, ['{"children": [{"data": 1}]}'], ['{"children": [{"daat": 1}]}', '{"x": 1}'])


@pytest.mark.parametrize("schema", [{"$ref": "#"}, {"anyOf": [INT, {"not": {"$ref": "#"}}]}])
def test_a_reference_without_meaning_is_refused(schema):
    refused(schema)


def test_references_that_lead_nowhere_are_named():
    assert refused({"items": {"$ref": "#/nope"}, "type": "array"}, "$ref").path == "$.items"
    refused({"$ref": "http://example.com/other.json"}, "$ref")
