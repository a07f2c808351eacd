"""The step loop on a fake model: who runs, what is computed, what comes out."""

from __future__ import annotations

import random

import numpy as np
import pytest

from engine.batch import Clear, Restore, Save
from engine.errors import InvalidGrammar, NoTokenPossible
from engine.request import (
    RequestDone,
    RequestFailed,
    SamplingParams,
    ThoughtBudget,
    TokenOutput,
    Usage,
)
from engine.vocab_math import Row
from tests.engine.fakes import END, FakeRunner, Harness, continuation, make_core, request


def test_one_request_gets_the_models_continuation() -> None:
    harness = Harness(make_core(FakeRunner()))
    answer = harness.add(request("a", [1, 2, 3]))
    harness.run()
    assert answer.texts == {0: continuation([1, 2, 3], 5)}
    assert answer.reasons == {0: "length"}
    assert isinstance(answer.end, RequestDone)
    assert answer.end.usage == Usage(prompt_tokens=3, completion_tokens=5, cached_tokens=0)


def test_every_request_of_a_crowd_gets_its_own_continuation() -> None:
    runner = FakeRunner(slots=3)
    harness = Harness(make_core(runner))
    rng = random.Random(1)
    prompts = {
        f"r{i}": [rng.randrange(1, 64) for _ in range(rng.randrange(1, 90))] for i in range(40)
    }
    answers = {name: harness.add(request(name, prompt, 7)) for name, prompt in prompts.items()}
    harness.run()
    for name, prompt in prompts.items():
        assert answers[name].texts == {0: continuation(prompt, 7)}
    assert max(len(batch.spans) for batch in runner.batches) == 3


@pytest.mark.parametrize("n", [2, 4, 9])
def test_n_choices_compute_the_prompt_once(n: int) -> None:
    runner = FakeRunner(slots=4)
    harness = Harness(make_core(runner))
    prompt = list(range(1, 31))
    answer = harness.add(request("a", prompt, 6, n=n))
    harness.run()
    assert answer.texts == dict.fromkeys(range(n), continuation(prompt, 6))
    assert isinstance(answer.end, RequestDone)
    assert answer.end.usage == Usage(30, 6 * n, 0)
    assert sum(batch.n_tokens for batch in runner.batches) == 30 + n * 5
    harness.add(request("next", [1], 1))
    harness.run()
    assert prompt not in runner.saved.values(), "the fork's copy is dropped with the next step"


@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"top_k": 1, "frequency_penalty": 1}])
def test_choices_that_cannot_differ_are_computed_once(sampling: dict[str, float]) -> None:
    runner = FakeRunner(slots=2)
    harness = Harness(make_core(runner))
    prompt = list(range(1, 31))
    params = SamplingParams(**sampling)  # type: ignore[arg-type]
    fields = {"n": 5, "logprobs": 1, "prompt_logprobs": 0, "sampling": params}
    answer = harness.add(request("a", prompt, 6, **fields))
    events = []
    while harness.core.scheduler.has_work:
        events += [event for _, event in harness.step() if isinstance(event, TokenOutput)]
    assert answer.texts == dict.fromkeys(range(5), continuation(prompt, 6))
    assert answer.reasons == dict.fromkeys(range(5), "length")
    assert answer.logprobs == dict.fromkeys(range(5), answer.logprobs[0])
    assert [len(event.prompt_logprobs) for event in events] == [29] + [0] * 29
    assert isinstance(answer.end, RequestDone)
    assert answer.end.usage == Usage(30, 30, 0)
    assert answer.end.finish_reasons == ("length",) * 5
    assert sum(batch.n_tokens for batch in runner.batches) == 30 + 5
    assert harness.core.states == {}


def test_forks_of_a_prompt_whose_first_choice_ends_at_once() -> None:
    runner = FakeRunner(slots=1)
    harness = Harness(make_core(runner))
    answer = harness.add(request("a", [5, 6, 7], 1, n=3))
    harness.run()
    assert answer.texts == dict.fromkeys(range(3), continuation([5, 6, 7], 1))
    ops = [type(op) for batch in runner.batches for op in batch.ops]
    assert ops.count(Save) == 1
    assert Clear in ops or Restore in ops


