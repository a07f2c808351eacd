"""One slot and one place in the queue: who waits, who is refused, what hanging up frees."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from openai import OpenAI, RateLimitError

from tests.e2e.chat import ask, messages
from tests.e2e.conftest import KEY
from tests.e2e.server_process import ServerProcess

MODEL = "smollm2-135m-instruct"
LONG = {"max_tokens": 200, "ignore_eos": True, "stream": True}


@pytest.fixture
def http(narrow: ServerProcess) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=narrow.root_url, headers=headers, timeout=120) as client:
        yield client


@contextmanager
def streaming(
    http: httpx.Client, *, until: str, request_id: str = "", **fields: Any
) -> Iterator[Iterator[str]]:
    """A long stream, left open; its lines from the first one on that contains `until`."""
    body = {"model": MODEL, "messages": messages("Tell a story.")} | LONG | fields
    headers = {"x-request-id": request_id or uuid.uuid4().hex}
    with http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
        assert response.status_code == 200, response.read()
        lines = response.iter_lines()
        assert any(until in line for line in lines)
        yield lines


def running(http: httpx.Client) -> Any:
    """A stream that holds the slot."""
    return streaming(http, until='"delta":{"content"')


def queued(http: httpx.Client, **fields: Any) -> Any:
    """A stream that has been accepted and waits: it speaks only in comments."""
    return streaming(http, until=": keepalive", **fields)


def test_full_queue_is_a_429(http: httpx.Client, narrow_client: OpenAI) -> None:
    with running(http), queued(http):
        with pytest.raises(RateLimitError) as caught:
            ask(narrow_client, model=MODEL)
        assert caught.value.code == "queue_full"
        assert int(caught.value.response.headers["retry-after"]) > 0
        with pytest.raises(RateLimitError):
            ask(narrow_client, model=MODEL, stream=True)
    assert ask(narrow_client, model=MODEL, max_tokens=1).usage


def test_queued_stream_is_answered_in_the_end(http: httpx.Client) -> None:
    with running(http) as first, queued(http, max_tokens=2) as second:
        assert list(first)[-2:] == ["data: [DONE]", ""]
        assert list(second)[-2:] == ["data: [DONE]", ""]


def test_hanging_up_frees_the_slot(http: httpx.Client, narrow_client: OpenAI) -> None:
    """Each round would be refused if the ones before it were still there."""
    for _ in range(5):
        with running(http):
            pass
    assert ask(narrow_client, model=MODEL, max_tokens=1).usage


def test_hanging_up_in_the_queue_frees_the_place(http: httpx.Client, narrow: ServerProcess) -> None:
    with running(http):
        for _ in range(3):
            request_id = uuid.uuid4().hex
            with queued(http, request_id=request_id):
                pass
            narrow.wait_for_line(f" 499 .* id={request_id}")


def test_hanging_up_without_a_stream(
    http: httpx.Client, narrow: ServerProcess, narrow_client: OpenAI
) -> None:
    with running(http):
        for _ in range(3):
            request_id = uuid.uuid4().hex
            with pytest.raises(httpx.ReadTimeout):
                http.post(
                    "/v1/chat/completions",
                    json={"model": MODEL, "messages": messages("Hi")},
                    headers={"x-request-id": request_id},
                    timeout=0.2,
                )
            narrow.wait_for_line(f" 499 .* id={request_id}")
    assert ask(narrow_client, model=MODEL, max_tokens=1).usage


def test_hanging_up_in_prefill(
    http: httpx.Client, narrow: ServerProcess, narrow_client: OpenAI
) -> None:
    prompt = messages("word " * 200)
    for _ in range(3):
        request_id = uuid.uuid4().hex
        with streaming(http, until='"role"', request_id=request_id, messages=prompt):
            pass
        narrow.wait_for_line(f" 499 .* id={request_id}")
    assert ask(narrow_client, model=MODEL, max_tokens=1).usage


def test_the_freed_slot_has_no_trace(http: httpx.Client, narrow_client: OpenAI) -> None:
    before = ask(narrow_client, model=MODEL).choices[0].message.content
    with running(http):
        pass
    assert ask(narrow_client, model=MODEL).choices[0].message.content == before
