"""Predicted answers: the text is what it would be without, and fewer steps make it."""

from __future__ import annotations

import random
from typing import Any

import pytest

from engine.batch import Rows, Trim
from engine.errors import InvalidGrammar
from engine.request import RequestDone, SamplingParams, ThoughtBudget, Usage
from engine.vocab_math import Row
from tests.engine.fakes import END, FakeRunner, Harness, continuation, make_core, request
from tests.engine.predicted import (
    PROMPT,
    answer_of,
    check_held,
    edited,
    run,
    text,
    tokens_of,
    wrong,
)


def test_a_right_prediction_takes_few_steps() -> None:
    harness, runner, usage = run(tuple(answer_of(60)))
    assert text(harness) == continuation(PROMPT, 60)
    # The prompt; 2, 4, 9 and then 15 tokens ahead, each with one that is drawn.
    drafted = [len(span.tokens) - 1 for batch in runner.batches[1:] for span in batch.spans]
    assert drafted == [2, 4, 9, 15, 15, 8]
    assert usage.accepted_prediction_tokens == sum(drafted)
    assert (usage.completion_tokens, usage.rejected_prediction_tokens) == (60, 0)
    assert harness.core.counters.draft_tokens == harness.core.counters.accepted_tokens == 53


def test_without_one_every_step_is_one_token() -> None:
    harness, runner, usage = run(())
    assert text(harness) == continuation(PROMPT, 60)
    assert len(runner.batches) == 60
    assert (usage.accepted_prediction_tokens, usage.rejected_prediction_tokens) == (0, 0)


@pytest.mark.parametrize("place", range(0, 40))
def test_a_wrong_token_anywhere_changes_nothing_but_the_cost(place: int) -> None:
    harness, runner, usage = run(edited(answer_of(60), place))
    assert text(harness) == continuation(PROMPT, 60)
    assert len(runner.batches) < 60 - 25
    computed = sum(batch.n_tokens for batch in runner.batches)
    assert usage.rejected_prediction_tokens == computed - (len(PROMPT) + 59)
    if place in (1, 2, 4, 5, 9, 13, 20):  # What is drawn after a draft that came true is not in it.
        assert usage.rejected_prediction_tokens > 0


def test_the_place_is_found_again_after_insertions_and_deletions() -> None:
    said = answer_of(100)
    prediction = (*said[:20], 9, 9, 9, 9, *said[20:40], *said[50:80], *said[80:])
    harness, runner, usage = run(prediction, 100)
    assert text(harness) == continuation(PROMPT, 100)
    assert len(runner.batches) < 50
    assert usage.accepted_prediction_tokens > 60


def test_a_prediction_of_something_else_costs_next_to_nothing() -> None:
    harness, runner, usage = run(tuple(wrong(t) for t in answer_of(60)))
    assert text(harness) == continuation(PROMPT, 60)
    assert len(runner.batches) == 60
    assert usage == Usage(3, 60, 0)


@pytest.mark.parametrize("seed", range(20))
def test_any_prediction_in_a_crowd(seed: int) -> None:
    """Aborts, stops, n choices, other prompts in between: texts as without predictions."""
    rng = random.Random(seed)
    runner = FakeRunner(slots=3)
    harness = Harness(make_core(runner, ubatch_size=32))
    expected = {}
    for i in range(12):
        prompt = [rng.randrange(1, 64) for _ in range(rng.randrange(1, 40))]
        length = rng.randrange(1, 60)
        said = answer_of(length, prompt)
        places = rng.sample(range(length), rng.randrange(min(4, length)))
        prediction = edited(said, *places) if rng.random() < 0.7 else ()
        fields: dict[str, Any] = {"prediction": prediction, "n": rng.choice([1, 1, 2])}
        if rng.random() < 0.3:
            fields["logprobs"] = 1
        if rng.random() < 0.2:
            fields["prompt_logprobs"] = 0
        harness.add(request(f"r{i}", prompt, length, **fields))
        expected[f"r{i}"] = (continuation(prompt, length), fields["n"])
    gone = [name for name in expected if rng.random() < 0.2]
    while harness.core.scheduler.has_work:
        harness.step()
        if gone and rng.random() < 0.2:
            name = gone.pop()
            if harness.core.abort(name):
                del expected[name]
    for name, (said_text, n) in expected.items():
        assert harness.answers[name].texts == dict.fromkeys(range(n), said_text)
        assert isinstance(harness.answers[name].end, RequestDone)
    check_held(harness, runner)


