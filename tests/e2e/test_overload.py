"""One slot and three places in the queue: who waits, who goes first, what hanging up frees."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import httpx
import pytest
from msgspec import Struct
from openai import OpenAI, RateLimitError

from tests.e2e.chat import MODEL, ask, messages
from tests.e2e.server_process import ServerProcess

CHAT = "/v1/chat/completions"
LONG = {"max_tokens": 8000, "ignore_eos": True, "stream": True}


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """One slot of 8192 tokens, room for three in the queue, and a short silence."""
    flags = "--parallel 1 --context 8192 --max-queue 3 --keepalive 0.1"
    with ServerProcess(flags.split()) as process:
        yield process


class Open(Struct):
    """A stream that is being read."""

    id: str
    lines: Iterator[str]

    def read_to_the_end(self) -> None:
        assert list(self.lines)[-2:] == ["data: [DONE]", ""]


class Visitor:
    """A client with long requests that hangs up when its block ends."""

    def __init__(self, http: httpx.Client, server: ServerProcess) -> None:
        self._http = http
        self._server = server

    @contextmanager
    def stream(self, *, until: str, **fields: Any) -> Iterator[Open]:
        """A stream that has been read up to the first line that contains `until`."""
        body = {"model": MODEL, "messages": messages("Tell a story.")} | LONG | fields
        request_id = uuid.uuid4().hex
        headers = {"x-request-id": request_id}
        with self._http.stream("POST", CHAT, json=body, headers=headers) as response:
            assert response.status_code == 200, response.read()
            lines = response.iter_lines()
            assert any(until in line for line in lines)
            yield Open(request_id, lines)
        self._server.wait_for_line(f" (499|200) .* id={request_id}")

    def running(self) -> AbstractContextManager[Open]:
        """A stream that holds the slot."""
        return self.stream(until='"delta":{"content"')

    def queued(self, **fields: Any) -> AbstractContextManager[Open]:
        """A stream that has been accepted and waits: it speaks only in comments."""
        return self.stream(until=": keepalive", **fields)

    def give_up(self) -> None:
        """Waits a moment for a whole answer, and not any longer."""
        request_id = uuid.uuid4().hex
        body = {"model": MODEL, "messages": messages("Hi")}
        headers = {"x-request-id": request_id}
        with pytest.raises(httpx.ReadTimeout):
            self._http.post(CHAT, json=body, headers=headers, timeout=httpx.Timeout(60, read=0.2))
        self._server.wait_for_line(f" 499 .* id={request_id}")


@pytest.fixture
def visitor(server: ServerProcess) -> Iterator[Visitor]:
    with httpx.Client(base_url=server.root_url, timeout=120) as http:
        yield Visitor(http, server)


def test_full_queue_is_a_429(visitor: Visitor, client: OpenAI) -> None:
    with visitor.running(), visitor.queued(), visitor.queued(), visitor.queued():
        with pytest.raises(RateLimitError) as caught:
            ask(client)
        assert caught.value.code == "queue_full"
        assert int(caught.value.response.headers["retry-after"]) > 0
        with pytest.raises(RateLimitError):
            ask(client, stream=True)
    assert ask(client, max_tokens=1).usage


@pytest.mark.parametrize(
    ("fields", "order"),
    [
        ([{}, {}, {}], [0, 1, 2]),
        ([{"user": "ann"}, {"user": "ann"}, {"user": "bob"}], [0, 2, 1]),
        ([{"user": "ann"}, {"user": "ann"}, {"safety_identifier": "cy", "user": "ann"}], [0, 2, 1]),
        ([{"service_tier": tier} for tier in ("flex", "auto", "priority")], [2, 1, 0]),
    ],
)
def test_who_goes_first(
    visitor: Visitor, server: ServerProcess, fields: list[dict[str, Any]], order: list[int]
) -> None:
    """A user with two waiting requests does not hold up another; flex runs when others are idle."""
    with ExitStack() as places, ExitStack() as slot:
        slot.enter_context(visitor.running())
        waiting = [places.enter_context(visitor.queued(max_tokens=2, **own)) for own in fields]
        slot.close()
        for stream in waiting:
            stream.read_to_the_end()
        log = [server.wait_for_line(f" 200 .* id={stream.id}") for stream in waiting]
    assert sorted(range(3), key=lambda index: server.lines.index(log[index])) == order


def test_hanging_up_frees_the_slot(visitor: Visitor, client: OpenAI) -> None:
    """Each round would be refused if the ones before it were still there."""
    for _ in range(6):
        with visitor.running():
            pass
    assert ask(client, max_tokens=1).usage


def test_hanging_up_in_the_queue_frees_the_place(visitor: Visitor) -> None:
    with visitor.running():
        for _ in range(5):
            with visitor.queued():
                pass


def test_hanging_up_without_a_stream(visitor: Visitor, client: OpenAI) -> None:
    with visitor.running():
        for _ in range(5):
            visitor.give_up()
    assert ask(client, max_tokens=1).usage


def test_hanging_up_in_prefill(visitor: Visitor, client: OpenAI) -> None:
    for index in range(3):
        prompt = messages(f"{index} words " * 60)
        with visitor.stream(until='"role"', messages=prompt):
            pass
    assert ask(client, max_tokens=1).usage


def test_the_freed_slot_has_no_trace(visitor: Visitor, client: OpenAI) -> None:
    before = ask(client).choices[0].message.content
    with visitor.running():
        pass
    assert ask(client).choices[0].message.content == before
