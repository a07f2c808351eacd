"""Tokens per second through each API beside /v1/chat/completions, round by round in turn.

    python benchmarks/doors.py [--tokens 128] [--rounds 9]

Starts Ingle on the default model for the time of the run. Ratios are medians over the rounds; the
rate counts from the first piece of text to the last.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import time
from typing import Any

from throughput import own_server

MODEL = "smollm2-135m-instruct"
PROMPT = "Tell a long story about a lighthouse keeper. Chapter {}."


def doors(number: int, tokens: int) -> dict[str, tuple[str, dict[str, Any], re.Pattern[bytes]]]:
    """Door → path, streaming body, and what marks a piece of text in its stream."""
    messages = [{"role": "user", "content": PROMPT.format(number)}]
    bias = {"0": -100, "2": -100}
    common = {"model": MODEL, "temperature": 0, "stream": True}
    chat = common | {"messages": messages, "max_tokens": tokens}
    return {
        "/v1/chat/completions": (
            "/v1/chat/completions",
            chat | {"logit_bias": bias},
            re.compile(rb'"content": ?"[^"]'),
        ),
        "/v1/completions": (
            "/v1/completions",
            common | {"prompt": PROMPT.format(number), "max_tokens": tokens, "logit_bias": bias},
            re.compile(rb'"text": ?"[^"]'),
        ),
        "/v1/messages": ("/v1/messages", chat, re.compile(rb'"text_delta"')),
        "/v1/responses": (
            "/v1/responses",
            common | {"input": messages, "max_output_tokens": tokens, "store": False},
            re.compile(rb'"type": ?"response.output_text.delta"'),
        ),
        "/api/chat": (
            "/api/chat",
            {
                "model": MODEL,
                "messages": messages,
                "options": {"temperature": 0, "num_predict": tokens},
            },
            re.compile(rb'"content": ?"[^"]'),
        ),
        "/api/generate": (
            "/api/generate",
            {
                "model": MODEL,
                "prompt": PROMPT.format(number),
                "options": {"temperature": 0, "num_predict": tokens},
            },
            re.compile(rb'"response": ?"[^"]'),
        ),
    }


async def rate(port: int, path: str, body: dict[str, Any], piece: re.Pattern[bytes]) -> float:
    """Pieces of text a second."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    payload = json.dumps(body).encode()
    writer.write(
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Connection: close\r\nContent-Length: {len(payload)}\r\n\r\n".encode()
        + payload
    )
    status = await reader.readline()
    if b" 200 " not in status:
        raise SystemExit(f"{path}: {(await reader.read()).decode()[-500:]}")
    moments = []
    while line := await reader.readline():
        if piece.search(line):
            moments.append(time.perf_counter())
    writer.close()
    if len(moments) < 16:
        raise SystemExit(f"{path}: only {len(moments)} pieces of text")
    return (len(moments) - 1) / (moments[-1] - moments[0])


async def measure(port: int, tokens: int, rounds: int) -> dict[str, list[float]]:
    """Door → rates; the order changes from round to round."""
    taken: dict[str, list[float]] = {name: [] for name in doors(0, tokens)}
    for number in range(-1, rounds):
        offers = list(doors(number, tokens).items())
        turn = number % len(offers)
        for name, (path, body, piece) in offers[turn:] + offers[:turn]:
            found = await rate(port, path, body, piece)
            if number >= 0:
                taken[name].append(found)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    with own_server(parallel=1) as url:
        port = int(url.rsplit(":", 1)[1].split("/")[0])
        taken = asyncio.run(measure(port, arguments.tokens, arguments.rounds))
    chat = taken["/v1/chat/completions"]
    ratios = {}
    for name, rates in taken.items():
        ratio = statistics.median(a / b for a, b in zip(rates, chat, strict=True))
        ratios[name] = round(ratio, 3)
        print(f"{name:<24} {statistics.median(rates):>7.1f} tok/s  {ratio:>6.3f}")
    print(json.dumps({"ratios": ratios}))


if __name__ == "__main__":
    main()