def test_the_longest_draft_fits_the_rows_of_a_step() -> None:
    runner = FakeRunner()
    runner.max_rows = 6
    harness = Harness(make_core(runner))
    harness.add(request("a", PROMPT, 60, prediction=tuple(answer_of(60))))
    harness.run()
    assert text(harness) == continuation(PROMPT, 60)
    assert max(batch.spans[0].n_rows for batch in runner.batches) == 5


def test_an_end_that_the_model_chooses_inside_of_a_draft() -> None:
    bias = {END: 100.0}

    class Ending(FakeRunner):
        def run(self, batch: Any, *also: Any) -> Any:
            rows = super().run(batch, *also)
            ends, at = [], 0
            for span in batch.spans:
                first = span.start + len(span.tokens) - span.n_rows
                ends += [first + i == len(PROMPT) + 19 for i in range(span.n_rows)]
                at += span.n_rows
            for row, ended in zip(rows, ends, strict=True):
                row[END] = 50 if ended else -1000
            return rows

    runner = Ending(slots=2)
    harness = Harness(make_core(runner))
    sampling = SamplingParams(temperature=0, logit_bias=bias)
    answer = harness.add(
        request("a", PROMPT, 60, prediction=tuple(answer_of(60)), sampling=sampling)
    )
    harness.run()
    assert answer.texts == {0: continuation(PROMPT, 20)}
    assert (answer.reasons, answer.stop_reasons) == ({0: "stop"}, {0: END})
    assert isinstance(answer.end, RequestDone)
    assert answer.end.usage.completion_tokens == 21
    assert answer.end.usage.rejected_prediction_tokens > 0
    check_held(harness, runner)


@pytest.mark.parametrize("include", [False, True])
def test_a_stop_string_inside_of_a_draft(include: bool) -> None:
    said = continuation(PROMPT, 60)
    stop = said[20:23]
    harness, runner, usage = run(tuple(answer_of(60)), stop=(stop,), include_stop=include)
    assert text(harness) == said[: 23 if include else 20]
    assert harness.answers["a"].stop_reasons == {0: stop}
    assert usage.completion_tokens == 23
    assert usage.rejected_prediction_tokens > 0
    assert len(runner.batches) < 8


@pytest.mark.parametrize("max_tokens", range(1, 30))
def test_max_tokens_inside_of_a_draft(max_tokens: int) -> None:
    harness, runner, usage = run(tuple(answer_of(60)), max_tokens)
    assert text(harness) == continuation(PROMPT, max_tokens)
    assert harness.answers["a"].reasons == {0: "length"}
    assert (usage.completion_tokens, usage.rejected_prediction_tokens) == (max_tokens, 0)
    assert sum(batch.n_tokens for batch in runner.batches) == len(PROMPT) + max_tokens - 1


@pytest.mark.parametrize("context", range(8, 40))
def test_the_end_of_the_context_inside_of_a_draft(context: int) -> None:
    runner = FakeRunner(slots=1)
    harness = Harness(make_core(runner, context=context))
    answer = harness.add(request("a", PROMPT, 1000, prediction=tuple(answer_of(60))))
    harness.run()
    assert answer.texts == {0: continuation(PROMPT, context - len(PROMPT))}
    assert answer.reasons == {0: "length"}
    assert max(span.start + len(span.tokens) for b in runner.batches for span in b.spans) < context


def test_log_probabilities_come_for_every_token() -> None:
    harness, _, _ = run(edited(answer_of(60), 30), logprobs=2)
    assert harness.answers["a"].logprobs == {0: answer_of(60)}


def test_penalties_count_what_was_taken_only() -> None:
    """Whatever the penalties make of it, the draft is no part of it."""
    sampling = SamplingParams(
        temperature=0, frequency_penalty=2, presence_penalty=2, repetition_penalty=1.5
    )
    plain, _, _ = run((), 120, sampling=sampling, ignore_eos=True)
    said = tuple(tokens_of(text(plain)))
    prediction = edited(list(said), 50, 51)
    drafted, runner, usage = run(prediction, 120, sampling=sampling, ignore_eos=True)
    assert text(drafted) == text(plain)
    assert usage.accepted_prediction_tokens > 60
    assert len(runner.batches) < 60


def test_the_random_stream_is_that_of_a_choice_without_prediction() -> None:
    class Noise(FakeRunner):
        def run(self, batch: Any, *also: Any) -> Any:
            return super().run(batch, *also) / 4

    def say(prediction: tuple[int, ...], n: int) -> tuple[dict[int, str], int]:
        runner = Noise(slots=4)
        harness = Harness(make_core(runner))
        sampling = SamplingParams(seed=7, top_p=0.9)
        answer = harness.add(
            request("a", PROMPT, 80, prediction=prediction, sampling=sampling, n=n)
        )
        harness.run()
        return answer.texts, len(runner.batches)

    plain, steps = say((), 1)
    said = tuple(tokens_of(plain[0]))
    drafted, fewer = say(said, 1)
    assert drafted == plain
    assert fewer < steps / 4
    three, _ = say((), 3)
    assert len(set(three.values())) == 3
    assert say(tuple(tokens_of(three[1])), 3)[0] == three


