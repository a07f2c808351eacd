"""Schemas, patterns and grammars nobody would write who meant well."""

# ruff: noqa: E501 - rows of tables

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from tests.grammars.test_properties import RandomSchemas

Json = Any


def nested(depth: int, wrap: Callable[[Json], Json]) -> Json:
    inner: Json = {"type": "string"}
    for _ in range(depth):
        inner = wrap(inner)
    return inner


def chain(length: int) -> Json:
    steps = {f"a{i}": {"$ref": f"#/$defs/a{i + 1}"} for i in range(length)}
    return {"$defs": steps | {f"a{length}": {"type": "string"}}, "$ref": "#/$defs/a0"}


def names(count: int, prefix: str = "p") -> list[str]:
    return [f"{prefix}{i}" for i in range(count)]


BOMBS: dict[str, Callable[[], Json]] = {
    "deep": lambda: nested(50_000, lambda s: {"not": s}),
    "deep within limits": lambda: nested(98, lambda s: {"not": s}),
    "deep oneOf": lambda: nested(14, lambda s: {"oneOf": [s, {"type": "integer"}, {"properties": {"a": s}}]}),
    "deep if": lambda: nested(20, lambda s: {"if": s, "then": {"minLength": 2}, "else": {"type": "integer"}}),
    "references": lambda: chain(5_000),
    "own meaning": lambda: {"$defs": {"a": {"not": {"$ref": "#/$defs/b"}}, "b": {"not": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"},
    "endless": lambda: {"properties": {"a": {"$ref": "#"}}, "required": ["a"], "type": "object"},
    "long reference": lambda: {"$ref": "#" + "/a" * 50_000},
    "odd reference": lambda: {"$ref": "http://[::", "$id": "%%%"},
    "many properties": lambda: {"type": "object", "properties": dict.fromkeys(names(10_000), True)},
    "many required": lambda: {"type": "object", "required": names(10_000)},
    "many values": lambda: {"enum": names(20_000)},
    "all values but many": lambda: {"type": "string", "not": {"enum": names(20_000)}},
    "all numbers but many": lambda: {"type": "number", "not": {"enum": list(range(5_000))}},
    "all integers but many": lambda: {"type": "integer", "not": {"enum": list(range(3_000))}},
    "huge number": lambda: {"type": "number", "minimum": -(10**1_000), "maximum": 10**1_000},
    "tiny step": lambda: {"type": "number", "multipleOf": 5e-324, "minimum": 0},
    "many steps": lambda: {"allOf": [{"multipleOf": p} for p in (2, 3, 5, 7, 11, 13, 17, 19)]},
    "huge bounds": lambda: {"type": "string", "minLength": 10**18, "maxLength": 10**19},
    "huge array": lambda: {"type": "array", "items": {"type": "integer"}, "minItems": 10**6, "maxItems": 10**9},
    "many contains": lambda: {"type": "array", "allOf": [{"contains": {"const": i}} for i in range(10)]},
    "unique": lambda: {"type": "array", "uniqueItems": True, "items": {"type": "string", "pattern": "^([a-z]{1,40}-){1,40}x$", "maxLength": 300}},
    "many properties at least": lambda: {"type": "object", "minProperties": 200, "properties": dict.fromkeys(names(200), True)},
    "clauses": lambda: {"allOf": [{"anyOf": [{"required": [f"a{i}"]}, {"required": [f"b{i}"]}]} for i in range(30)]},
    "clauses denied": lambda: {"not": {"allOf": [{"anyOf": [{"required": [f"a{i}"]}, {"required": [f"b{i}"]}]} for i in range(12)]}},
    "dependencies": lambda: {"dependentSchemas": {f"a{i}": {"required": [f"b{i}"]} for i in range(14)}},
    "unevaluated": lambda: {"anyOf": [{"properties": {n: {"type": "string"}}, "required": [n]} for n in names(12)], "unevaluatedProperties": False},
    "overlapping patterns": lambda: {"patternProperties": {f"a{{{i}}}": {"minimum": i} for i in range(40)}, "additionalProperties": False},
    "long name": lambda: {"properties": {"x" * 10**6: {"type": "string"}}},
    "long name beside others": lambda: {"type": "object", "properties": {"z" * 5_000: {}}, "patternProperties": {"^z": {"type": "integer"}}},
    "surrogates": lambda: {"properties": {"\ud800": {"const": "\udfff"}}, "required": ["\ud800"]},
    "surrogate patterns": lambda: {"patternProperties": {"^\ud800$": {}}, "format": "\ud800", "$anchor": "\ud800"},
    "infinite": lambda: {"enum": [float("-inf"), float("nan")], "default": float("nan")},
    "formats together": lambda: {"type": "string", "allOf": [{"format": f} for f in ("uri", "email", "iri", "regex")]},
    "no format": lambda: {"type": "string", "not": {"anyOf": [{"format": f} for f in ("uri", "email", "hostname", "regex")]}},
}  # fmt: skip

PATTERN_BOMBS = {
    "backtracking": "(a+)+$",
    "nested counts": "((a{1,100}){1,100}){1,100}",
    "many places": "(a|b|c|d|e|f){1000}",
    "far from the end": "(a|b)*a(a|b){20}",
    "lookaheads": "".join(f"(?=.*{c})" for c in "abcdefghijklmnop") + ".*",
    "negative lookaheads": "".join(f"(?!.*{c}{c})" for c in "abcdefghijklmnop") + ".*",
    "lookbehind": "(?<=a.*b.*c.*)d",
    "boundaries": r"(\b|\B)*" * 50,
    "properties": r"\P{L}" * 600,
    "classes": "".join(rf"[\p{{L}}{chr(0x100 + i)}]" for i in range(400)),
    "groups": "(" * 3_000,
    "stars": "(a*)*" * 200,
    "options": "(a?){300}a{300}",
    "long": "a" * 6_000,
    "empty": "()*" * 500,
}  # fmt: skip

GBNF_BOMBS: dict[str, Callable[[], str]] = {
    "nested counts": lambda: 'root ::= ((("a"{1000}){1000}){1000}){1000}',
    "groups": lambda: "root ::= " + "(" * 5_000 + '"a"' + ")" * 5_000,
    "long chain": lambda: "root ::= r0\n" + "".join(f"r{i} ::= r{i + 1}\n" for i in range(5_000)) + 'r5000 ::= "a"',
    "empty chain": lambda: "root ::= r0\n" + "".join(f"r{i} ::= r{i + 1}?\n" for i in range(5_000)) + 'r5000 ::= "a"?',
    "hidden left recursion": lambda: 'root ::= a* root "x"\na ::= "b"?',
    "all call all": lambda: "root ::= r0\n" + "".join(f"r{i} ::= \"x\" ({' | '.join(names(150, 'r'))})\n" for i in range(150)),
    "long string": lambda: 'root ::= "' + "a" * 90_000 + '"',
    "too long": lambda: 'root ::= "' + "a" * 2_000_000 + '"',
    "wide class": lambda: "root ::= [" + "".join(chr(0x4E00 + 2 * i) for i in range(9_000)) + "]*",
    "many repetitions": lambda: 'root ::= "a"' + "*" * 50_000,
    "comment": lambda: "#" * 500_000,
    "nul": lambda: "root ::= \0",
}  # fmt: skip

_KEYS = sorted(
    {*RandomSchemas.MAKERS, "$defs", "$id", "$anchor", "$schema", "definitions", "id", "x"}
)
_ODD = [None, True, -1, 0, 1, 2.5, 1e308, 5e-324, 10**400, float("inf"), float("nan"), "", "#", "#/", "\ud800",
        "x" * 3_000, "^(", "a{9999}", [], {}, [[]], [{}], {"type": "nope"}, {"$ref": "#"}, "object", ["string", "string"]]  # fmt: skip


def schema(rng: random.Random) -> Json:
    """A random schema with some of its parts replaced by what does not belong there."""
    made = RandomSchemas(rng.random()).root()
    for _ in range(rng.randrange(4)):
        made = _spoilt(rng, made)
    return made


def _spoilt(rng: random.Random, value: Json) -> Json:
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        return value | {key: _spoilt(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.7:
        at = rng.randrange(len(value))
        return [*value[:at], _spoilt(rng, value[at]), *value[at + 1 :]]
    if isinstance(value, dict) and rng.random() < 0.5:
        return value | {rng.choice(_KEYS): rng.choice(_ODD)}
    return rng.choice(_ODD)


_PIECES = ["a", "b", ".", "\\d", "\\W", "\\b", "\\B", "^", "$", "[a-z]", "[^\\s-]", "[]", "[^]", "\\p{L}", "\\P{Lu}", "|",
           "(", ")", "(?:", "(?=", "(?!", "(?<=", "(?<!", "(?<n>", "*", "+", "?", "{2}", "{1,30}", "{300}", "{,2}", "{", "}", "]",
           "\\", "\\u{1f600}", "\\x41", "\\cA", "\\0", "\\1", "é", "\ud800", "\0", "-", "*?"]  # fmt: skip


def pattern(rng: random.Random) -> str:
    """Pieces of patterns in a row, with most of the groups closed."""
    pieces = rng.choices(_PIECES, k=rng.randrange(1, 30))
    text = "".join(pieces)
    missing = text.count("(") - text.count(")")
    return text + ")" * max(0, missing) if rng.random() < 0.8 else text


_GBNF = """root ::= "{" ws pair ("," ws pair)* "}" ws # an object
pair ::= string ":" ws value
value ::= string | number | "[" ws (value ("," ws value)*)? "]" | root | "true"
string ::= "\\"" ([^"\\\\\\x00-\\x1f] | "\\\\" ["\\\\/bfnrt])* "\\""
number ::= "-"? [0-9]{1,15} ("." [0-9]+)?
ws ::= [ \\t\\n]*
"""
_GBNF_PIECES = ['"', "(", ")", "[", "]", "{", "}", "*", "+", "?", "|", "::=", "\n", "root", "ws", "x", "{2,", "{999999}", "{3,1}",
                "\\", "\\x4", "\\U00110000", "#", "é", "\ud800", "\0", "-", "^", ".", " ", ""]  # fmt: skip


def gbnf_text(rng: random.Random) -> str:
    """A grammar with a few of its characters replaced."""
    text = _GBNF
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(text))
        text = text[:at] + rng.choice(_GBNF_PIECES) + text[at + rng.randrange(3) :]
    return text
