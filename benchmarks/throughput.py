"""Drives any OpenAI-compatible address and measures what its users feel.

    python benchmarks/throughput.py [--url http://127.0.0.1:8080] [--streams 1,4,16]

Without --url it starts Ingle on the default model for the time of the run.

Tokens per second over all streams, time to first token, the gaps between tokens, and requests
per second at one token each. The client is a bare socket reader, so that on a small machine it
takes next to nothing from the server it measures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.serving import ingle

CONTENT = re.compile(rb'"content": ?"[^"]')
PROMPT = "Tell a long story about a lighthouse keeper. Chapter {}."


class Client:
    """Chat completions over one connection at a time."""

    def __init__(self, url: str, model: str, key: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._path = parts.path.rstrip("/").removesuffix("/v1") + "/v1/chat/completions"
        self._model, self._key = model, key

    async def stream(self, body: dict[str, Any]) -> list[float]:
        """Seconds from the request to each event that carries content."""
        reader, writer = await asyncio.open_connection(self._host, self._port)
        payload = json.dumps({"model": self._model, **body}).encode()
        head = (
            f"POST {self._path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
            f"Content-Type: application/json\r\nAuthorization: Bearer {self._key}\r\n"
            f"Connection: close\r\nContent-Length: {len(payload)}\r\n\r\n"
        )
        began = time.perf_counter()
        writer.write(head.encode() + payload)
        status = await reader.readline()
        if b" 200 " not in status:
            raise SystemExit(f"{status.decode().strip()}: {(await reader.read()).decode()[-500:]}")
        times = []
        while line := await reader.readline():
            # The first chunk says only who speaks: its content is empty.
            if line.startswith(b"data: {") and CONTENT.search(line):
                times.append(time.perf_counter() - began)
        writer.close()
        return times


def body(index: int, tokens: int) -> dict[str, Any]:
    message = {"role": "user", "content": PROMPT.format(index)}
    return {
        "messages": [message],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        # Not OpenAI's: servers that know it go on to max_tokens, the others may stop earlier.
        "ignore_eos": True,
    }


async def at(client: Client, streams: int, tokens: int, offset: int) -> dict[str, float]:
    """All `streams` start together; rates are over the time in which every one decodes."""
    began = time.perf_counter()

    async def one(index: int) -> list[float]:
        started = time.perf_counter() - began
        return [started + seconds for seconds in await client.stream(body(index, tokens))]

    arrivals = await asyncio.gather(*(one(offset + index) for index in range(streams)))
    arrivals = [times for times in arrivals if len(times) > 2]
    first, last = max(times[0] for times in arrivals), min(times[-1] for times in arrivals)
    within = sum(first < moment <= last for times in arrivals for moment in times)
    gaps = sorted(b - a for times in arrivals for a, b in pairwise(times))
    return {
        "tok_s": within / (last - first) if last > first else float("nan"),
        "ttft_ms": 1e3 * statistics.median(times[0] for times in arrivals),
        "gap_p50_ms": 1e3 * gaps[len(gaps) // 2],
        "gap_p99_ms": 1e3 * gaps[int(len(gaps) * 0.99)],
    }


async def requests_per_second(client: Client, seconds: float, workers: int) -> float:
    """Streams of one token, `workers` at a time."""
    end = time.perf_counter() + seconds
    count = 0

    async def work(worker: int) -> None:
        nonlocal count
        while time.perf_counter() < end:
            await client.stream(body(worker, 1))
            count += 1

    began = time.perf_counter()
    await asyncio.gather(*(work(worker) for worker in range(workers)))
    return count / (time.perf_counter() - began)


async def measure(arguments: argparse.Namespace) -> dict[str, float]:
    client = Client(arguments.url, arguments.model, arguments.key)
    await client.stream(body(0, 8))
    figures: dict[str, float] = {}
    print(f"{'streams':>8} {'tok/s':>8} {'ttft ms':>8} {'gap p50':>8} {'gap p99':>8}")
    for streams in (int(count) for count in arguments.streams.split(",")):
        rounds = [
            await at(client, streams, arguments.tokens + 2 * streams, 100 * number)
            for number in range(arguments.rounds)
        ]
        row = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
        figures |= {f"{name}_{streams}": round(value, 2) for name, value in row.items()}
        print(f"{streams:>8} " + " ".join(f"{value:>8.1f}" for value in row.values()))
    rate = await requests_per_second(client, arguments.seconds, workers=4)
    figures["requests_per_second"] = round(rate, 2)
    print(f"\nrequests per second at one token, 4 at a time: {rate:.1f}")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--url", default=None)
    parser.add_argument("--model", default="default")
    parser.add_argument("--key", default=os.environ.get("OPENAI_API_KEY", "none"))
    parser.add_argument("--streams", default="1,4,16")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    if arguments.url:
        print(json.dumps(asyncio.run(measure(arguments))))
        return
    slots = max(map(int, arguments.streams.split(",")))
    flags = ("--alias", arguments.model, "--parallel", str(slots), "--context", "1024")
    with ingle(*flags) as server:
        arguments.url = server.url
        print(json.dumps(asyncio.run(measure(arguments))))


if __name__ == "__main__":
    main()