def test_greedy_choices_are_drafted_once() -> None:
    _, runner, usage = run(tuple(answer_of(60)), n=3, sampling=SamplingParams(temperature=0))
    assert len(runner.batches) == 7
    assert (usage.completion_tokens, usage.accepted_prediction_tokens) == (180, 3 * 53)


class Grammar:
    """The fake model's own answer, of which every `forced_every`th token forces the next two."""

    def __init__(self, said: list[int], forced_every: int, fail_at: int = -1) -> None:
        self._said, self._every, self._fail_at = said, forced_every, fail_at
        self._at = 0

    def restrict(self, row: Row) -> None:
        kept = row[self._said[self._at]]
        row.fill(float("-inf"))
        row[self._said[self._at]] = kept

    def accept(self, token: int) -> None:
        assert token == self._said[self._at], "only what was taken is told"
        self._at += 1
        if self._at == self._fail_at:
            raise InvalidGrammar("too complex")

    def forced(self) -> list[int]:
        return self._said[self._at : self._at + 2] if self._at % self._every == 0 else []

    @property
    def finished(self) -> bool:
        return self._at == len(self._said)

    def fork(self) -> Grammar:
        return Grammar(self._said, self._every, self._fail_at)


@pytest.mark.parametrize("places", [(), (5,), (6,), (7, 20), (11, 12, 13)])
@pytest.mark.parametrize("every", [3, 5, 100])
def test_a_grammar_and_what_it_forces(places: tuple[int, ...], every: int) -> None:
    said = answer_of(45)
    said[30] = wrong(said[30])  # The grammar wants what the model would not say.
    runner = FakeRunner(slots=2)
    harness = Harness(make_core(runner))
    prediction = edited(said, *places)
    answer = harness.add(request("a", PROMPT, 60, prediction=prediction), Grammar(said, every))
    harness.run()
    assert answer.texts == {0: "".join(chr(64 + token) for token in said)}
    assert answer.reasons == {0: "stop"}
    assert len(runner.batches) < 25
    check_held(harness, runner)


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("fail_at", range(1, 30))
def test_an_error_inside_of_a_draft_leaves_no_trace(fail_at: int, n: int) -> None:
    runner = FakeRunner(slots=2)
    harness = Harness(make_core(runner))
    prediction = edited(answer_of(60), fail_at - 1) if fail_at % 2 else tuple(answer_of(60))
    harness.add(
        request("a", PROMPT, 60, prediction=prediction, n=n), Grammar(answer_of(60), 100, fail_at)
    )
    harness.run()
    assert harness.core.states == {}
    check_held(harness, runner)
    again = harness.add(request("again", PROMPT + answer_of(40), 9))
    harness.run()
    assert again.texts == {0: continuation(PROMPT + answer_of(40), 9)}


@pytest.mark.parametrize("steps", range(1, 9))
def test_an_abort_between_drafts_leaves_no_trace(steps: int) -> None:
    runner = FakeRunner(slots=1)
    harness = Harness(make_core(runner))
    harness.add(request("gone", PROMPT, 60, prediction=edited(answer_of(60), 4, 15, 16)))
    for _ in range(steps):
        harness.step()
    assert harness.core.abort("gone")
    prompt = PROMPT + answer_of(60)
    after = harness.add(request("after", prompt, 9))
    harness.run()
    assert after.texts == {0: continuation(prompt, 9)}
    check_held(harness, runner)


def test_a_closed_thought_is_no_part_of_the_prediction() -> None:
    budget = ThoughtBudget(tokens=4, close=[10, 11], marker="JK")
    plain, _, _ = run((), 40, thought=budget)
    drafted, runner, _ = run(tuple(tokens_of(text(plain))), 40, thought=budget)
    assert text(drafted) == text(plain)
    assert len(runner.batches) < 12
    unclosed, _, _ = run(tuple(answer_of(40)), 40, thought=budget)
    assert text(unclosed) == text(plain)


def test_rejected_tokens_are_trimmed_before_the_next_step() -> None:
    _, runner, _ = run(edited(answer_of(60), 10))
    trims = [op for batch in runner.batches for op in batch.ops if isinstance(op, Trim)]
    assert trims == [Trim(0, len(PROMPT) + 10)]
    wide = [span for b in runner.batches for span in b.spans if span.rows is Rows.ALL]
    assert wide, "drafts want all rows"
