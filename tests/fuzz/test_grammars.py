"""Hostile schemas, patterns and grammars: compiled or refused by a typed error, in bounded time.

INGLE_FUZZ=5000 runs the long form. A case that takes more processor time than MAX_CPU seconds is
a hang; the process may not grow by more than MAX_GROWTH MiB over all of them.
"""

from __future__ import annotations

import os
import random
import resource
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

import grammars
from grammars import GrammarError
from tests.fuzz.hostile import BOMBS, GBNF_BOMBS, PATTERN_BOMBS, gbnf_text, pattern, schema

CASES = int(os.environ.get("INGLE_FUZZ", "150"))
LONG = 5_000
MAX_CPU = 15
MAX_GROWTH = 700


@contextmanager
def in_bounded_time() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise AssertionError(f"over {MAX_CPU} s of processor time")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, MAX_CPU)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def outcome(work: Callable[[], grammars.Compiled]) -> str:
    """The name of the error, or what was compiled; anything else but a typed error is raised."""
    with in_bounded_time():
        try:
            compiled = work()
        except GrammarError as error:
            str(error).encode("utf-8", "backslashreplace")
            return type(error).__name__
    assert compiled.gbnf and len(compiled.lark) <= 1_100_000
    return "compiled"


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_schemas_made_to_explode(name: str) -> None:
    assert outcome(lambda: grammars.compile(BOMBS[name]()))


@pytest.mark.parametrize("name", sorted(PATTERN_BOMBS))
def test_patterns_made_to_explode(name: str) -> None:
    source = PATTERN_BOMBS[name]
    text = {"type": "string", "maxLength": 9}
    assert outcome(lambda: grammars.compile(text | {"pattern": source}))
    if CASES >= LONG:
        assert outcome(lambda: grammars.compile(text | {"not": {"pattern": source}}))
        assert outcome(lambda: grammars.compile_regex(source))


@pytest.mark.parametrize("name", sorted(GBNF_BOMBS))
def test_grammars_made_to_explode(name: str) -> None:
    assert outcome(lambda: grammars.compile_gbnf(GBNF_BOMBS[name]()))


@pytest.mark.parametrize(
    ("make", "work"),
    [
        (schema, grammars.compile),
        (pattern, grammars.compile_regex),
        (gbnf_text, grammars.compile_gbnf),
    ],
)
def test_random_input_is_compiled_or_refused(
    make: Callable[[random.Random], object], work: Callable[..., grammars.Compiled]
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seen: Counter[str] = Counter()
    for number in range(CASES):
        case = make(random.Random(f"hostile/{number}"))
        try:
            seen[outcome(lambda case=case: work(case))] += 1  # type: ignore[misc]
        except BaseException as error:
            error.add_note(f"case {number}: {case!r:.2000}")
            raise
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
    assert grown < MAX_GROWTH, f"{grown} MiB"
    assert seen["compiled"] > CASES // 50 and len(seen) > 1, seen
