"""Types, enum, const, numbers and strings."""

# ruff: noqa: E501 - rows of tables

import pytest

from tests.grammars.support import check, refused

BIG = 2**53


@pytest.mark.parametrize(
    ("schema", "accepted", "rejected", "incomplete"),
    [
        ({"type": "null"}, ["null"], ["true", "nul", "null "], ["", "nul"]),
        ({"type": "boolean"}, ["true", "false"], ["1", "tru", "True"], ["t"]),
        ({"type": "integer"}, ["0", "-7", "120"], ["01", "1.0", "1e2", "-", "+1"], ["-"]),
        ({"type": "number"}, ["0", "-7.5", "1e5", "1E+5", "0.10"], [".5", "1.", "00"], ["1.", "1e"]),
        ({"type": "string"}, ['""', '"a"', r'"\n"', r'"\u00e9"', '"é😀"'], ["a", '"\n"', r'"\x"'], ['"a']),
        ({"type": "array"}, ["[]", "[1, [2]]"], ["[1,2]", "[1, ]", "[ ]"], ["[", "[1, "]),
        ({"type": "object"}, ["{}", '{"a": {"b": 1}}'], ['{"a":1}', '{"a": 1,}'], ['{"a": ']),
        ({"type": ["string", "null"]}, ['"x"', "null"], ["1"], ['"']),
        (True, ["1", "[]", '{"a": null}'], ["nope"], [""]),
        ({}, ["1", '"x"'], [], []),
        ({"enum": [1, "a", None, [1], {"b": True}]}, ["1", '"a"', "null", "[1]", '{"b": true}'],
         ["2", '"b"', "[2]", "[]", '{"b": false}', "{}"], ["[", '{"b": ']),
        ({"enum": [1, 10, 100]}, ["1", "10", "100"], ["0", "11", "1000"], [""]),
        ({"const": 1.5}, ["1.5"], ["1.50", "1"], ["1."]),
        ({"const": {"a": [1, {"b": None}]}}, ['{"a": [1, {"b": null}]}'], ['{"a": [1]}'], ['{"a"']),
        ({"type": "integer", "enum": [1, 2.5, "x", 3.0]}, ["1", "3"], ["2.5", '"x"'], []),
        ({"enum": ["é", 'q"', "\n"]}, ['"é"', r'"q\""', r'"\n"'], ['"q"'], ['"q']),
    ],
)  # fmt: skip
def test_types_and_values(schema, accepted, rejected, incomplete):
    check(schema, accepted, rejected, incomplete)


@pytest.mark.parametrize(
    ("schema", "accepted", "rejected"),
    [
        ({"type": "integer", "minimum": 3}, ["3", "10", "99999"], ["2", "-3", "0", "03"]),
        ({"type": "integer", "maximum": -3}, ["-3", "-10"], ["-2", "0", "3"]),
        ({"type": "integer", "exclusiveMinimum": 3, "maximum": 12}, ["4", "12"], ["3", "13", "40"]),
        ({"type": "integer", "minimum": -5, "maximum": 5}, ["-5", "0", "5"], ["-6", "6", "-0"]),
        ({"type": "number", "minimum": 0.5, "exclusiveMaximum": 2}, ["0.5", "1.99", "0.50"],
         ["0.49", "2", "2.0", "-1", "0.4999"]),
        ({"type": "number", "exclusiveMinimum": -1.5}, ["-1.4", "0", "7"], ["-1.5", "-1.50", "-2"]),
        ({"type": "integer", "multipleOf": 7}, ["0", "-14", "77"], ["8", "70.5"]),
        ({"type": "number", "multipleOf": 0.25}, ["0.25", "1.5", "-3"], ["0.3", "0.255"]),
        ({"type": "integer", "multipleOf": 6, "minimum": 10, "maximum": 30}, ["12", "30"],
         ["10", "6", "36"]),
        ({"multipleOf": 3, "allOf": [{"multipleOf": 2}]}, ["6", "12", '"x"'], ["3", "4"]),
        ({"type": "integer", "maximum": BIG}, [str(BIG), "0"], [str(BIG + 1), str(BIG * 10)]),
        ({"type": "number", "not": {"type": "integer"}}, ["1.5", "-0.1"], ["1", "2.0", "-0.0"]),
        ({"type": "integer", "not": {"const": 5}}, ["4", "55"], ["5"]),
        ({"type": "integer", "not": {"minimum": 3, "maximum": 8}}, ["2", "9"], ["3", "8", "5"]),
    ],
)  # fmt: skip
def test_numbers(schema, accepted, rejected):
    check(schema, accepted, rejected, [""])


@pytest.mark.parametrize(
    ("schema", "accepted", "rejected"),
    [
        ({"minLength": 2, "type": "string"}, ['"ab"', '"éè"', r'"\u0041b"'], ['"a"', '""', '"😀"']),
        ({"maxLength": 1, "type": "string"}, ['""', '"😀"', r'"\ud83d\ude00"'], ['"ab"', r'"\ud83d"']),
        ({"type": "string", "pattern": "b+"}, ['"b"', '"abbc"'], ['"a"', '""']),
        ({"type": "string", "pattern": "^a"}, ['"a"', '"ab"'], ['"ba"']),
        ({"type": "string", "pattern": "^a$|^b"}, ['"a"', '"bx"'], ['"ax"']),
        ({"type": "string", "pattern": "^a*$", "maxLength": 3}, ['"aaa"', '""'], ['"aaaa"', '"b"']),
        ({"type": "string", "pattern": "^(ab)*$", "minLength": 3, "maxLength": 5}, ['"abab"'],
         ['"ab"', '"ababab"', '"aba"']),
        ({"type": "string", "pattern": "^[^\"]+$"}, ['"a"', r'"\n"', r'"\\"'], [r'"\""', '""']),
        ({"type": "string", "allOf": [{"pattern": "a"}, {"pattern": "b"}]}, ['"ab"', '"xbya"'],
         ['"a"', '"b"']),
        ({"type": "string", "not": {"pattern": "^a"}}, ['"b"', '""'], ['"a"', '"ab"']),
        ({"type": "string", "not": {"enum": ["a", "ab"]}}, ['"b"', '"abc"', '""'], ['"a"', '"ab"']),
        ({"type": "string", "enum": ["ab", "b", "abc"], "pattern": "^a", "minLength": 3}, ['"abc"'],
         ['"ab"', '"b"']),
        ({"pattern": "^a$"}, ['"a"', "1", "[]"], ['"b"']),
    ],
)  # fmt: skip
def test_strings(schema, accepted, rejected):
    check(schema, accepted, rejected)


@pytest.mark.parametrize(
    "schema",
    [
        False,
        {"enum": []},
        {"type": "integer", "minimum": 3, "maximum": 2},
        {"type": "integer", "minimum": 3.1, "maximum": 3.9},
        {"type": "string", "minLength": 3, "maxLength": 2},
        {"type": "string", "pattern": "^a$", "minLength": 2},
        {"type": "string", "const": 5},
        {"allOf": [{"type": "string"}, {"type": "null"}]},
        {"type": "integer", "multipleOf": 2, "not": {"multipleOf": 2}},
    ],
)
def test_what_nothing_satisfies_is_refused(schema):
    assert "no value" in refused(schema).reason


def test_minus_zero_is_zero():
    check({"type": "number", "not": {"const": 0}}, ["1"], ["0", "-0", "-0.0", "0.00"])
    check({"type": "number", "exclusiveMaximum": 0}, ["-1"], ["-0", "-0.0"])
