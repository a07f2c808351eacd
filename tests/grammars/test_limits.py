"""Every bound of a compilation at its edge: what just fits compiles, one more is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import grammars
from grammars import GrammarError, LimitExceeded, Limits, lark_parser, regular


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


MEMBERS = {"type": "object", "properties": {f"p{i}": {"type": "integer"} for i in range(9)}}
COUNTED = {
    "type": "array",
    "items": {"type": "integer"},
    "contains": {"const": 1},
    "minContains": 3,
    "maxContains": 5,
}
BRANCHES = {
    "anyOf": [{"required": [f"p{i}"]} for i in range(4)],
    "allOf": [{"anyOf": [{"required": [f"q{i}"]} for i in range(3)]}],
}
EDGES: dict[str, Any] = {
    "schema_nodes": {"enum": ["a", "b", "c"]},
    "schema_depth": nested(5),
    "alternatives": BRANCHES,
    "pattern_length": {"type": "string", "pattern": "a" * 9},
    "counters": COUNTED,
    "rules": MEMBERS,
    "text_bytes": MEMBERS,
}


def refused_by(schema: Any, **limit: int) -> str | None:
    try:
        grammars.compile(schema, Limits(**limit))
    except LimitExceeded as error:
        return error.limit
    return None


@pytest.mark.parametrize("limit", sorted(EDGES))
def test_there_is_one_edge_and_it_has_a_name(limit: str) -> None:
    low, high = 0, 100_000
    while high - low > 1:
        middle = (low + high) // 2
        name = refused_by(EDGES[limit], **{limit: middle})
        assert name in (None, limit)
        low, high = (low, middle) if name is None else (middle, high)
    assert high > 1
    assert refused_by(EDGES[limit], **{limit: high}) is None
    assert refused_by(EDGES[limit], **{limit: high - 1}) == limit


def test_every_limit_has_its_edge() -> None:
    assert set(EDGES) | {"seconds", "states"} == set(Limits.__dataclass_fields__)


def test_states() -> None:
    assert regular.of_texts(["a" * 6_000])
    with pytest.raises(LimitExceeded, match="states"):
        regular.of_texts(["a" * 6_001])
    word = regular.of_texts(["a" * 20])
    assert len(regular.complement(word, 22).delta) == 22
    with pytest.raises(LimitExceeded, match="states"):
        regular.complement(word, 21)


Source = Callable[[int], object]


@pytest.mark.parametrize(
    ("compiled", "bound"),
    [
        (lambda n: grammars.compile(nested(n)), 100),
        (lambda n: grammars.compile_regex("(" * n + "a" + ")" * n), 60),
        (lambda n: grammars.compile_gbnf("root ::= " + "(" * n + '"a"' + ")" * n), 60),
        (lambda n: grammars.compile_gbnf(f'root ::= "a"{{0,{n}}}'), 100_000),
        (lambda n: grammars.compile_gbnf('root ::= "a"' + " " * (n - 12)), 1_000_000),
        (lambda n: lark_parser.parse("start: " + "(" * n + '"a"' + ")" * n), 60),
        (lambda n: lark_parser.parse(f'start: "a"~{n}'), 10_000),
        (lambda n: lark_parser.parse('start: "a"' + " " * (n - 10)), 200_000),
    ],
)
def test_fixed_bounds(compiled: Source, bound: int) -> None:
    assert compiled(bound)
    with pytest.raises(GrammarError, match=f"{bound}"):
        compiled(bound + 1)


@pytest.mark.parametrize(
    ("pattern", "fits", "why"),
    [
        ("a" * 4_000, True, ""),
        ("a" * 5_000, False, "states"),
        ("a" * 5_001, False, "pattern_length"),
        ("a{0,100001}", False, "100000"),
    ],
)
def test_long_patterns(pattern: str, fits: bool, why: str) -> None:
    """What may stand there and can be computed are two bounds."""
    if fits:
        assert grammars.compile({"type": "string", "pattern": f"^{pattern}$"})
        return
    with pytest.raises(GrammarError, match=why):
        grammars.compile({"type": "string", "pattern": pattern})
