"""SIGTERM: what runs is finished, what comes is refused, and the process ends well."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest
from msgspec import Struct
from openai import OpenAI

from tests.e2e.chat import MODEL, messages
from tests.e2e.server_process import ServerProcess

TOKENS = 40


def test_sigterm_drains() -> None:
    with (
        ServerProcess(["--parallel", "1", "--context", "256"]) as server,
        OpenAI(base_url=server.base_url, api_key="none", max_retries=0) as client,
    ):
        stream = client.chat.completions.create(
            model=MODEL,
            messages=messages("Tell a story."),
            max_tokens=TOKENS,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
        seen = 0
        for chunk in stream:
            if seen == 1:
                server.terminate()
                server.wait_for_line("SIGTERM")
            seen += bool(chunk.choices and chunk.choices[0].delta.content)
        assert chunk.usage is not None
        assert chunk.usage.completion_tokens == TOKENS
        assert server.process.wait(30) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.root_url}/health")


class Door(Struct):
    """A way to stream a long answer, and what its client reads where it is cut off."""

    path: str
    body: dict[str, object]
    last_line: str


TURNS = [{"role": "user", "content": "Tell a long story."}]
REASON = "the model is draining: the server stops"
DOORS = [
    Door(
        "/v1/chat/completions",
        {"messages": TURNS, "ignore_eos": True},
        rf'data: {{"error":{{"message":"{REASON}","type":"service_unavailable_error",.*',
    ),
    Door(
        "/v1/completions",
        {"prompt": "Once", "max_tokens": 900, "ignore_eos": True},
        rf'data: {{"error":{{"message":"{REASON}",.*',
    ),
    Door(
        "/v1/responses",
        {"input": TURNS},
        rf'data: {{"type":"response.failed",.*"message":"{REASON}".*',
    ),
    Door(
        "/v1/messages",
        {"messages": TURNS, "max_tokens": 900},
        rf'data: {{"type":"error","error":{{"type":"overloaded_error","message":"{REASON}".*',
    ),
    Door("/api/chat", {"messages": TURNS}, rf'{{"error":"{REASON}"}}'),
]


def test_what_cannot_finish_ends_by_name() -> None:
    """In each door's words; who waits for a whole answer gets a status."""
    flags = ["--parallel", "8", "--context", "1024", "--drain-timeout", "0"]
    with (
        ServerProcess(flags) as server,
        httpx.Client(base_url=server.root_url, timeout=300) as http,
        ThreadPoolExecutor() as pool,
        ExitStack() as streams,
    ):
        whole = pool.submit(http.post, DOORS[0].path, json={"model": MODEL, **DOORS[0].body})
        open = []
        for door in DOORS:
            body = {"model": MODEL, "stream": True, **door.body}
            response = streams.enter_context(http.stream("POST", door.path, json=body))
            lines = response.iter_lines()
            assert next(lines)
            open.append(lines)
        server.terminate()
        for door, lines in zip(DOORS, open, strict=True):
            last = [line for line in lines if line][-1]
            assert re.fullmatch(door.last_line, last), (door.path, last)
        answer = whole.result()
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
        assert REASON in answer.json()["error"]["message"]
        assert server.process.wait(60) == 0
        assert "Traceback" not in "".join(server.lines)
