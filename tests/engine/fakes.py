"""A model whose next token is a function of everything in its slot, and a vocabulary of letters."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np

from engine.batch import (
    Batch,
    Clear,
    Copy,
    CopyReport,
    Drop,
    Export,
    Import,
    Logits,
    Restore,
    Save,
    Trim,
    nothing,
)
from engine.core import EngineCore, Outgoing
from engine.kv_cache import KVCache
from engine.request import Request, RequestDone, RequestFailed, SamplingParams, TokenOutput
from engine.sequence import Constraint, RequestState

NEARLY_GREEDY = SamplingParams(temperature=1e-5)

END = 0
N_VOCAB = 64


class FakeVocabulary:
    """Token i is the character chr(64 + i); token 0 ends the text."""

    n_vocab = N_VOCAB
    control = frozenset({END})
    end_of_generation = frozenset({END})

    def token_bytes(self, token: int) -> bytes:
        return chr(64 + token).encode()


def next_token(history: list[int]) -> int:
    """What the fake model says after `history`; never END."""
    return 1 + zlib.crc32(bytes(history)) % (N_VOCAB - 1)


def continuation(prompt: list[int], length: int) -> str:
    """The greedy answer to `prompt`."""
    history = list(prompt)
    for _ in range(length):
        history.append(next_token(history))
    return "".join(chr(64 + token) for token in history[len(prompt) :])


class FakeRunner:
    """Keeps each slot's tokens, and refuses whatever llama.cpp would abort on.

    With a `window`, a copy has no more than that many tokens in the layers that have it: those
    before are kept as ~token, and must be out of sight when the slot is computed on.
    """

    n_vocab = N_VOCAB
    max_rows = 20
    can_trim = True
    window = 0

    def __init__(self, slots: int = 4) -> None:
        self.memory: dict[int, list[int]] = {slot: [] for slot in range(slots)}
        self.saved: dict[int, list[int]] = {}
        self.batches: list[Batch] = []
        self.fail_next = False
        self.threads = 0
        self.report = CopyReport()

    def run(self, batch: Batch, on_compute: Callable[[], None] = nothing) -> Logits:
        if self.fail_next:
            self.fail_next = False
            raise RuntimeError("the fake model broke")
        on_compute()
        self.batches.append(batch)
        for op in batch.ops:
            match op:
                case Clear(slot):
                    self.memory[slot] = []
                case Trim(slot, length):
                    assert self.can_trim
                    assert length <= len(self.memory[slot])
                    del self.memory[slot][length:]
                case Save(slot, handle):
                    held = self.memory[slot]
                    lost = max(0, len(held) - self.window) if self.window else 0
                    self.saved[handle] = [~t if t >= 0 else t for t in held[:lost]] + held[lost:]
                    self.report.sizes[handle] = len(self.saved[handle])
                case Restore(slot, handle):
                    self.memory[slot] = list(self.saved[handle])
                case Copy(source, slot):
                    self.memory[slot] = list(self.memory[source])
                case Drop(handle):
                    del self.saved[handle]
                case Export(handle):
                    self.report.exported[handle] = memoryview(bytes(self.saved[handle]))
                case Import(handle, data):
                    self.saved[handle] = list(data)
        rows = []
        slots = [span.slot for span in batch.spans]
        assert slots == sorted(set(slots)), "spans are in order of their slots"
        for span in batch.spans:
            held = self.memory[span.slot]
            assert span.start == len(held), "positions of a sequence are consecutive"
            assert span.tokens
            assert all(token >= 0 for token in held[-self.window :] if self.window)
            held.extend(span.tokens)
            for end in range(len(held) - span.n_rows, len(held)):
                row = np.zeros(N_VOCAB, np.float32)
                row[next_token([t if t >= 0 else ~t for t in held[: end + 1]])] = 10
                rows.append(row)
        assert len(rows) <= self.max_rows
        return np.array(rows, np.float32).reshape(len(rows), N_VOCAB)

    def take_report(self) -> CopyReport:
        report, self.report = self.report, CopyReport()
        return report

    def set_threads(self, threads: int) -> None:
        self.threads = threads

    def reset(self) -> None:
        for held in self.memory.values():
            held.clear()
        self.saved.clear()


def make_core(runner: FakeRunner, **settings: object) -> EngineCore:
    """A core over `runner`, with small limits unless told otherwise."""
    options: dict[str, object] = {
        "context": 256,
        "kv_cache": KVCache(
            len(runner.memory), can_trim=runner.can_trim, budget=10_000, bytes_per_token=1
        ),
        "batch_size": 64,
        "ubatch_size": 32,
        "max_stall": 0.15,
    }
    return EngineCore(runner, FakeVocabulary(), **(options | settings))  # type: ignore[arg-type]


def request(name: str, prompt: list[int], max_tokens: int = 5, **fields: object) -> Request:
    """Draws among one token only; n choices that draw are computed each, greedy ones are not."""
    options: dict[str, object] = {"sampling": NEARLY_GREEDY} | fields
    return Request(id=name, prompt=prompt, max_tokens=max_tokens, **options)  # type: ignore[arg-type]


class Answer:
    """What a request has come to: text and finish reason by choice, and its last event."""

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}
        self.reasons: dict[int, str] = {}
        self.stop_reasons: dict[int, str | int | None] = {}
        self.logprobs: dict[int, list[int]] = {}
        self.end: RequestDone | RequestFailed | None = None


class Harness:
    """Runs requests through a core step by step."""

    def __init__(self, core: EngineCore) -> None:
        self.core = core
        self.answers: dict[str, Answer] = {}
        self._clock = 0.0

    def add(self, request: Request, constraint: Constraint | None = None) -> Answer:
        self._clock += 1
        self.answers[request.id] = Answer()
        self.core.add(RequestState(request, self._clock, constraint))
        return self.answers[request.id]

    def step(self) -> Outgoing:
        outgoing = self.core.step()
        for state, event in outgoing:
            answer = self.answers[state.request.id]
            if isinstance(event, TokenOutput):
                answer.texts[event.index] = answer.texts.get(event.index, "") + event.text
                tokens = [logprob.token for logprob in event.logprobs]
                answer.logprobs.setdefault(event.index, []).extend(tokens)
                if event.finish_reason:
                    answer.reasons[event.index] = event.finish_reason
                    answer.stop_reasons[event.index] = event.stop_reason
            else:
                assert answer.end is None, "nothing follows the end"
                answer.end = event
        return outgoing

    def run(self, most: int = 10_000) -> None:
        """Step until nothing is left to do."""
        for _ in range(most):
            if not self.core.scheduler.has_work:
                return
            self.step()
        raise AssertionError(f"still at work after {most} steps")
