"""Short ways to ask the fake model with a prediction."""

from __future__ import annotations

from typing import Any

from engine.request import RequestDone, Usage
from tests.engine.fakes import FakeRunner, Harness, continuation, make_core, request

PROMPT = [1, 2, 3]


def tokens_of(text: str) -> list[int]:
    return [ord(character) - 64 for character in text]


def answer_of(length: int, prompt: list[int] = PROMPT) -> list[int]:
    """What the fake model says."""
    return tokens_of(continuation(prompt, length))


def wrong(token: int) -> int:
    """Another one that is no end."""
    return token % 63 + 1


def edited(tokens: list[int], *places: int) -> tuple[int, ...]:
    """With other tokens there."""
    return tuple(wrong(t) if at in places else t for at, t in enumerate(tokens))


def run(
    prediction: tuple[int, ...], max_tokens: int = 60, **fields: Any
) -> tuple[Harness, FakeRunner, Usage]:
    """One request until its end; what its slot holds is what was computed of its text."""
    runner = FakeRunner(slots=2)
    harness = Harness(make_core(runner))
    answer = harness.add(request("a", PROMPT, max_tokens, prediction=prediction, **fields))
    harness.run()
    assert isinstance(answer.end, RequestDone)
    n_batches = len(runner.batches)
    check_held(harness, runner)
    del runner.batches[n_batches:]
    return harness, runner, answer.end.usage


def check_held(harness: Harness, runner: FakeRunner) -> None:
    """After the next step every slot has exactly what the cache believes it has."""
    harness.add(request("next", [60, 61], 1))
    harness.run()
    for slot, n_tokens in harness.core._kv.idle_tokens().items():
        held = harness.core._kv._idle[slot].tokens
        assert len(held) == n_tokens
        assert runner.memory[slot] == held or not held


def text(harness: Harness, index: int = 0) -> str:
    return harness.answers["a"].texts[index]
