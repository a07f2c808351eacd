"""What is no schema, what is too much, and that every refusal says where."""

# ruff: noqa: E501 - rows of tables

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import grammars
from grammars import InvalidSchema, LimitExceeded, Limits, metaschema
from tests.grammars.support import refused


@pytest.mark.parametrize(
    ("schema", "path", "keyword"),
    [
        ({"type": "strin"}, "$", "type"),
        ({"properties": {"a": {"minLength": -1}}}, "$.properties.a", "minLength"),
        ({"properties": {"a b": {"pattern": 3}}}, "$.properties['a b']", "pattern"),
        ({"items": {"anyOf": []}}, "$.items", "anyOf"),
        ({"required": ["a", "a"]}, "$", "required"),
        ({"multipleOf": 0}, "$", "multipleOf"),
        ({"allOf": [{"properties": []}]}, "$.allOf[0]", "properties"),
        ([], "$", ""),
        (None, "$", ""),
        ({1: 2}, "$", ""),
        ({"$ref": "#/x", "x": {"type": 1}}, "$.x", "type"),
    ],
)
def test_no_schema(schema, path, keyword):
    error = refused(schema, keyword, InvalidSchema)
    assert error.path == path


@pytest.mark.parametrize(
    ("schema", "path", "keyword"),
    [
        (
            {"properties": {"a": {"type": "string", "pattern": r"(a)\1"}}},
            "$.properties.a",
            "pattern",
        ),
        ({"patternProperties": {"(": {}}}, "$", "pattern"),
        ({"items": {"enum": [float("inf")]}, "type": "array"}, "$.items", ""),
        ({"const": "\ud800"}, "$", ""),
        ({"$schema": "http://json-schema.org/draft-03/schema#"}, "$", "$schema"),
        ({"items": {"$ref": "#", "$id": "http://x/y"}}, "$", "$id"),
        ({"properties": {"\udfff": True}, "required": ["\udfff"], "type": "object"}, "$", ""),
    ],
)
def test_not_enforceable(schema, path, keyword):
    assert refused(schema, keyword).path == path


def _chain(length):
    defs = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(length)}
    return {"$ref": "#/$defs/d0", "$defs": {**defs, f"d{length}": {"type": "null"}}}


def _nested(depth):
    schema = {"type": "null"}
    for _ in range(depth):
        schema = {"not": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "limit"),
    [
        (_nested(5000), "schema_depth"),
        (_chain(500), "schema_depth"),
        ({"enum": list(range(200_000))}, "schema_nodes"),
        ({"type": "string", "not": {"pattern": "^(a|b)*a(a|b){14}$"}}, "states"),
        ({"type": "number", "multipleOf": 7919, "minimum": 0.5}, "states"),
        ({"const": 10**2000}, "states"),
        ({"type": "string", "pattern": "a" * 10_000}, "pattern_length"),
        ({"anyOf": [{"required": [f"p{i}"]} for i in range(12)],
          "allOf": [{"anyOf": [{"required": [f"q{i}"]} for i in range(30)]}]}, "alternatives"),
    ],
)  # fmt: skip
def test_limits_are_named(schema, limit):
    error = refused(schema, kind=LimitExceeded)
    assert error.limit == limit and limit in str(error)


def test_time_and_text_are_bounded():
    schema = {"type": "object", "properties": {f"p{i}": {"type": "integer"} for i in range(50)}}
    with pytest.raises(LimitExceeded, match="seconds"):
        grammars.compile(schema, Limits(seconds=0))
    with pytest.raises(LimitExceeded, match="text_bytes"):
        grammars.compile(schema, Limits(text_bytes=500))


def test_a_shallow_chain_of_references_is_no_problem():
    assert "null" in grammars.compile_schema(_chain(60))


KEYWORDS = st.sampled_from([
    "type", "enum", "const", "properties", "required", "items", "prefixItems", "minLength",
    "maxLength", "pattern", "minimum", "multipleOf", "anyOf", "not", "if", "additionalProperties",
    "patternProperties", "dependentRequired", "uniqueItems", "minItems", "contains", "$defs",
    "propertyNames", "title", "format",
])  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 2.0, "a", "string", "^x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYWORDS, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(KEYWORDS, VALUES, max_size=4))
def test_the_table_of_shapes_agrees_with_the_meta_schema(schema):
    """Apart from forms of older drafts, which the table accepts and 2020-12 does not."""
    try:
        metaschema.check(schema, lambda _: "$", set())
    except InvalidSchema:
        drafts = (jsonschema.Draft202012Validator, jsonschema.Draft7Validator)
        assert not all(d(d.META_SCHEMA).is_valid(schema) for d in drafts)
    else:
        old = (jsonschema.Draft202012Validator, jsonschema.Draft7Validator)
        assert any(d(d.META_SCHEMA).is_valid(schema) for d in old)
