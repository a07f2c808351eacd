"""Keywords of arrays."""

# ruff: noqa: E501 - rows of tables

import pytest

from tests.grammars.support import check, refused

INT, STR = {"type": "integer"}, {"type": "string"}


@pytest.mark.parametrize(
    ("schema", "accepted", "rejected"),
    [
        ({"items": INT}, ["[]", "[1]", "[1, 2]"], ['["a"]', "[1, null]"]),
        ({"items": False}, ["[]"], ["[1]"]),
        ({"items": INT, "minItems": 2}, ["[1, 2]", "[1, 2, 3]"], ["[]", "[1]"]),
        ({"items": INT, "maxItems": 2}, ["[]", "[1, 2]"], ["[1, 2, 3]"]),
        ({"items": INT, "minItems": 1, "maxItems": 1}, ["[1]"], ["[]", "[1, 1]"]),
        ({"maxItems": 0}, ["[]"], ["[1]"]),
        ({"prefixItems": [INT, STR]}, ["[]", "[1]", '[1, "a"]', '[1, "a", null]'], ['["a"]', "[1, 1]"]),
        ({"prefixItems": [INT, STR], "items": False}, ["[]", '[1, "a"]'], ['[1, "a", 1]']),
        ({"prefixItems": [INT, STR], "items": INT, "minItems": 3}, ['[1, "a", 2]'], ['[1, "a"]']),
        ({"prefixItems": [INT], "items": STR, "maxItems": 2}, ["[1]", '[1, "a"]'], ['[1, "a", "b"]']),
        ({"prefixItems": [INT, False, STR]}, ["[]", "[1]"], ['[1, 1]']),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "items": [INT, STR],
          "additionalItems": {"type": "null"}}, ["[1]", '[1, "a", null]'], ['[1, "a", 1]']),
        ({"contains": INT}, ["[1]", '["a", 1]', '[1, "a"]'], ["[]", '["a"]']),
        ({"contains": INT, "maxContains": 1}, ["[1]", '["a", 1]'], ["[1, 2]", "[]"]),
        ({"contains": INT, "minContains": 2, "maxItems": 3}, ["[1, 2]", '[1, "a", 2]'],
         ["[1]", '[1, "a", "b", 2]']),
        ({"contains": INT, "minContains": 0}, ["[]", '["a"]', "[1]"], []),
        ({"items": {"type": ["integer", "string"]}, "contains": {"const": 5}, "maxContains": 1},
         ["[5]", '["a", 5, 6]'], ["[6]", "[5, 5]"]),
        ({"not": {"contains": INT}}, ["[]", '["a"]'], ["[1]", '["a", 1]']),
        ({"not": {"items": INT}}, ['["a"]', '[1, "a"]'], ["[]", "[1]"]),
        ({"not": {"minItems": 2}}, ["[]", "[1]"], ["[1, 2]"]),
        ({"not": {"prefixItems": [INT]}}, ['["a"]'], ["[]", "[1]"]),
    ],
)  # fmt: skip
def test_items(schema, accepted, rejected):
    check({"type": "array", **schema}, accepted, rejected, ["["])


@pytest.mark.parametrize(
    ("schema", "accepted", "rejected"),
    [
        ({"items": {"enum": [1, 2, 3]}}, ["[]", "[3, 1]", "[2, 1, 3]"], ["[1, 1]", "[1, 2, 1]"]),
        ({"items": {"type": "boolean"}, "minItems": 2}, ["[true, false]", "[false, true]"],
         ["[true]", "[true, true]"]),
        ({"items": {"enum": list("abcdefgh")}}, ['["a", "c", "h"]'], ['["a", "a"]']),
        ({"items": STR}, ["[]", '["a"]', '["a", "b"]', '["x1", "x2"]', '["a", "bc"]'],
         ['["a", "a"]', '["a", "b", "a"]', r'["a", "\u0061"]']),
        ({"items": INT, "minItems": 2}, ["[1, 2]", "[5, 12]"], ["[1]", "[1, 1]", "[2, 1, 2]"]),
        ({"prefixItems": [{"type": "boolean"}, {"type": "boolean"}]},
         ["[true, false]", "[true]", '[false, true, "a", "b"]'], ["[true, true]", "[false, false, 1]"]),
        ({}, ["[]", '[null, 1, "a"]'], ["[1, 1]", "[null, null]", "[{}, {}]", "[[], []]"]),
        ({"items": {"type": "object", "properties": {"id": STR}, "required": ["id"]}},
         ['[{"id": "a"}]', '[{"id": "a"}, {"id": "z"}]'], ['[{"id": "a"}, {"id": "a"}]']),
    ],
)  # fmt: skip
def test_unique_items(schema, accepted, rejected):
    check({"type": "array", "uniqueItems": True, **schema}, accepted, rejected)


def test_what_unique_items_cannot_tell_apart_is_refused():
    refused({"not": {"type": "array", "uniqueItems": True}}, "uniqueItems")
    refused({"type": "array", "uniqueItems": True, "contains": INT}, "uniqueItems")
