"""POST /v1/messages on a fake engine: shapes, events in order, pings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.request import FinishReason
from engine.settings import ModelSettings
from server.api.messages_input import KEPT_THOUGHT
from server.config import ModelConfig, ServerConfig
from tests.server.anthropic_requests import ask, streamed
from tests.server.asgi import Client
from tests.server.fakes import FakeEngine, answer, thinking_engine

pytestmark = pytest.mark.anyio

TOOL = {
    "name": "look",
    "input_schema": {
        "type": "object",
        "properties": {"at": {"type": "string"}},
        "required": ["at"],
        "additionalProperties": False,
    },
}
CALL = '<tool_call>\n{"name": "look", "arguments": {"at": "sky"}}\n</tool_call>'


async def test_the_whole_message(client: Client, engine: FakeEngine) -> None:
    response = await ask(client, nonsense=1, anthropic_beta=["x"])
    message = response.json()
    assert message.pop("id").startswith("msg_")
    assert message == {
        "type": "message",
        "role": "assistant",
        "model": "fake-model",
        "content": [{"type": "text", "text": "Hello", "citations": None}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": len(engine.requests[0].prompt) - 4,
            "cache_read_input_tokens": 4,
            "cache_creation_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 5,
            "output_tokens_details": {"thinking_tokens": 0},
            "service_tier": "standard",
        },
    }
    assert response.headers["x-ignored-params"] == "nonsense, anthropic_beta"
    assert response.headers["request-id"] == response.headers["x-request-id"]


async def test_options_reach_the_engine(client: Client, engine: FakeEngine) -> None:
    await ask(
        client,
        max_tokens=7,
        temperature=0.3,
        top_k=5,
        top_p=0.5,
        stop_sequences=["a", "b"],
        metadata={"user_id": "me"},
    )
    request = engine.requests[0]
    assert (request.max_tokens, request.stop, request.user) == (7, ("a", "b"), "user:me")
    assert (request.sampling.temperature, request.sampling.top_k, request.sampling.top_p) == (
        0.3,
        5,
        0.5,
    )


@pytest.mark.parametrize(
    ("finish", "stop", "reason", "sequence"),
    [
        (FinishReason.STOP, 2, "end_turn", None),
        (FinishReason.STOP, "END", "stop_sequence", "END"),
        (FinishReason.LENGTH, None, "max_tokens", None),
    ],
)
async def test_why_it_stopped(
    client: Client,
    engine: FakeEngine,
    finish: FinishReason,
    stop: object,
    reason: str,
    sequence: str | None,
) -> None:
    engine.script = answer("Hello", finish, stop)
    message = (await ask(client)).json()
    assert (message["stop_reason"], message["stop_sequence"]) == (reason, sequence)
    _, delta = (await streamed(client))[-2]
    assert delta["delta"] == {"stop_reason": reason, "stop_sequence": sequence}


async def test_an_answer_that_the_context_cut_says_so(client: Client, engine: FakeEngine) -> None:
    engine.script = answer("Hello", FinishReason.LENGTH, None)
    message = (await ask(client, max_tokens=32000)).json()
    assert message["stop_reason"] == "model_context_window_exceeded"


async def test_events_come_in_anthropics_order(client: Client, engine: FakeEngine) -> None:
    events = await streamed(client)
    assert [name for name, _ in events] == [
        "message_start",
        "ping",
        "content_block_start",
        *["content_block_delta"] * 5,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    start = events[0][1]["message"]
    assert start["content"] == []
    assert start["stop_reason"] is None
    assert start["usage"]["input_tokens"] == len(engine.requests[0].prompt)
    assert events[2][1]["content_block"] == {"type": "text", "text": "", "citations": None}
    deltas = [data["delta"] for name, data in events if name == "content_block_delta"]
    assert deltas == [{"type": "text_delta", "text": char} for char in "Hello"]
    assert {data["index"] for name, data in events if name.startswith("content")} == {0}
    usage = events[-2][1]["usage"]
    assert usage["input_tokens"] == start["usage"]["input_tokens"] - 4
    assert (usage["cache_read_input_tokens"], usage["output_tokens"]) == (4, 5)


class TestTools:
    async def test_a_call(self, client: Client, engine: FakeEngine) -> None:
        engine.script = answer(CALL)
        message = (await ask(client, tools=[TOOL])).json()
        (block,) = message["content"]
        assert block.pop("id")
        assert block == {"type": "tool_use", "name": "look", "input": {"at": "sky"}}
        assert message["stop_reason"] == "tool_use"
        assert engine.requests[0].grammar is not None

    async def test_text_and_calls_are_blocks_of_a_stream(
        self, client: Client, engine: FakeEngine
    ) -> None:
        engine.script = answer(f"I look.\n{CALL}\n{CALL}")
        events = await streamed(client, tools=[TOOL])
        starts = [data for name, data in events if name == "content_block_start"]
        assert [s["content_block"]["type"] for s in starts] == ["text", "tool_use", "tool_use"]
        assert [s["index"] for s in starts] == [0, 1, 2]
        assert starts[1]["content_block"]["input"] == {}
        assert starts[1]["content_block"]["id"] != starts[2]["content_block"]["id"]
        for index in (1, 2):
            json_text = "".join(
                data["delta"]["partial_json"]
                for name, data in events
                if name == "content_block_delta" and data["index"] == index
            )
            assert json.loads(json_text) == {"at": "sky"}
        assert [n for n, _ in events].count("content_block_stop") == 3
        assert events[-2][1]["delta"]["stop_reason"] == "tool_use"

    async def test_a_call_that_was_cut_short(self, client: Client, engine: FakeEngine) -> None:
        engine.script = answer(CALL[:-22], FinishReason.LENGTH, None)
        message = (await ask(client, tools=[TOOL], max_tokens=9)).json()
        assert message["content"][0]["input"] == {"INVALID_JSON": '{"at"'}
        assert message["stop_reason"] == "max_tokens"

    async def test_refusals_name_the_place_in_the_request(self, client: Client) -> None:
        search = {"type": "web_search_20250305", "name": "web_search"}
        nameless = TOOL | {"name": ""}
        error = (await ask(client, tools=[search, nameless])).json()["error"]
        assert error["message"].startswith("tools[1].name: ")
        schema = {"type": "object", "properties": {"x": {"pattern": "(a)\\1"}}}
        response = await ask(client, tools=[search, TOOL | {"input_schema": schema}])
        assert response.status == 400
        choice = {"type": "any"}
        response = await ask(client, tools=[search], tool_choice=choice)
        assert response.json()["error"]["message"].startswith("tool_choice is 'required', but")

    async def test_skipped_tools_are_reported(self, client: Client) -> None:
        search = {"type": "web_search_20250305", "name": "web_search"}
        response = await ask(client, tools=[search, TOOL])
        assert response.headers["x-ignored-params"] == "tools[0] (web_search_20250305)"


class TestThoughts:
    """On a template that opens a thought."""

    @pytest.fixture
    def engine(self) -> FakeEngine:
        return thinking_engine()

    async def test_a_thought_is_a_block(self, client: Client) -> None:
        message = (await ask(client)).json()
        thought, text = message["content"]
        assert (thought["type"], thought["thinking"]) == ("thinking", "Hm.")
        assert thought["signature"]
        assert text["text"] == "Hello"
        assert message["usage"]["output_tokens_details"]["thinking_tokens"] > 0

    async def test_a_thought_in_a_stream_ends_with_its_signature(self, client: Client) -> None:
        events = await streamed(client)
        deltas = [data for name, data in events if name == "content_block_delta"]
        kinds = list(dict.fromkeys((d["index"], d["delta"]["type"]) for d in deltas))
        assert kinds == [(0, "thinking_delta"), (0, "signature_delta"), (1, "text_delta")]
        whole = (await ask(client)).json()["content"][0]
        thought = "".join(d["delta"].get("thinking", "") for d in deltas)
        signatures = [d["delta"]["signature"] for d in deltas if "signature" in d["delta"]]
        assert (thought, signatures) == (whole["thinking"], [whole["signature"]])

    async def test_a_thought_may_be_hidden(self, client: Client, engine: FakeEngine) -> None:
        hidden = {"type": "adaptive", "display": "omitted"}
        thought, text = (await ask(client, thinking=hidden)).json()["content"]
        assert thought["thinking"] == ""
        assert thought["signature"].startswith(KEPT_THOUGHT)
        events = await streamed(client, thinking=hidden)
        assert "Hm" not in json.dumps(events)
        turns = [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": [thought, text]},
            {"role": "user", "content": "Bye"},
        ]
        await ask(client, messages=turns)
        assert "<think>\nHm.\n</think>" in prompt_of(engine)

    async def test_thinking_can_be_turned_off(self, client: Client, engine: FakeEngine) -> None:
        engine.script = answer("Hello")
        message = (await ask(client, thinking={"type": "disabled"})).json()
        assert [block["type"] for block in message["content"]] == ["text"]
        assert prompt_of(engine).endswith("<think>\n</think>\n\n")

    async def test_a_budget_reaches_the_engine(self, client: Client, engine: FakeEngine) -> None:
        await ask(client, thinking={"type": "enabled", "budget_tokens": 2048})
        assert engine.requests[0].thought is not None
        assert engine.requests[0].thought.tokens == 2048
        response = await ask(client, thinking={"type": "enabled", "budget_tokens": -1})
        message = response.json()["error"]["message"]
        assert message == "thinking.budget_tokens must be at least 0, but is -1"


def prompt_of(engine: FakeEngine) -> str:
    return engine.tokenizer.decode(engine.requests[-1].prompt)


class TestPrefill:
    async def test_the_prompt_ends_with_it(self, client: Client, engine: FakeEngine) -> None:
        turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "One, {"}]
        message = (await ask(client, messages=turns)).json()
        assert prompt_of(engine) == "<user>Hi<assistant>One, {"
        assert message["content"][0]["text"] == "Hello"
        counted = (await ask(client, "/count_tokens", messages=turns)).json()
        assert counted["input_tokens"] == len(engine.requests[0].prompt)

    @pytest.mark.parametrize(
        ("last", "more", "message"),
        [
            (" ", {}, "messages[1].content: there is no text to continue"),
            (
                [{"type": "tool_use", "id": "a", "name": "x", "input": {}}],
                {},
                "messages[1]: only text of the assistant can be continued",
            ),
            (
                "{",
                {"output_config": {"format": {"type": "json_schema", "schema": {}}}},
                "messages: an answer in a format cannot begin with the last message",
            ),
        ],
    )
    async def test_what_cannot_be_continued(
        self, client: Client, last: Any, more: Any, message: str
    ) -> None:
        turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": last}]
        response = await ask(client, messages=turns, **more)
        assert response.status == 400
        assert response.json()["error"]["message"] == message


class TestPings:
    @pytest.fixture
    def config(self) -> ServerConfig:
        model = ModelConfig(name="fake-model", settings=ModelSettings(path=Path("fake.gguf")))
        return ServerConfig(models=(model,), keepalive=0.01)

    async def test_silence_is_broken_by_pings(self, client: Client, engine: FakeEngine) -> None:
        engine.hold.clear()
        body = {"max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], "stream": True}
        exchange = client.begin("POST", "/v1/messages", body)
        await exchange.until(b'event: ping\ndata: {"type":"ping"}\n\n' * 3)
        engine.hold.set()
        await exchange.finish()
        assert b"keepalive" not in exchange.body
        assert exchange.body.endswith(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')


class TestCounting:
    async def test_the_count_is_that_of_the_prompt(
        self, client: Client, engine: FakeEngine
    ) -> None:
        fields = {
            "system": "Be brief.",
            "tools": [{"name": "t", "input_schema": {}}],
            "thinking": {"type": "disabled"},
        }
        await ask(client, **fields)
        response = await ask(client, "/count_tokens", **fields)
        assert response.json() == {"input_tokens": len(engine.requests[0].prompt)}
        assert len(engine.requests) == 1

    async def test_a_prompt_that_does_not_fit_is_counted_too(self, client: Client) -> None:
        messages = [{"role": "user", "content": "x" * 600}]
        response = await ask(client, "/count_tokens", messages=messages)
        assert response.json() == {"input_tokens": 617}