@pytest.mark.parametrize("steps", range(1, 8))
@pytest.mark.parametrize("n", [1, 3])
def test_an_aborted_request_leaves_no_trace(steps: int, n: int) -> None:
    """Aborted while queued, in prefill, decoding or forking; its slot serves the next one."""
    runner = FakeRunner(slots=2)
    harness = Harness(make_core(runner, ubatch_size=8))
    harness.add(request("gone", [9] * 30, 20, n=n))
    harness.add(request("stays", [4] * 11, 12))
    for _ in range(steps):
        harness.step()
    assert harness.core.abort("gone")
    assert not harness.core.abort("gone")
    running = harness.core.scheduler.running.values()
    assert "gone" not in {sequence.group.request.id for sequence in running}
    prompt = [3, 1, 4, 1, 5]
    after = harness.add(request("after", prompt, 9, n=2))
    harness.run()
    assert after.texts == dict.fromkeys(range(2), continuation(prompt, 9))
    assert harness.answers["stays"].texts == {0: continuation([4] * 11, 12)}
    assert harness.answers["gone"].end is None
    assert harness.core.states == {}


def test_an_aborted_request_costs_nothing_from_the_next_step_on() -> None:
    runner = FakeRunner(slots=1)
    harness = Harness(make_core(runner, ubatch_size=8))
    harness.add(request("gone", [9] * 100))
    harness.step()
    harness.core.abort("gone")
    assert not harness.core.scheduler.has_work


def test_stop_string_over_token_boundaries() -> None:
    text = continuation([1, 2], 10)
    harness = Harness(make_core(FakeRunner()))
    answer = harness.add(request("a", [1, 2], 10, stop=("zzzz", text[4:7])))
    kept = harness.add(request("b", [1, 2], 10, stop=(text[4:7],), include_stop=True, logprobs=0))
    harness.run()
    assert answer.texts == {0: text[: text.index(text[4:7])]}
    assert answer.reasons == {0: "stop"}
    assert answer.stop_reasons == {0: text[4:7]}
    assert kept.texts == {0: text[:7]}
    assert len(kept.logprobs[0]) == 7


def test_end_of_generation_ends_and_has_no_text() -> None:
    harness = Harness(make_core(FakeRunner()))
    forced = SamplingParams(temperature=0, logit_bias={END: 100.0})
    answer = harness.add(request("a", [1], 10, sampling=forced, logprobs=1))
    ignoring = harness.add(request("b", [1], 3, sampling=forced, ignore_eos=True))
    harness.run()
    assert answer.texts == {0: ""}
    assert answer.stop_reasons == {0: END}
    assert answer.logprobs == {0: []}
    assert ignoring.texts == {0: continuation([1], 3)}


def test_the_context_ends_a_choice() -> None:
    harness = Harness(make_core(FakeRunner(), context=16))
    answer = harness.add(request("a", [1] * 10, 100))
    harness.run()
    assert answer.texts == {0: continuation([1] * 10, 6)}
    assert answer.reasons == {0: "length"}


def test_no_token_possible_fails_this_request_only() -> None:
    harness = Harness(make_core(FakeRunner()))
    nothing = SamplingParams(logit_bias=dict.fromkeys(range(64), float("-inf")))
    failed = harness.add(request("a", [1, 2], sampling=nothing, n=2))
    fine = harness.add(request("b", [1, 2]))
    harness.run()
    assert isinstance(failed.end, RequestFailed)
    assert isinstance(failed.end.error, NoTokenPossible)
    assert fine.texts == {0: continuation([1, 2], 5)}


def test_a_step_that_raises_leaves_a_core_that_works() -> None:
    runner = FakeRunner()
    harness = Harness(make_core(runner))
    harness.add(request("lost", [1] * 40, 8, n=3))
    harness.step()
    harness.step()
    runner.fail_next = True
    with pytest.raises(RuntimeError, match="broke"):
        harness.step()
    harness.core.fail_all()
    assert not harness.core.scheduler.has_work
    answer = harness.add(request("next", [7, 7], 4, n=2))
    harness.run()
    assert answer.texts == dict.fromkeys(range(2), continuation([7, 7], 4))


def test_random_load_with_aborts_loses_no_slot() -> None:
    runner = FakeRunner(slots=5)
    harness = Harness(make_core(runner, ubatch_size=16))
    rng = random.Random(7)
    prompts: dict[str, tuple[list[int], int, int]] = {}
    aborted: set[str] = set()
    for i in range(600):
        if rng.random() < 0.3 and len(prompts) < 150:
            name = f"r{i}"
            prompt = [rng.randrange(1, 64) for _ in range(rng.randrange(1, 60))]
            prompts[name] = prompt, rng.randrange(1, 12), rng.choice([1, 1, 1, 2, 7])
            harness.add(request(name, prompt, prompts[name][1], n=prompts[name][2]))
        if rng.random() < 0.1 and prompts:
            name = rng.choice(list(prompts))
            if harness.core.abort(name):
                aborted.add(name)
        if harness.core.scheduler.has_work:
            harness.step()
    harness.run()
    assert len(aborted) > 5
    for name, (prompt, length, n) in prompts.items():
        if name not in aborted:
            expected = dict.fromkeys(range(n), continuation(prompt, length))
            assert harness.answers[name].texts == expected
    assert harness.core.scheduler.running == {}
    assert harness.core.states == {}


