"""Chat completions with `store: true`: what is kept, and OpenAI's routes to it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from engine.errors import StepFailed
from server.config import ServerConfig
from tests.server.asgi import Client
from tests.server.conftest import MODEL
from tests.server.fakes import failure

pytestmark = pytest.mark.anyio
PATH = "/v1/chat/completions"


async def stored(client: Client, **fields: Any) -> str:
    """The id of a new completion."""
    answer = await client.chat(store=True, **fields)
    assert answer.status == 200, answer.body
    id: str = answer.events()[0]["id"] if fields.get("stream") else answer.json()["id"]
    return id


async def ids(client: Client, query: str = "") -> list[str]:
    page = (await client.get(PATH + query)).json()
    found = [each["id"] for each in page["data"]]
    assert page["object"] == "list"
    assert page["first_id"] == (found[0] if found else None)
    assert page["last_id"] == (found[-1] if found else None)
    return found


async def test_only_what_is_to_be_stored_is(client, config):
    await client.chat()
    await client.chat(store=False)
    assert await ids(client) == []
    assert not config.store.exists()


@pytest.mark.parametrize("prefix", ["/v1", ""])
async def test_it_comes_back_as_it_was_answered(client, prefix):
    answer = (await client.chat(store=True, metadata={"k": "v"}, logprobs=True)).json()
    again = (await client.get(f"{prefix}/chat/completions/{answer['id']}")).json()
    assert {name: again[name] for name in answer} == answer
    assert again["choices"][0]["message"]["content"] == "Hello"
    assert again["metadata"] == {"k": "v"}


async def test_it_tells_what_was_asked_for(client):
    answer = await client.chat(
        store=True,
        seed=7,
        temperature=0.5,
        user="u",
        response_format={"type": "text"},
        tools=[{"type": "function", "function": {"name": "f"}}],
        tool_choice="none",
    )
    again = (await client.get(f"{PATH}/{answer.json()['id']}")).json()
    assert again["request_id"] == answer.headers["x-request-id"]
    names = ("seed", "temperature", "top_p", "input_user", "tool_choice", "metadata")
    assert [again[name] for name in names] == [7, 0.5, 1.0, "u", "none", {}]
    assert again["response_format"] == {"type": "text"}
    assert again["tools"][0]["function"]["name"] == "f"


async def test_a_stream_is_stored_before_its_last_word(client):
    exchange = client.begin(
        "POST",
        PATH,
        {"model": "alias", "messages": [{"role": "user", "content": "Hi"}]}
        | {"stream": True, "store": True, "n": 2, "metadata": {"k": "v"}},
    )
    await exchange.until(b"[DONE]")
    id = exchange.events()[0]["id"]
    again = (await client.get(f"{PATH}/{id}")).json()
    await exchange.finish()
    assert again["object"] == "chat.completion"
    assert [choice["message"]["content"] for choice in again["choices"]] == ["Hello", "Hello"]
    assert again["usage"]["completion_tokens"] == 10
    assert again["metadata"] == {"k": "v"}


async def test_a_stream_that_fails_or_is_left_is_not_stored(client, engine):
    engine.script = failure(StepFailed("broken"), after="Hel")
    assert (await client.chat(stream=True, store=True)).events()[-1]["error"]
    engine.hold.clear()
    left = client.begin(
        "POST",
        PATH,
        {"messages": [{"role": "user", "content": "Hi"}], "stream": True, "store": True},
    )
    await left.until(b"assistant")
    await left.hang_up()
    assert engine.cancelled
    assert await ids(client) == []


async def test_the_messages(client):
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": parts, "name": "Ann"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "4", "tool_call_id": "c1"},
    ]
    id = await stored(client, messages=messages)
    page = (await client.get(f"{PATH}/{id}/messages")).json()
    assert [message["id"] for message in page["data"]] == [f"{id}-{index}" for index in range(4)]
    assert [message["role"] for message in page["data"]] == ["system", "user", "assistant", "tool"]
    assert page["data"][0] | {"content": "Be brief.", "content_parts": None} == page["data"][0]
    assert page["data"][1] | {"content": "one\ntwo", "name": "Ann"} == page["data"][1]
    assert page["data"][1]["content_parts"] == parts
    assert page["data"][2]["tool_calls"] == [call]
    assert page["data"][3]["tool_call_id"] == "c1"
    assert (page["first_id"], page["last_id"], page["has_more"]) == (f"{id}-0", f"{id}-3", False)


async def test_pages_of_messages(client):
    turns = [{"role": "user", "content": str(index)} for index in range(5)]
    id = await stored(client, messages=turns)

    async def contents(query: str) -> tuple[list[str], bool]:
        page = (await client.get(f"{PATH}/{id}/messages?{query}")).json()
        return [message["content"] for message in page["data"]], page["has_more"]

    assert await contents("limit=2") == (["0", "1"], True)
    assert await contents(f"limit=3&after={id}-1") == (["2", "3", "4"], False)
    assert await contents(f"limit=2&order=desc&after={id}-3") == (["2", "1"], True)
    bad = await client.get(f"{PATH}/{id}/messages?after=nonsense")
    assert (bad.status, bad.json()["detail"][0]["loc"]) == (400, ["query", "after"])


async def test_lists_filter_and_page(client):
    first = await stored(client, metadata={"colour": "red", "a b": "c&d"})
    second = await stored(client, metadata={"colour": "red"}, stream=True)
    third = await stored(client, metadata={"colour": "blue"})
    assert await ids(client) == [first, second, third]
    assert await ids(client, "?order=desc") == [third, second, first]
    assert await ids(client, "?limit=2") == [first, second]
    assert await ids(client, f"?after={second}") == [third]
    assert await ids(client, "?metadata[colour]=red") == [first, second]
    assert await ids(client, "?metadata%5Bcolour%5D=red&metadata[a+b]=c%26d") == [first]
    assert await ids(client, "?model=fake-model&limit=1") == [first]
    assert await ids(client, "?model=other") == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("order=up", "order"),
        ("after=ghost", "after"),
    ],
)
async def test_bad_queries_are_refused_by_name(client, query, param):
    await stored(client)
    answer = await client.get(f"{PATH}?{query}")
    assert (answer.status, answer.json()["detail"][0]["loc"]) == (400, ["query", param])


async def test_what_a_query_means_nothing_by_is_listed(client):
    answer = await client.get(f"{PATH}?nonsense=1&metadata[k]=v&limit=3")
    assert answer.headers["x-ignored-params"] == "nonsense"


async def test_metadata_can_be_changed_and_nothing_else(client):
    id = await stored(client, metadata={"old": "1"})
    changed = (await client.post(f"{PATH}/{id}", {"metadata": {"new": "2"}})).json()
    assert changed["metadata"] == {"new": "2"}
    assert changed["id"] == id
    assert await ids(client, "?metadata[old]=1") == []
    assert await ids(client, "?metadata[new]=2") == [id]
    assert (await client.post(f"{PATH}/{id}", {"metadata": None})).json()["metadata"] == {}
    for body in ({}, {"metadata": {"k": "v" * 513}}, {"metadata": {"k": 1}}):
        answer = await client.post(f"{PATH}/{id}", body)
        assert (answer.status, answer.json()["detail"][0]["loc"][:2]) == (400, ["body", "metadata"])
    answer = await client.post(f"{PATH}/{id}", {"metadata": {}, "model": "x"})
    assert answer.headers["x-ignored-params"] == "model"


async def test_delete(client):
    id = await stored(client)
    answer = await client.request("DELETE", f"{PATH}/{id}")
    assert answer.json() == {"id": id, "object": "chat.completion.deleted", "deleted": True}
    for method, path in (("DELETE", id), ("GET", id), ("GET", f"{id}/messages")):
        gone = await client.request(method, f"{PATH}/{path}")
        assert (gone.status, gone.json()["error"]["code"]) == (404, "not_found")
    assert (await client.post(f"{PATH}/{id}", {"metadata": {}})).status == 404


class TestNoStore:
    @pytest.fixture
    def config(self, tmp_path: Path) -> ServerConfig:
        return ServerConfig(models=(MODEL,), store=tmp_path / "store.sqlite3", store_mib=0)

    async def test_a_server_that_stores_nothing_says_so(self, client):
        answer = await client.chat(store=True)
        assert (answer.status, answer.json()["error"]["param"]) == (400, "store")
        assert await ids(client) == []


async def test_a_broken_store_is_told_before_anything_is_computed(client, engine, config):
    config.store.write_bytes(b"this is no database" * 100)
    for stream in (False, True):
        answer = await client.chat(store=True, stream=stream)
        assert (answer.status, answer.json()["error"]["code"]) == (507, "store_unavailable")
        assert answer.headers["x-should-retry"] == "false"
    assert engine.requests == []
    assert (await client.get(PATH)).status == 507
    assert (await client.chat()).status == 200


def fill(path: Path) -> None:
    """As a full disk would: nothing more can be written."""
    with sqlite3.connect(path) as database:
        database.execute(
            "CREATE TRIGGER full BEFORE INSERT ON documents"
            " BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END"
        )
    database.close()


async def test_an_answer_that_cannot_be_stored_is_given_and_says_so(client, config):
    await stored(client)
    fill(config.store)
    whole = (await client.chat(store=True)).json()
    assert whole["choices"][0]["message"]["content"] == "Hello"
    assert "disk is full" in whole["store_error"]
    stream = await client.chat(store=True, stream=True)
    assert b"\n\n: store_error: the store " in stream.body
    assert stream.events()[-1] == "[DONE]"
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in stream.events()[:-1]) == (
        "Hello"
    )
