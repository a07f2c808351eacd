"""Keywords of objects."""

# ruff: noqa: E501 - rows of tables

import pytest

from tests.grammars.support import check, refused

INT, STR = {"type": "integer"}, {"type": "string"}
AB = {"properties": {"a": INT, "b": STR}}


@pytest.mark.parametrize(
    ("schema", "accepted", "rejected"),
    [
        (AB, ["{}", '{"a": 1}', '{"b": "x"}', '{"a": 1, "b": "x", "c": []}', '{"c": 1}'],
         ['{"a": "x"}', '{"b": "x", "a": 1}', '{"c": 1, "a": "x"}']),
        ({**AB, "additionalProperties": False}, ["{}", '{"a": 1, "b": ""}', '{"b": ""}'],
         ['{"c": 1}', '{"a": 1, "c": 1}', '{"b": "", "a": 1}']),
        ({**AB, "required": ["b"]}, ['{"b": ""}', '{"a": 1, "b": ""}', '{"b": "", "x": 1}'],
         ["{}", '{"a": 1}', '{"x": 1, "b": ""}']),
        ({**AB, "required": ["a", "b"], "additionalProperties": False}, ['{"a": 1, "b": ""}'],
         ['{"a": 1}', '{"b": ""}', "{}"]),
        ({"required": ["x", "y"]}, ['{"x": 1, "y": 2}', '{"x": 1, "y": 2, "z": 3}'], ['{"x": 1}']),
        ({**AB, "additionalProperties": INT}, ['{"c": 1}', '{"b": "", "c": 1}'],
         ['{"c": ""}', r'{"\u0061": 1}', '{"a": ""}']),
        ({"properties": {"a": False}}, ["{}", '{"b": 1}'], ['{"a": 1}']),
        ({"patternProperties": {"^x": INT}}, ["{}", '{"x1": 1}', '{"y": ""}'], ['{"x": ""}']),
        ({"patternProperties": {"^x": INT}, "additionalProperties": False}, ['{"x": 1, "xy": 2}'],
         ['{"y": 1}', '{"x": ""}']),
        ({"properties": {"xa": {"minimum": 5}}, "patternProperties": {"^x": INT, "a$": {"maximum": 9}}},
         ['{"xa": 7}', '{"xb": 70}', '{"ba": 3}', '{"b": ""}'], ['{"xa": 4}', '{"xa": 10}', '{"xza": 11}']),
        ({"propertyNames": {"pattern": "^[a-z]+$"}}, ["{}", '{"ab": 1}'], ['{"A": 1}', '{"": 1}']),
        ({"propertyNames": {"enum": ["a", "b"]}}, ['{"a": 1}', '{"b": 2}'], ['{"c": 1}']),
        ({"propertyNames": {"maxLength": 2}, **AB}, ['{"a": 1}', '{"xy": 1}'], ['{"xyz": 1}']),
        ({"propertyNames": False}, ["{}"], ['{"a": 1}']),
    ],
)  # fmt: skip
def test_properties(schema, accepted, rejected):
    check({"type": "object", **schema}, accepted, rejected, ["{"])


@pytest.mark.parametrize(
    ("schema", "accepted", "rejected"),
    [
        ({**AB, "minProperties": 1}, ['{"a": 1}', '{"c": 1}', '{"b": ""}'], ["{}"]),
        ({**AB, "minProperties": 2, "additionalProperties": False}, ['{"a": 1, "b": ""}'],
         ["{}", '{"a": 1}', '{"b": ""}']),
        ({**AB, "maxProperties": 1}, ["{}", '{"a": 1}', '{"c": 1}'], ['{"a": 1, "b": ""}', '{"a": 1, "c": 1}']),
        ({"minProperties": 2}, ['{"a": 1, "b": 2}', '{"x1": 1, "x2": 1}', '{"a": 1, "bc": 1}'],
         ['{"a": 1}', '{"a": 1, "a": 2}', "{}"]),
        ({"minProperties": 2, "maxProperties": 2}, ['{"a": 1, "b": 2}'], ['{"a": 1, "b": 2, "c": 3}']),
        ({"maxProperties": 0}, ["{}"], ['{"a": 1}']),
        ({**AB, "minProperties": 3}, ['{"a": 1, "b": "", "c": 1}', '{"a": 1, "c": 1, "d": 1}'],
         ['{"a": 1, "b": ""}', '{"a": 1, "c": 1, "c": 1}']),
        ({"not": {"maxProperties": 1}, "properties": {"a": INT}}, ['{"a": 1, "b": 1}'], ['{"a": 1}']),
    ],
)  # fmt: skip
def test_counts(schema, accepted, rejected):
    check({"type": "object", **schema}, accepted, rejected)


@pytest.mark.parametrize(
    ("schema", "accepted", "rejected"),
    [
        ({"dependentRequired": {"a": ["b"]}}, ["{}", '{"b": 1}', '{"a": 1, "b": 1}'], ['{"a": 1}']),
        ({"dependencies": {"a": ["b"]}}, ["{}", '{"b": 1}', '{"a": 1, "b": 1}'], ['{"a": 1}']),
        (
            {"dependentSchemas": {"a": {"properties": {"b": INT}, "required": ["b"]}}, **AB},
            ['{"b": "x"}', "{}"],
            ['{"a": 1}', '{"a": 1, "b": "x"}'],
        ),
        (
            {"dependencies": {"a": {"required": ["c"]}}, "properties": {"a": INT, "c": INT}},
            ['{"a": 1, "c": 2}', '{"c": 2}'],
            ['{"a": 1}'],
        ),
    ],
)
def test_dependencies(schema, accepted, rejected):
    if "dependencies" in schema:
        schema = {"$schema": "http://json-schema.org/draft-07/schema#", **schema}
    check({"type": "object", **schema}, accepted, rejected)


@pytest.mark.parametrize(
    ("schema", "accepted", "rejected"),
    [
        ({"not": {"required": ["a"]}}, ["{}", '{"b": 1}'], ['{"a": 1}', '{"b": 1, "a": 1}']),
        ({"not": {"properties": {"a": INT}}}, ['{"a": ""}'], ["{}", '{"a": 1}', '{"b": 1}']),
        (
            {"not": {"additionalProperties": INT}},
            ['{"x": ""}', '{"a": 1, "x": ""}'],
            ["{}", '{"x": 1}'],
        ),
        (
            {"not": {"patternProperties": {"^x": INT}}},
            ['{"x": ""}', '{"b": 1, "xy": ""}'],
            ['{"x": 1}', '{"y": ""}'],
        ),
        ({"not": {"propertyNames": {"maxLength": 1}}}, ['{"ab": 1}'], ["{}", '{"a": 1}']),
    ],
)
def test_negated(schema, accepted, rejected):
    check({"type": "object", **schema}, accepted, rejected)


def test_a_later_twin_cannot_undo_a_wanted_property():
    """In {"x": "", "x": 1} the second x counts, so the wanted one stands last."""
    check({"type": "object", "not": {"additionalProperties": INT}}, [], ['{"x": "", "x": 1}'])


def test_recursion_without_end_is_cut_away():
    endless = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}
    assert "no value" in refused(endless).reason
    tree = {"anyOf": [{"type": "null"}, {**endless}]}
    check(tree, ["null", '{"next": {"next": null}}'], ['{"next": 1}', "{}"])


def test_names_are_quoted():
    schema = {"type": "object", "properties": {'a"b\n': INT, "é": STR}, "required": ['a"b\n']}
    check(schema, [r'{"a\"b\n": 1, "é": ""}'], [r'{"a\"b\n": ""}', "{}"], [r'{"a\"b'])
