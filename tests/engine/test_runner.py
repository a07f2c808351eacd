"""What llama.cpp makes of our batches, on the real model, without an engine."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from engine.batch import Batch, Clear, Restore, Rows, Save, Span, Trim
from engine.llama.runner import LlamaRunner
from engine.request import SamplingParams
from engine.sampler import Sampler


def logits_after(runner: LlamaRunner, tokens: list[int], slot: int = 0) -> np.ndarray[Any, Any]:
    return runner.run(Batch([Clear(slot)], [Span(slot, 0, tokens, Rows.LAST)]))[0].copy()


TOKENS = [1, 4093, 198, 19556, 28, 638, 359, 346, 47, 2, 198]


def test_saving_restoring_and_trimming_keep_the_distribution(runner: LlamaRunner) -> None:
    expected = logits_after(runner, TOKENS)
    runner.run(Batch([Clear(0)], [Span(0, 0, TOKENS[:-1], Rows.NONE)]))
    last = [Span(2, len(TOKENS) - 1, TOKENS[-1:], Rows.LAST)]
    restored = runner.run(Batch([Save(0, 1), Restore(2, 1)], last))[0].copy()
    np.testing.assert_allclose(restored, expected, atol=0.05)
    longer = Span(2, len(TOKENS), [40, 50, 60], Rows.NONE)
    runner.run(Batch([], [longer]))
    trimmed = runner.run(Batch([Trim(2, len(TOKENS) - 1)], last))[0]
    np.testing.assert_array_equal(trimmed, restored)


def test_rows_come_in_the_order_of_the_spans(runner: LlamaRunner) -> None:
    """Spans of unequal lengths are cut into several passes, which return them out of order."""
    prompts = {0: TOKENS[:3], 1: TOKENS, 3: TOKENS[:7]}
    alone = {slot: logits_after(runner, tokens, slot) for slot, tokens in prompts.items()}
    ops = [Clear(slot) for slot in prompts]
    spans = [Span(slot, 0, tokens, Rows.LAST) for slot, tokens in prompts.items()]
    together = runner.run(Batch(list(ops), spans))
    for row, expected in zip(together, alone.values(), strict=True):
        np.testing.assert_allclose(row, expected, atol=0.1)
        assert row.argmax() == expected.argmax()


def test_chi_square_on_real_logits(runner: LlamaRunner) -> None:
    row = logits_after(runner, TOKENS)
    weights = np.exp(row.astype(np.float64) / 0.9)
    expected = weights / weights.sum() * 4000
    sampler = Sampler(SamplingParams(temperature=0.9, seed=5), [], 0)
    scratch = np.empty_like(row)
    draws = [sampler.sample(row, scratch) for _ in range(4000)]
    observed = np.bincount(draws, minlength=len(row))
    large = expected >= 8
    cells = np.append(observed[large], observed[~large].sum())
    means = np.append(expected[large], expected[~large].sum())
    chi_square = float(((cells - means) ** 2 / means).sum())
    freedom = len(cells) - 1
    assert chi_square < freedom + 5 * math.sqrt(2 * freedom)


def test_the_tokenizer_knows_its_text(runner: LlamaRunner) -> None:
    tokenizer = runner.model.tokenizer  # type: ignore[attr-defined]
    for text in ("Hello, wörld! 日本語 🎉", " leading", "a" * 5000, ""):
        tokens = tokenizer.encode(text)
        assert b"".join(map(tokenizer.token_bytes, tokens)).decode() == text
        assert tokenizer.decode(tokens) == text
    assert tokenizer.encode("<|im_end|>") == [tokenizer.eos]
    assert len(tokenizer.encode("<|im_end|>", parse_special=False)) > 1
    assert {tokenizer.spelling(token) for token in tokenizer.end_of_generation} == {
        "<|im_end|>",
        "<|endoftext|>",
        "<reponame>",
    }
