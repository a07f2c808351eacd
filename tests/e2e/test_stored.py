"""Stored chat completions with the official client, and a server that is killed.

INGLE_LONG=1 kills it after 500 answers instead of 8, while more are written.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.e2e.chat import QUESTION, ask, text_of
from tests.e2e.server_process import ServerProcess

WRITES = 500 if "INGLE_LONG" in os.environ else 8
WRITERS = 4


def test_the_clients_own_methods(client: OpenAI) -> None:
    whole = ask(client, store=True, metadata={"suite": "stored", "n": "1"})
    stream = list(ask(client, store=True, stream=True, metadata={"suite": "stored", "n": "2"}))
    completions = client.chat.completions
    again = completions.retrieve(whole.id)
    assert text_of(again) == text_of(whole)
    assert again.usage == whole.usage
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text_of(completions.retrieve(stream[0].id)) == streamed == text_of(whole)

    found = list(completions.list(metadata={"suite": "stored"}, limit=1))
    assert [each.id for each in found] == [whole.id, stream[0].id], "the client turns the pages"
    assert [each.id for each in completions.list(metadata={"n": "2"}, order="desc")] == [
        stream[0].id
    ]
    messages = list(completions.messages.list(whole.id, limit=1))
    assert [(each.role, each.content) for each in messages] == [
        (each["role"], each["content"]) for each in QUESTION
    ]
    assert completions.update(whole.id, metadata={"suite": "other"}).id == whole.id
    assert [each.id for each in completions.list(metadata={"suite": "other"})] == [whole.id]
    assert completions.delete(whole.id).deleted
    with pytest.raises(openai.NotFoundError):
        completions.retrieve(whole.id)


def test_tool_calls_are_stored_too(client: OpenAI) -> None:
    tool: Any = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    whole = ask(client, store=True, tools=[tool], tool_choice="required", max_tokens=40)
    stream = list(
        ask(client, store=True, tools=[tool], tool_choice="required", max_tokens=40, stream=True)
    )
    again = client.chat.completions.retrieve(whole.id)
    assert again.choices == whole.choices
    assert again.choices[0].message.tool_calls
    from_stream = client.chat.completions.retrieve(stream[0].id)
    ids = [c.id for chunk in stream for c in chunk.choices[0].delta.tool_calls or [] if c.id]
    assert [call.id for call in from_stream.choices[0].message.tool_calls or []] == ids


@pytest.fixture
def store(tmp_path: Path) -> Iterator[tuple[str, ...]]:
    yield ("--store", str(tmp_path / "store.sqlite3"), "--parallel", "8", "--context", "256")


def test_a_killed_server_forgets_nothing_that_it_answered(store: tuple[str, ...]) -> None:
    answered: queue.SimpleQueue[str] = queue.SimpleQueue()

    def write(client: OpenAI) -> None:
        # Until the server is gone, however fast it answers.
        with contextlib.suppress(openai.APIConnectionError):
            while True:
                answered.put(ask(client, store=True, max_tokens=1).id)

    with ServerProcess(store) as server:
        clients = [
            OpenAI(base_url=server.base_url, api_key="k", max_retries=0) for _ in range(WRITERS)
        ]
        writers = [threading.Thread(target=write, args=(client,)) for client in clients]
        for writer in writers:
            writer.start()
        ids = [answered.get(timeout=600) for _ in range(WRITES)]
        server.process.kill()
        for writer in writers:
            writer.join()
    ids += [answered.get() for _ in range(answered.qsize())]
    with ServerProcess(store) as again:
        client = OpenAI(base_url=again.base_url, api_key="k", max_retries=0)
        kept = {completion.id for completion in client.chat.completions.list(limit=100)}
    assert len(set(ids)) == len(ids) >= WRITES
    assert set(ids) <= kept
