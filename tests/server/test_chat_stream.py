"""Streams on a fake engine: chunks, silence, hanging up, failing midway."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from engine.errors import EngineUnavailable, StepFailed
from engine.request import Request, TokenOutput
from engine.settings import ModelSettings
from server.config import ModelConfig, ServerConfig
from tests.server.asgi import Client, chat_body
from tests.server.fakes import FakeEngine, answer, done, failure, logprobs

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"


async def test_chunks_have_openais_shape(client: Client) -> None:
    response = await client.chat(stream=True)
    *chunks, end = response.events()
    assert end == "[DONE]"
    assert response.headers["content-type"].startswith("text/event-stream")
    assert "content-length" not in response.headers
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(c["id"], c["created"], c["model"]) for c in chunks}) == 1
    assert all("usage" not in chunk for chunk in chunks)
    choices = [chunk["choices"][0] for chunk in chunks]
    assert choices[0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert [choice["delta"].get("content") for choice in choices[1:-1]] == list("Hello")
    assert choices[-1]["delta"] == {}
    assert [c["finish_reason"] for c in choices] == [None] * (len(choices) - 1) + ["stop"]
    assert choices[-1]["stop_reason"] == 2


async def test_usage_comes_in_a_chunk_of_its_own(client: Client) -> None:
    response = await client.chat(stream=True, stream_options={"include_usage": True})
    *chunks, last, _ = response.events()
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 5
    assert last["usage"]["prompt_tokens_details"]["cached_tokens"] == 4
    assert last["timings"]["predicted_n"] == 5


async def test_n_choices_each_have_a_role_and_an_end(client: Client) -> None:
    *chunks, _ = (await client.chat(stream=True, n=3)).events()
    choices = [chunk["choices"][0] for chunk in chunks]
    for index in range(3):
        mine = [choice for choice in choices if choice["index"] == index]
        assert mine[0]["delta"]["role"] == "assistant"
        assert "".join(c["delta"].get("content", "") for c in mine) == "Hello"
        assert mine[-1]["finish_reason"] == "stop"


async def test_logprobs_come_with_their_text(client: Client) -> None:
    *chunks, _ = (await client.chat(stream=True, logprobs=True, top_logprobs=1)).events()
    tokens = [c["choices"][0]["logprobs"] for c in chunks if c["choices"][0]["logprobs"]]
    assert [token["content"][0]["token"] for token in tokens] == list("Hello")
    assert all(len(token["content"][0]["top_logprobs"]) == 1 for token in tokens)


async def test_empty_outputs_are_not_sent(client: Client, engine: FakeEngine) -> None:
    engine.script = lambda request: [
        TokenOutput(index=0, text="", n_tokens=1),
        TokenOutput(index=0, text="😀", n_tokens=1),
        done(),
    ]
    *chunks, _ = (await client.chat(stream=True)).events()
    assert [c["choices"][0]["delta"]["content"] for c in chunks] == ["", "😀"]


async def test_logprobs_without_text_are_sent(client: Client, engine: FakeEngine) -> None:
    engine.script = lambda request: [
        TokenOutput(index=0, text="", n_tokens=1, logprobs=logprobs("x", 0)),
        done(),
    ]
    _, chunk, _ = (await client.chat(stream=True, logprobs=True)).events()
    assert chunk["choices"][0]["delta"] == {"content": ""}
    assert chunk["choices"][0]["logprobs"]["content"][0]["token"] == "x"


async def test_failure_midway_is_an_error_event(client: Client, engine: FakeEngine) -> None:
    engine.script = failure(StepFailed("the step raised"), after="He")
    response = await client.chat(stream=True)
    events = response.events()
    assert response.status == 200
    assert events[-1]["error"]["code"] == "step_failed"
    assert "[DONE]" not in events


async def test_refusal_before_the_stream_is_a_status(client: Client, engine: FakeEngine) -> None:
    engine.refusal = EngineUnavailable("draining")
    response = await client.chat(stream=True)
    assert response.status == 503
    assert response.headers["retry-after"] == "10"
    assert "draining" in response.json()["error"]["message"]


async def test_stream_begins_before_the_engine_says_anything(
    client: Client, engine: FakeEngine
) -> None:
    engine.hold.clear()
    exchange = client.begin("POST", CHAT, chat_body(stream=True))
    await exchange.until(b'"role":"assistant"')
    assert exchange.status == 200
    engine.hold.set()
    await exchange.finish()
    assert exchange.events()[-1] == "[DONE]"


@pytest.mark.parametrize("stream", [True, False])
async def test_hanging_up_cancels_at_once(client: Client, engine: FakeEngine, stream: bool) -> None:
    engine.hold.clear()
    exchange = client.begin("POST", CHAT, chat_body(stream=stream))
    await asyncio.wait_for(engine.submitted.wait(), 10)
    await exchange.hang_up()
    await asyncio.wait_for(engine.cancellation.wait(), 10)
    assert engine.cancelled == [engine.requests[0].id]
    assert b"[DONE]" not in exchange.body


async def test_a_finished_request_is_not_cancelled(client: Client, engine: FakeEngine) -> None:
    await client.chat(stream=True)
    await client.chat()
    assert engine.cancelled == []


@pytest.mark.parametrize("stream", [True, False])
async def test_hanging_up_is_logged_as_499(
    client: Client, engine: FakeEngine, caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    caplog.set_level("INFO", "ingle.access")
    engine.hold.clear()
    exchange = client.begin("POST", CHAT, chat_body(stream=stream))
    await asyncio.wait_for(engine.submitted.wait(), 10)
    await exchange.hang_up()
    assert " 499 " in caplog.messages[-1]


async def test_cancellation_from_outside_is_not_swallowed(
    client: Client, engine: FakeEngine
) -> None:
    engine.hold.clear()
    exchange = client.begin("POST", CHAT, chat_body(stream=True))
    await exchange.until(b"assistant")
    exchange.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await exchange.task
    assert engine.cancelled == [engine.requests[0].id]


class TestKeepalive:
    """With a clock that strikes often."""

    @pytest.fixture
    def config(self) -> ServerConfig:
        model = ModelConfig(name="fake-model", settings=ModelSettings(path=Path("fake.gguf")))
        return ServerConfig(models=(model,), keepalive=0.01)

    async def test_silence_is_broken_by_comments(self, client: Client, engine: FakeEngine) -> None:
        engine.hold.clear()
        exchange = client.begin("POST", CHAT, chat_body(stream=True))
        await exchange.until(b": keepalive\n\n: keepalive\n\n")
        engine.hold.set()
        await exchange.finish()
        texts = [c["choices"][0]["delta"].get("content", "") for c in exchange.events()[:-1]]
        assert "".join(texts) == "Hello"

    async def test_hanging_up_in_silence(self, client: Client, engine: FakeEngine) -> None:
        engine.hold.clear()
        exchange = client.begin("POST", CHAT, chat_body(stream=True))
        await exchange.until(b": keepalive")
        await exchange.hang_up()
        assert engine.cancelled == [engine.requests[0].id]


async def test_no_comments_while_it_speaks(client: Client, engine: FakeEngine) -> None:
    def script(request: Request):  # type: ignore[no-untyped-def]
        yield from answer("x" * 200)(request)

    engine.script = script
    response = await client.chat(stream=True)
    assert b": keepalive" not in response.body
