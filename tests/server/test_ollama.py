"""Ollama's door on a fake engine: lines, calls, thoughts, options, errors, lists."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from engine.errors import QueueFull, StepFailed
from engine.llama.tokenizer import InfillTokens
from engine.request import FinishReason
from tests.server.asgi import Client
from tests.server.fakes import INFO, FakeEngine, answer, failure, thinking_engine
from tests.server.ollama_requests import HI, chat, generate, lines, said

pytestmark = pytest.mark.anyio

TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "parameters": {
            "type": "object",
            "properties": {"at": {"type": "string"}},
            "required": ["at"],
        },
    },
}
CALL = '<tool_call>\n{"name": "look", "arguments": {"at": "sky"}}\n</tool_call>'


class TestAnswers:
    async def test_whole_chat(self, client: Client, engine: FakeEngine) -> None:
        body = (await chat(client)).json()
        assert datetime.fromisoformat(body.pop("created_at")).tzinfo is not None
        assert body.pop("load_duration") < 1e9
        assert body.pop("total_duration") >= 2.75e9
        assert body == {
            "model": "fake-model",
            "message": {"role": "assistant", "content": "Hello"},
            "done": True,
            "done_reason": "stop",
            "prompt_eval_count": len(engine.requests[0].prompt),
            "prompt_eval_duration": 500_000_000,
            "eval_count": 5,
            "eval_duration": 2_000_000_000,
        }

    async def test_streams_by_default(self, client: Client) -> None:
        exchange = await client.post("/api/chat", {"model": "fake-model", "messages": HI})
        got = lines(exchange)
        assert said(got) == "Hello"
        assert [line["done"] for line in got] == [False] * 5 + [True]
        assert got[-1]["eval_count"] == 5 and got[-1]["done_reason"] == "stop"
        assert all(line["message"]["role"] == "assistant" for line in got)

    async def test_generate(self, client: Client, engine: FakeEngine) -> None:
        body = (await generate(client, system="Be brief.")).json()
        assert (body["response"], body["done_reason"]) == ("Hello", "stop")
        assert "message" not in body
        prompt = engine.tokenizer.decode(engine.requests[0].prompt)
        assert prompt == "<system>Be brief.<user>Hi<assistant>"
        got = lines(await generate(client, stream=True))
        assert "".join(line["response"] for line in got) == "Hello"

    async def test_raw_is_the_prompt_and_no_more(self, client: Client, engine: FakeEngine) -> None:
        await generate(client, raw=True, prompt="Once")
        assert engine.tokenizer.decode(engine.requests[0].prompt) == "Once"

    async def test_a_suffix_is_infilled(self, client: Client, engine: FakeEngine) -> None:
        engine.tokenizer.infill = InfillTokens(*map(ord, "<|>"))
        body = (await generate(client, prompt="ab", suffix="yz")).json()
        assert body["response"] == "Hello"
        [request] = engine.requests
        assert engine.tokenizer.decode(request.prompt) == "<ab|yz>"
        assert request.max_tokens == INFO.context - 7

    async def test_length(self, client: Client, engine: FakeEngine) -> None:
        engine.script = answer("Hell", FinishReason.LENGTH, None)
        assert (await chat(client)).json()["done_reason"] == "length"
        assert lines(await chat(client, stream=True))[-1]["done_reason"] == "length"

    @pytest.mark.parametrize("stream", [False, True])
    async def test_logprobs(self, client: Client, stream: bool) -> None:
        exchange = await chat(client, logprobs=True, top_logprobs=2, stream=stream)
        got = lines(exchange) if stream else [exchange.json()]
        tokens = [each for line in got for each in line.get("logprobs", [])]
        assert "".join(each["token"] for each in tokens) == "Hello"
        assert [len(each["top_logprobs"]) for each in tokens] == [2] * 5


class TestCalls:
    @pytest.mark.parametrize("stream", [False, True])
    async def test_arguments_are_an_object(
        self, client: Client, engine: FakeEngine, stream: bool
    ) -> None:
        engine.script = answer("Well. " + CALL + "\n" + CALL)
        exchange = await chat(client, tools=[TOOL], stream=stream)
        got = lines(exchange) if stream else [exchange.json()]
        calls = [call for line in got for call in line["message"].get("tool_calls", [])]
        assert [call["function"] for call in calls] == [
            {"name": "look", "arguments": {"at": "sky"}, "index": index} for index in (0, 1)
        ]
        assert len({call["id"] for call in calls}) == 2
        assert said(got).strip() == "Well."
        assert got[-1]["done_reason"] == "stop"

    @pytest.mark.parametrize("stream", [False, True])
    async def test_a_call_that_was_cut_short_is_text(
        self, client: Client, engine: FakeEngine, stream: bool
    ) -> None:
        engine.script = answer(CALL[:45], FinishReason.LENGTH, None)
        exchange = await chat(client, tools=[TOOL], stream=stream)
        got = lines(exchange) if stream else [exchange.json()]
        assert not any("tool_calls" in line["message"] for line in got)
        assert "look" in said(got)

    async def test_results_find_their_calls(self, client: Client, engine: FakeEngine) -> None:
        call = {"function": {"name": "look", "arguments": {"at": "sky"}}}
        other = {"function": {"name": "go", "arguments": {}}}
        history = [
            *HI,
            {"role": "assistant", "tool_calls": [other, call]},
            {"role": "tool", "tool_name": "look", "content": "blue"},
            {"role": "tool", "content": "gone"},
            {"role": "user", "content": "So?"},
        ]
        response = await chat(client, messages=history)
        assert response.status == 200, response.body
        prompt = engine.tokenizer.decode(engine.requests[0].prompt)
        assert prompt.index("sky") < prompt.index("blue") < prompt.index("gone")


class TestThoughts:
    @pytest.fixture
    async def engine(self) -> FakeEngine:
        return thinking_engine()

    async def test_thinking_is_its_own_field(self, client: Client) -> None:
        message = (await chat(client, think=True)).json()["message"]
        assert message == {"role": "assistant", "content": "Hello", "thinking": "Hm."}
        got = lines(await chat(client, stream=True))
        assert (said(got, "thinking"), said(got)) == ("Hm.", "Hello")
        body = (await generate(client)).json()
        assert (body["thinking"], body["response"]) == ("Hm.", "Hello")

    async def test_think_reaches_the_template(self, client: Client, engine: FakeEngine) -> None:
        for think in (False, "high"):
            await chat(client, think=think)
        off, high = (engine.tokenizer.decode(each.prompt) for each in engine.requests)
        assert off.endswith("</think>\n\n")
        assert high.endswith("<think>\n")

    async def test_thoughts_come_back(self, client: Client, engine: FakeEngine) -> None:
        turn = {"role": "assistant", "content": "Yes", "thinking": "Deep."}
        await chat(client, messages=[*HI, turn, *HI])
        assert "<think>\nDeep.\n</think>" in engine.tokenizer.decode(engine.requests[0].prompt)


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"options": {"temperature": 9}}, "options.temperature"),
        ({"options": {"temperature": "hot"}}, "options.temperature"),
        ({"options": {"num_predict": -5}}, "options.num_predict"),
        ({"options": {"num_ctx": 0}}, "options.num_ctx"),
        ({"options": {"repeat_penalty": 3}}, "options.repeat_penalty"),
        ({"options": {"stop": ["a", ""]}}, "options.stop[1]"),
        ({"options": {"mirostat": 2}}, "options.mirostat"),
        ({"options": {"typical_p": 0.5}}, "options.typical_p"),
        ({"format": "yaml"}, "format"),
        ({"format": {"type": "strin"}}, "format"),
        ({"think": "deeply"}, "think"),
        ({"think": True}, "think"),
        ({"keep_alive": "soon"}, "keep_alive"),
        ({"truncate": True}, "truncate"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"messages": [{"role": "user", "images": ["eA=="]}]}, "messages[0].images"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"model": ""}, "model"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_chat_refusals(
    client: Client, fields: dict[str, Any], place: str, stream: bool
) -> None:
    response = await chat(client, stream=stream, **fields)
    assert response.status == 400
    assert list(response.json()) == ["error"]
    assert place in response.json()["error"]


@pytest.mark.parametrize(
    "fields",
    [
        {"suffix": "x"},
        {"suffix": "x", "system": "y"},
        {"template": "{{ .Prompt }}"},
        {"context": [1, 2]},
        {"images": ["eA=="]},
        {"width": 64},
        {"raw": True, "system": "x"},
    ],
)
async def test_generate_refusals(client: Client, fields: dict[str, Any]) -> None:
    response = await generate(client, **fields)
    assert response.status == 400
    assert any(name in response.json()["error"] for name in fields)


async def test_unknown_model_and_full_queue(client: Client, engine: FakeEngine) -> None:
    missing = await chat(client, model="nobody")
    assert missing.status == 404 and "nobody" in missing.json()["error"]
    engine.refusal = QueueFull(3, 1)
    full = await chat(client, stream=True)
    assert (full.status, full.headers["retry-after"]) == (429, "1")
    assert list(full.json()) == ["error"]


async def test_a_failure_ends_the_stream_with_its_error(client: Client, engine: FakeEngine) -> None:
    engine.script = failure(StepFailed("out of luck"), after="He")
    got = lines(await chat(client, stream=True))
    assert said(got[:-1]) == "He"
    assert got[-1] == {"error": "out of luck"}
    whole = await chat(client)
    assert (whole.status, whole.json()) == (500, {"error": "out of luck"})


async def test_hanging_up_cancels(client: Client, engine: FakeEngine) -> None:
    engine.hold.clear()
    exchange = client.begin("POST", "/api/chat", {"model": "fake-model", "messages": HI})
    await engine.submitted.wait()
    await exchange.hang_up()
    assert engine.cancelled == [engine.requests[0].id]


async def test_curl_needs_no_content_type_and_a_browser_does(client: Client) -> None:
    body = json.dumps({"model": "fake-model", "messages": HI, "stream": False}).encode()
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert (await client.post("/api/chat", body, headers=form)).status == 200
    own_page = {"origin": "http://localhost", "host": "localhost"}
    browser = await client.post("/api/chat", body, headers=form | own_page)
    assert browser.status == 415
    evil = await client.post("/api/chat", body, headers=form | {"origin": "http://evil"})
    assert evil.status == 403
    page = await client.post("/api/chat", body, headers=form | {"sec-fetch-site": "same-origin"})
    assert page.status == 415