class Spelling:
    """A constraint to one text: the fake model has no say, but in the places marked by '?'."""

    def __init__(self, text: str) -> None:
        self._text = text

    def restrict(self, row: Row) -> None:
        if self._text[0] != "?":
            row[[token for token in range(len(row)) if token != ord(self._text[0]) - 64]] = -np.inf
        row[END] = -np.inf

    def accept(self, token: int) -> None:
        assert self._text[0] in (chr(64 + token), "?")
        self._text = self._text[1:]

    def forced(self) -> list[int]:
        return [ord(letter) - 64 for letter in self._text.split("?", 1)[0]]

    @property
    def finished(self) -> bool:
        return not self._text

    def fork(self) -> Spelling:
        return Spelling(self._text)


@pytest.mark.parametrize("logprobs", [None, 0])
def test_forced_tokens_cost_no_step_of_their_own(logprobs: int | None) -> None:
    runner = FakeRunner()
    harness = Harness(make_core(runner))
    both = request("a", [1, 2], 50, n=2, logprobs=logprobs)
    answer = harness.add(both, Spelling("ABC?DEFGH"))
    free = harness.add(request("b", [7], 3))
    harness.run()
    for text in answer.texts.values():
        assert text == f"ABC{text[3]}DEFGH"
    assert answer.reasons == {0: "stop", 1: "stop"}
    assert free.texts == {0: continuation([7], 3)}
    assert isinstance(answer.end, RequestDone)
    assert answer.end.usage.completion_tokens == 18
    longest = max(len(span.tokens) for batch in runner.batches[1:] for span in batch.spans)
    assert longest == (3 if logprobs is None else 1)


@pytest.mark.parametrize("open_", ["", "A"])
def test_a_spent_budget_closes_the_thought(open_: str) -> None:
    """The fake model never closes one by itself: `[` is token 27."""
    begin = SamplingParams(temperature=0, logit_bias={1: 100.0})
    budget = ThoughtBudget(3, [27, 28], "[", open_)
    harness = Harness(make_core(FakeRunner()))
    thinks = harness.add(request("a", [5], 9, thought=budget, sampling=begin))
    spent = harness.add(request("b", [5], 4, thought=ThoughtBudget(0, [27], "["), logprobs=0))
    plain = harness.add(request("c", [5], 9, thought=ThoughtBudget(0, [27], "[", "<think>")))
    harness.run()
    assert thinks.texts == {0: "AAA[\\AAAA"}
    assert spent.texts[0][0] == "["
    assert len(spent.logprobs[0]) == 4
    assert plain.texts == {0: continuation([5], 9)}


class TooComplex(Spelling):
    """A grammar that the matcher gives up on once it is under way."""

    def accept(self, token: int) -> None:
        raise InvalidGrammar("too many items")

    def fork(self) -> TooComplex:
        return TooComplex(self._text)


def test_a_grammar_that_fails_under_way_fails_its_own_request_only() -> None:
    harness = Harness(make_core(FakeRunner()))
    failed = harness.add(request("a", [1], 5, n=2), TooComplex("ABCDEF"))
    fine = harness.add(request("b", [1], 5))
    harness.run()
    assert isinstance(failed.end, RequestFailed)
    assert isinstance(failed.end.error, InvalidGrammar)
    assert fine.texts == {0: continuation([1], 5)}


def test_max_tokens_and_stops_cut_forced_tokens() -> None:
    harness = Harness(make_core(FakeRunner()))
    short = harness.add(request("a", [1], 4), Spelling("ABCDEFGH"))
    stopped = harness.add(request("b", [1], 9, stop=("EF",)), Spelling("ABCDEFGH"))
    harness.run()
    assert (short.texts, short.reasons) == ({0: "ABCD"}, {0: "length"})
    assert (stopped.texts, stopped.stop_reasons) == ({0: "ABCD"}, {0: "EF"})
