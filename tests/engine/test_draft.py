"""Where an answer is in its prediction, and how much of it a step computes ahead."""

from __future__ import annotations

import random
from typing import Any

import pytest

from engine.draft import GRAM, MOST_DRAFT, Draft, Prediction
from tests.engine.fakes import FakeRunner, Harness, continuation, make_core, request
from tests.engine.predicted import PROMPT, answer_of, text


def test_places_are_looked_for_forward_first() -> None:
    prediction = Prediction([1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3, 6])
    assert [prediction.find((1, 2, 3), place) for place in (0, 3, 4, 8, 12)] == [3, 3, 7, 11, 11]
    assert prediction.find((3, 2, 1), 0) is None
    assert Prediction([1, 2]).find((1, 2, 3), 0) is None


def test_a_draft_grows_with_what_came_true_and_stops_where_it_is_lost() -> None:
    predicted = list(range(100, 160))
    draft = Draft(Prediction(predicted), 2)
    tokens = [1, 2, *predicted[:1]]
    assert draft.propose(tokens, 99) == predicted[1:3]
    tokens += predicted[1:12]
    assert draft.propose(tokens, 99) == predicted[12:24]
    assert draft.propose(tokens, 99, least=13) == []
    assert draft.propose(tokens, 5) == predicted[12:17]
    assert draft.propose(tokens, -3) == []
    tokens += [7, 8]
    assert draft.propose(tokens, 99) == []
    tokens += predicted[30 : 30 + GRAM - 1]
    assert draft.propose(tokens, 99) == []
    tokens += predicted[30 + GRAM - 1 : 30 + GRAM]
    assert draft.propose(tokens, 99) == predicted[30 + GRAM : 32 + GRAM]
    tokens += predicted[30 + GRAM :]
    assert draft.propose(tokens, 99) == [], "the prediction is over"


def test_while_others_decode_only_long_drafts_are_computed() -> None:
    runner = FakeRunner()
    harness = Harness(make_core(runner))
    other = harness.add(request("other", [9], 200))
    harness.step()
    harness.add(request("a", PROMPT, 60, prediction=tuple(answer_of(60))))
    lengths = []
    while harness.answers["a"].end is None:
        before = len(other.texts[0])
        harness.step()
        assert len(other.texts[0]) == before + 1, "nobody waits for a draft"
        lengths.append(max(len(span.tokens) for span in runner.batches[-1].spans))
    assert text(harness) == continuation(PROMPT, 60)
    assert lengths[:9] == [3, 1, 1, 1, 1, 1, 1, 1, 9]
    assert max(lengths) == MOST_DRAFT + 1
    assert len(lengths) < 15


def test_a_stall_that_cannot_be_afforded_is_not_risked() -> None:
    runner = FakeRunner()
    harness = Harness(make_core(runner))
    costs = harness.core.scheduler.costs
    harness.add(request("other", [9], 200))
    harness.step()
    harness.add(request("a", PROMPT, 60, prediction=tuple(answer_of(60))))
    while harness.answers["a"].end is None:
        costs.observe(9.0, 0, 100)
        harness.step()
    assert {len(span.tokens) for batch in runner.batches for span in batch.spans} == {1, 3}


def test_choices_with_one_prediction_do_not_wait_for_each_other() -> None:
    runner = FakeRunner()
    harness = Harness(make_core(runner))
    harness.core.scheduler.costs.observe(9.0, 0, 100)
    answer = harness.add(request("a", PROMPT, 60, n=2, prediction=tuple(answer_of(60))))
    harness.run()
    assert answer.texts == dict.fromkeys(range(2), continuation(PROMPT, 60))
    assert len(runner.batches) < 15
    assert max(batch.n_tokens for batch in runner.batches) <= runner.max_rows


def test_a_run_of_one_token_is_followed_past_a_wrong_one() -> None:
    predicted = [9] * 20 + [8] + [9] * 20
    draft = Draft(Prediction(predicted), 0)
    tokens: list[int] = []
    while len(tokens) < 41:
        proposed = draft.propose(tokens, 99)
        right = next((at for at, t in enumerate(proposed) if t != 9), len(proposed))
        draft.settle(right)
        tokens += [9] * (right + 1)
    assert draft.n_accepted > 25
    assert draft.n_rejected < 25


def test_what_misleads_is_looked_for_less_and_less() -> None:
    """Each three tokens stand in the prediction, and what follows there never comes."""
    rng = random.Random(3)
    said = [rng.randrange(4) for _ in range(600)]
    predicted = [token for at in range(3, 600) for token in (*said[at - 3 : at], 4 + said[at])]
    draft = Draft(Prediction(predicted), 0)
    for length in range(600):
        draft.propose(said[:length], 99)
        draft.settle(0)
    assert draft.n_rejected < 120


@pytest.mark.parametrize("field", ["can_trim", "deterministic"])
def test_where_nothing_can_be_taken_back_there_are_no_drafts(field: str) -> None:
    runner = FakeRunner()
    settings: dict[str, Any] = {"deterministic": True, "ubatch_size": 64}
    if field == "can_trim":
        runner.can_trim, settings = False, {}
    harness = Harness(make_core(runner, **settings))
    harness.add(request("a", PROMPT, 60, prediction=tuple(answer_of(60))))
    harness.run()
    assert text(harness) == continuation(PROMPT, 60)
    assert all(len(span.tokens) == 1 for batch in runner.batches[1:] for span in batch.spans)
