"""Long lone prompts on a context with flash attention, beside the model's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.batch import Batch, Clear, Logits, MemoryOp, Restore, Rows, Save, Span, Trim
from engine.llama.kv_state import UnknownLayout, read_state, write_state
from engine.llama.long_prompts import WORTH_IT
from engine.llama.model import Model
from engine.llama.runner import LlamaRunner
from engine.settings import ModelSettings
from tests.engine import tiny_models

CHUNK = 256
PROMPT = [(7 * i + i // 50) % 250 for i in range(WORTH_IT + CHUNK)]
CLOSE = 0.1
"""Of logits up to 10: flash attention sums in another order."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write(tmp_path_factory.mktemp("long") / "m.gguf", "attention")


@pytest.fixture(params=[False, True], ids=["streams", "unified"])
def runner(path: Path, request: pytest.FixtureRequest) -> Iterator[LlamaRunner]:
    model = Model(
        ModelSettings(
            path=path,
            context=1280,
            parallel=3,
            threads=1,
            flash_attention=False,
            flash_prefill=True,
            kv_unified=request.param,
        )
    )
    yield LlamaRunner(model)
    model.close()


def prefill(
    runner: LlamaRunner, slot: int, *, alone: bool, start: int = 0, prompt: list[int] = PROMPT
) -> Logits:
    """Compute what of `prompt` is after `start`; returns the row after it."""
    ops: list[MemoryOp] = [Trim(slot, start) if start else Clear(slot)]
    for begin in range(start, len(prompt), CHUNK):
        piece = prompt[begin : begin + CHUNK]
        last = begin + len(piece) == len(prompt)
        span = Span(slot, begin, piece, Rows.LAST if last else Rows.NONE)
        rows = runner.run(Batch(ops, [span], alone=len(prompt) - begin if alone else 0))
        ops = []
    return rows[-1].copy()


def decode(runner: LlamaRunner, slot: int, position: int) -> Logits:
    return runner.run(Batch([], [Span(slot, position, [5], Rows.LAST)]))[0].copy()


def test_the_answer_goes_on_in_the_slot(runner):
    plain = prefill(runner, 0, alone=False), decode(runner, 0, len(PROMPT))
    first = prefill(runner, 2, alone=True)
    assert runner._long_prompts.at_work
    second = decode(runner, 2, len(PROMPT))
    assert not runner._long_prompts.at_work
    assert not np.array_equal(plain[0], first), "it took the same path"
    np.testing.assert_allclose(first, plain[0], atol=CLOSE)
    np.testing.assert_allclose(second, plain[1], atol=CLOSE)


def test_what_the_slot_holds_already_is_taken_along(runner):
    plain = prefill(runner, 0, alone=False), decode(runner, 0, len(PROMPT))
    prefill(runner, 1, alone=False, prompt=PROMPT[: CHUNK // 2])
    prefill(runner, 1, alone=True, start=CHUNK // 2)
    assert runner._long_prompts.at_work
    np.testing.assert_allclose(decode(runner, 1, len(PROMPT)), plain[1], atol=CLOSE)


@pytest.mark.parametrize("company", ["another slot", "a copy", "a short piece"])
def test_it_moves_when_it_is_not_alone_any_more(runner, company):
    plain = prefill(runner, 0, alone=False)
    runner.run(Batch([Clear(1)], [Span(1, 0, PROMPT[:CHUNK], Rows.NONE)], alone=len(PROMPT)))
    assert runner._long_prompts.at_work
    rest = PROMPT[CHUNK:]
    if company == "another slot":
        spans = [Span(1, CHUNK, rest, Rows.LAST), Span(2, 0, [1], Rows.LAST)]
        row = runner.run(Batch([Clear(2)], spans))[0].copy()
    elif company == "a copy":
        ops: list[MemoryOp] = [Save(1, 7), Clear(1), Restore(1, 7)]
        row = runner.run(Batch(ops, [Span(1, CHUNK, rest, Rows.LAST)], alone=len(rest)))[0].copy()
    else:
        for at in range(0, len(rest), 32):
            span = Span(1, CHUNK + at, rest[at : at + 32], Rows.LAST)
            row = runner.run(Batch([], [span], alone=len(rest) - at))[0].copy()
    np.testing.assert_allclose(row, plain, atol=CLOSE)


def test_short_prompts_and_those_beside_others_stay(runner):
    prefill(runner, 0, alone=True, prompt=PROMPT[: WORTH_IT - 1])
    assert not runner._long_prompts.at_work
    prefill(runner, 0, alone=False)
    assert not runner._long_prompts.at_work


def test_a_reset_forgets_it(runner):
    prefill(runner, 0, alone=True)
    runner.reset()
    assert not runner._long_prompts.at_work
    again = prefill(runner, 0, alone=True)
    np.testing.assert_array_equal(again, prefill(runner, 0, alone=True))


def saved(runner: LlamaRunner, slot: int) -> memoryview:
    runner.run(Batch([Save(slot, 1)], []))
    return memoryview(bytes(runner._saved[1]))


def test_a_state_is_written_as_llama_cpp_writes_it(runner):
    prefill(runner, 0, alone=False)
    data = saved(runner, 0)
    streams = 1 if runner._long_prompts._model.settings.kv_unified else 3
    again = write_state(read_state(data), n_streams=streams, transposed=True)
    assert again == data
    straight = write_state(read_state(data), n_streams=1, transposed=False)
    there_and_back = read_state(memoryview(straight))
    assert write_state(there_and_back, n_streams=streams, transposed=True) == data


def test_cells_repeat(runner):
    prefill(runner, 0, alone=False, prompt=PROMPT[:10])
    state = read_state(saved(runner, 0)).repeated(25)
    assert state.positions.tolist() == list(range(25))
    assert np.array_equal(state.keys[0][20], state.keys[0][0])
    assert np.array_equal(state.values[1][13], state.values[1][3])


def test_states_of_another_layout_are_refused(runner):
    prefill(runner, 0, alone=False, prompt=PROMPT[:10])
    data = bytes(saved(runner, 0))
    for damaged in (data[:-1], data + b"\0", data[:9], b"\xff" * 400):
        with pytest.raises(UnknownLayout):
            read_state(memoryview(damaged))


@pytest.mark.parametrize("kind", ["window", "recurrent", "hybrid"])
def test_other_memory_computes_as_ever(tmp_path, kind):
    settings = ModelSettings(
        path=tiny_models.write(tmp_path / "m.gguf", kind),
        context=1024,
        parallel=1,
        threads=1,
        flash_attention=False,
        flash_prefill=True,
    )
    model = Model(settings)
    runner = LlamaRunner(model)
    prefill(runner, 0, alone=True)
    assert not runner._long_prompts.at_work
    model.close()
