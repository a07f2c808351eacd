"""The sampler against a distribution computed by brute force in float64."""

from __future__ import annotations

import math
from unittest.mock import patch

import numpy as np
import pytest
from numpy.typing import NDArray

from engine import vocab_math
from engine.errors import NoTokenPossible
from engine.logprobs import RawLogprobs
from engine.request import SamplingParams
from engine.sampler import Sampler
from engine.vocab_math import LIKELY, Head, Row

VOCAB = 2000
SCRATCH = np.empty(VOCAB, np.float32)


def logits_like_a_models(seed: int) -> Row:
    """A few likely tokens over a long tail."""
    rng = np.random.default_rng(seed)
    row = rng.normal(0, 2, VOCAB).astype(np.float32)
    row[rng.integers(0, VOCAB, 12)] += rng.uniform(4, 9, 12).astype(np.float32)
    return row


def brute_force(
    row: Row, params: SamplingParams, prompt: list[int], generated: list[int]
) -> NDArray[np.float64]:
    """The probability of every token, straight from the definition of each parameter."""
    logits = row.astype(np.float64)
    for token, bias in params.logit_bias.items():
        logits[token] += bias
    for token in set(prompt) | set(generated):
        penalty = params.repetition_penalty
        logits[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
    for token in set(generated):
        logits[token] -= params.presence_penalty
        logits[token] -= params.frequency_penalty * generated.count(token)
    scaled = logits / params.temperature
    weights = np.exp(scaled - scaled.max())
    order = np.argsort(-weights, kind="stable")
    if params.top_k:
        weights[order[params.top_k :]] = 0
    probabilities = weights / weights.sum()
    before = probabilities[order].cumsum() - probabilities[order]
    if params.top_p < 1:
        probabilities[order[before >= params.top_p]] = 0
    probabilities[probabilities < params.min_p * probabilities.max()] = 0
    return probabilities / probabilities.sum()


CASES = {
    "plain": SamplingParams(),
    "cold": SamplingParams(temperature=0.3),
    "hot": SamplingParams(temperature=2.0),
    "top_k": SamplingParams(top_k=7),
    "top_p": SamplingParams(top_p=0.8),
    "min_p": SamplingParams(min_p=0.05),
    "bias": SamplingParams(logit_bias={3: 6.0, 4: -math.inf, 5: 4.0}),
    "presence": SamplingParams(presence_penalty=1.5),
    "frequency": SamplingParams(frequency_penalty=-0.8),
    "repetition": SamplingParams(repetition_penalty=1.3),
    "reward": SamplingParams(repetition_penalty=0.7),
    "everything": SamplingParams(
        temperature=1.4,
        top_k=60,
        top_p=0.95,
        min_p=0.01,
        presence_penalty=0.5,
        frequency_penalty=0.3,
        repetition_penalty=1.1,
        logit_bias={1: 5.0},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_frequencies_follow_the_distribution(name: str) -> None:
    """Chi-square over 6,000 draws; cells expected fewer than 10 times are pooled."""
    params, row = CASES[name], logits_like_a_models(3)
    prompt, generated = [1, 1, 2, 8], [5, 8, 8, 9, int(row.argmax())]
    expected = brute_force(row, params, prompt, generated) * 6_000
    sampler = Sampler(params, prompt, 0)
    for token in generated:
        sampler.accept(token)
    observed = np.zeros(VOCAB)
    for _ in range(6_000):
        copy = row.copy()
        sampler.adjust(copy)
        observed[sampler.sample(copy, SCRATCH)] += 1
    assert observed[expected == 0].sum() == 0, "a token outside the support was drawn"
    large = expected >= 10
    cells = np.append(observed[large], observed[~large].sum())
    means = np.append(expected[large], expected[~large].sum())
    cells, means = cells[means > 0], means[means > 0]
    chi_square = float(((cells - means) ** 2 / means).sum())
    freedom = len(cells) - 1
    # Wilson-Hilferty: the cube root is close to normal; 4.5 deviations are 3 in a million.
    if freedom:
        deviate = ((chi_square / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(
            2 / (9 * freedom)
        )
        assert deviate < 4.5


def test_greedy_takes_the_lowest_id_of_equal_logits() -> None:
    row = np.zeros(100, np.float32)
    row[[40, 17, 93]] = 2
    assert Sampler(SamplingParams(temperature=0), [], 0).sample(row, np.empty_like(row)) == 17
    assert Sampler(SamplingParams(top_k=1), [], 0).sample(row, np.empty_like(row)) == 17


@pytest.mark.parametrize("penalty", [1.3, 0.7])
@pytest.mark.parametrize("frequency", [0.0, 0.4])
def test_penalties_are_those_of_their_definition(penalty: float, frequency: float) -> None:
    row = logits_like_a_models(6)
    params = SamplingParams(
        repetition_penalty=penalty, presence_penalty=0.5, frequency_penalty=frequency
    )
    sampler, expected = Sampler(params, [1, 2, 2, 3], 0), row.copy()
    for token in (3, 9, 9):
        sampler.accept(token)
    for token in (1, 2, 3, 9):
        scaled = row[token] / np.float32(penalty), row[token] * np.float32(penalty)
        expected[token] = scaled[0 if row[token] > 0 else 1]
    expected[3] -= np.float32(0.5 + frequency)
    expected[9] -= np.float32(0.5 + 2 * frequency)
    sampler.adjust(row)
    np.testing.assert_allclose(row, expected, rtol=1e-6)


def test_random_numbers_made_many_at_a_time_are_those_of_the_generator() -> None:
    sampler, row = Sampler(SamplingParams(seed=3, top_k=2), [], 0), np.zeros(100, np.float32)
    one_by_one = np.random.Generator(np.random.PCG64([3, 0]))
    for _ in range(150):
        assert sampler.sample(row.copy(), row.copy()) == int(2 * one_by_one.random())


def draws(seed: int | None, stream: int = 0) -> list[int]:
    sampler = Sampler(SamplingParams(seed=seed), [], stream)
    return [sampler.sample(logits_like_a_models(i), SCRATCH) for i in range(30)]


def test_seeds_repeat_and_choices_differ() -> None:
    assert draws(11) == draws(11)
    assert draws(11) != draws(12)
    assert draws(11, stream=1) == draws(11, stream=1)
    assert draws(11, stream=0) != draws(11, stream=1)
    assert draws(None) != draws(None)
    assert draws(-5) == draws(-5)


def test_a_tiny_repetition_penalty_stays_finite() -> None:
    row = logits_like_a_models(5)
    seen = int(np.argsort(row)[-3])
    sampler = Sampler(SamplingParams(temperature=0, repetition_penalty=1e-300), [seen], 0)
    sampler.adjust(row)
    assert sampler.sample(row, SCRATCH) == seen


def test_tiny_temperature_is_greedy() -> None:
    row = logits_like_a_models(5)
    sampler = Sampler(SamplingParams(temperature=1e-30), [], 0)
    assert sampler.sample(row, np.empty_like(row)) == int(row.argmax())


@pytest.mark.parametrize("bad", [-np.inf, np.nan])
def test_no_token_left_is_an_error(bad: float) -> None:
    row = np.full(50, bad, np.float32)
    with pytest.raises(NoTokenPossible):
        Sampler(SamplingParams(), [], 0).sample(row, np.empty_like(row))


@pytest.mark.parametrize("top", [0, 1, 20, 600])
def test_a_known_head_changes_nothing(top: int) -> None:
    for i in range(20):
        row = logits_like_a_models(i)
        head = Head(row, max(LIKELY, math.log(VOCAB)))
        alone = RawLogprobs(row, top, SCRATCH)
        shared = RawLogprobs(row, top, SCRATCH, head)
        assert shared.top == alone.top
        assert shared.of(17) == alone.of(17)


@pytest.mark.parametrize("reach", [8.0, 11.0])
@pytest.mark.parametrize("temperature", [0.2, 0.8, 1.0, 2.5])
def test_a_seed_draws_the_same_with_and_without_a_wider_head(
    temperature: float, reach: float
) -> None:
    """So that asking for log probabilities changes no answer."""
    params = SamplingParams(seed=3, temperature=temperature)
    bare, known = Sampler(params, [], 0), Sampler(params, [], 0)
    for i in range(60):
        row = logits_like_a_models(i)
        head = Head(row, max(reach, bare.reach(VOCAB)))
        assert known.sample(row, SCRATCH, head) == bare.sample(row, SCRATCH)


@pytest.mark.parametrize("fast_exp2", [True, False])
def test_logprobs_are_exact_to_the_rounding_of_float32(fast_exp2: bool) -> None:
    rng = np.random.default_rng(2)
    for n_vocab in (49_152, 262_144):
        row = rng.normal(0, 4, n_vocab).astype(np.float32)
        exact = row.astype(np.float64) - np.log(np.exp(row.astype(np.float64)).sum())
        with patch.object(vocab_math, "FAST_EXP2", fast_exp2):
            raw = RawLogprobs(row, 20, np.empty_like(row))
        best = np.argsort(-exact, kind="stable")[:20]
        assert [token for token, _ in raw.top] == best.tolist()
        assert [logprob for _, logprob in raw.top] == pytest.approx(exact[best], abs=1e-6)
        assert raw.of(5) == pytest.approx(exact[5], abs=1e-6)


def test_logprobs_are_those_of_the_raw_distribution() -> None:
    row = logits_like_a_models(9)
    exact = row.astype(np.float64) - np.log(np.exp(row.astype(np.float64)).sum())
    raw = RawLogprobs(row.copy(), 20, SCRATCH)
    sampler = Sampler(SamplingParams(logit_bias={7: 100.0}), [], 0)
    sampler.adjust(row)
    token = sampler.sample(row, SCRATCH)
    assert token == 7
    assert raw.of(token) == pytest.approx(exact[token], abs=1e-5)
    best = np.argsort(-exact, kind="stable")[:20]
    assert [other for other, _ in raw.top] == best.tolist()
    assert [logprob for _, logprob in raw.top] == pytest.approx(exact[best].tolist(), abs=1e-5)
