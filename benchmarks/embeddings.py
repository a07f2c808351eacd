"""How fast an OpenAI-compatible server embeds: one input at a time, lists, and many clients.

    python benchmarks/embeddings.py --model NAME [--url http://127.0.0.1:8080] [--seconds 5]

Inputs per second and the median time of a request. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time

import httpx

WORDS = (
    *("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy"),
    *("dog", "while", "rain", "falls", "on", "old", "tin", "roofs"),
)
INPUT_WORDS = 12
SHAPES = ((1, 1), (1, 32), (16, 1), (16, 8))
"""(clients, inputs of each request)"""


def sentence(number: int) -> str:
    """No two are alike: a cache would not help."""
    return " ".join(WORDS[(number * 7 + i * i) % len(WORDS)] for i in range(INPUT_WORDS))


async def client(http: httpx.AsyncClient, model: str, inputs: int, until: float) -> list[float]:
    """Seconds of each request."""
    times: list[float] = []
    while (began := time.perf_counter()) < until:
        texts = [f"{sentence(len(times) * inputs + i)} {began}" for i in range(inputs)]
        body = {"model": model, "input": texts, "encoding_format": "base64"}
        response = await http.post("/v1/embeddings", json=body)
        response.raise_for_status()
        times.append(time.perf_counter() - began)
    return times


async def measure(http: httpx.AsyncClient, model: str, seconds: float) -> list[dict[str, float]]:
    """One row for each shape of load."""
    rows = []
    await client(http, model, 1, time.perf_counter() + 0.2)
    for clients, inputs in SHAPES:
        began = time.perf_counter()
        tasks = [client(http, model, inputs, began + seconds) for _ in range(clients)]
        times = [each for run in await asyncio.gather(*tasks) for each in run]
        elapsed = time.perf_counter() - began
        rows.append(
            {
                "clients": clients,
                "inputs": inputs,
                "inputs_per_second": round(len(times) * inputs / elapsed, 1),
                "median_ms": round(statistics.median(times) * 1000, 1),
            }
        )
    return rows


async def run(url: str, model: str, seconds: float) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=120) as http:
        rows = await measure(http, model, seconds)
    print(f"{'clients':>8} {'inputs':>7} {'inputs/s':>9} {'median ms':>10}")
    for row in rows:
        print(
            f"{row['clients']:>8} {row['inputs']:>7} {row['inputs_per_second']:>9}"
            f" {row['median_ms']:>10}"
        )
    print(json.dumps({"model": model, "rows": rows}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--model", required=True)
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    asyncio.run(run(arguments.url, arguments.model, arguments.seconds))


if __name__ == "__main__":
    main()
