"""/v1/responses on a fake engine: what reaches the model, what comes back, what is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from engine.errors import ContextLengthExceeded, StepFailed
from engine.request import FinishReason
from server.api.responses.items import seal
from server.config import ServerConfig
from tests.server.asgi import Client, Exchange
from tests.server.conftest import MODEL
from tests.server.fakes import INFO, FakeEngine, answer, failure
from tests.server.responses_requests import PATCH, WEATHER, create

pytestmark = pytest.mark.anyio

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>"
    "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
    "{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'
    "\n</tool_call>{% endfor %}<end>"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    return ServerConfig(models=(MODEL,), store=tmp_path / "store.sqlite3")


@pytest.fixture
async def engine() -> FakeEngine:
    return FakeEngine(info=replace(INFO, chat_template=TEMPLATE, context=2048))


async def created(client: Client, **fields: Any) -> Any:
    response = await create(client, **fields)
    assert response.status == 200, response.body
    return response.json()


def prompt_of(engine: FakeEngine) -> str:
    return engine.tokenizer.decode(engine.requests[-1].prompt)


def events(response: Exchange) -> list[Any]:
    """The data of each event, whose name must be its type."""
    found = []
    for block in response.body.decode().strip().split("\n\n"):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    return found


async def test_shape(client: Client) -> None:
    body = await created(client, instructions="Be brief.", metadata={"a": "b"})
    assert body["object"] == "response"
    assert body["id"].startswith("resp_")
    assert body["status"] == "completed"
    (item,) = body["output"]
    assert item["id"].startswith("msg_")
    assert item["content"] == [
        {"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}
    ]
    assert body["usage"]["input_tokens_details"]["cached_tokens"] == 4
    assert body["usage"]["output_tokens"] == 5
    assert body["instructions"] == "Be brief."
    assert body["metadata"] == {"a": "b"}
    assert body["tool_choice"] == "auto"
    assert body["text"]["format"] == {"type": "text"}
    assert body["incomplete_details"] is body["error"] is None


async def test_an_answers_items_become_one_turn(client: Client, engine: FakeEngine) -> None:
    items = [
        {"role": "developer", "content": [{"type": "input_text", "text": "Rules"}]},
        {"type": "message", "role": "user", "content": "What now?"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": seal("hmm")},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Look:"}]},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city":"X"}'},
        {"type": "custom_tool_call", "call_id": "c2", "name": "patch", "input": 'a"b'},
        {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
        {
            "type": "custom_tool_call_output",
            "call_id": "c2",
            "output": [{"type": "input_text", "text": "done"}],
        },
        {"role": "user", "content": "Thanks"},
    ]
    await created(client, input=items, instructions="First.", tools=[WEATHER, PATCH])
    prompt = prompt_of(engine)
    assert prompt.startswith("<system>First.")
    assert "Rules<end><user>What now?<end><assistant>" in prompt.replace("<end><system>", "")
    assert "<think>\nhmm\n</think>\n\nLook:<tool_call>" in prompt
    assert '{"name": "weather", "arguments": {"city": "X"}}' in prompt
    assert r'{"name": "patch", "arguments": {"input": "a\"b"}}' in prompt
    assert prompt.index("sunny") < prompt.index("done") < prompt.index("Thanks")


async def test_the_next_turn_has_the_one_before_but_not_its_instructions(
    client: Client, engine: FakeEngine
) -> None:
    first = await created(client, input="One", instructions="Old")
    second = await created(client, input="Two", previous_response_id=first["id"])
    await created(client, input="Three", previous_response_id=second["id"], instructions="New")
    assert prompt_of(engine) == (
        "<system>New<end><user>One<end><assistant>Hello<end><user>Two<end><assistant>Hello<end>"
        "<user>Three<end><assistant>"
    )


async def test_a_stored_response_is_had_again_until_it_is_deleted(client: Client) -> None:
    body = await created(client, input=[{"role": "user", "content": "Hi"}])
    path = f"/v1/responses/{body['id']}"
    assert (await client.get(path)).json() == body
    listed = (await client.get(f"{path}/input_items")).json()
    assert [item["content"] for item in listed["data"]] == ["Hi"]
    assert listed["data"][0]["id"] == listed["first_id"] == listed["last_id"]
    assert (await client.post(f"{path}/cancel", {})).status == 400
    deleted = await client.request("DELETE", path)
    assert deleted.json() == {"id": body["id"], "object": "response", "deleted": True}
    assert (await client.get(path)).status == 404
    assert (await client.request("DELETE", path)).status == 404
    assert (await client.post(f"{path}/cancel", {})).status == 404
    gone = await create(client, previous_response_id=body["id"])
    assert gone.status == 400
    assert gone.json()["error"]["code"] == "previous_response_not_found"


async def test_store_false_keeps_nothing(client: Client, config: ServerConfig) -> None:
    body = await created(client, store=False)
    assert body["store"] is False
    assert (await client.get(f"/v1/responses/{body['id']}")).status == 404
    assert config.store is not None
    assert not config.store.exists()


async def test_a_broken_store_is_told(client: Client, config: ServerConfig) -> None:
    assert config.store is not None
    config.store.write_text("no database")
    body = await created(client)
    assert body["store"] is False
    assert (await create(client, store=True)).status == 507


async def test_item_references(client: Client, engine: FakeEngine) -> None:
    body = await created(client, input=[{"role": "user", "content": "One", "id": "msg_mine"}])
    said = body["output"][0]["id"]
    items = [{"type": "item_reference", "id": "msg_mine"}, {"type": "item_reference", "id": said}]
    await created(client, input=[*items, {"role": "user", "content": "Two"}])
    assert prompt_of(engine) == "<user>One<end><assistant>Hello<end><user>Two<end><assistant>"
    unknown = await create(client, input=[{"type": "item_reference", "id": "msg_not"}])
    assert unknown.status == 400
    assert unknown.json()["error"]["param"] == "input[0].id"


def check_stream(stream: list[Any]) -> Any:
    """The rules that hold for every stream; returns the final response."""
    assert [event["sequence_number"] for event in stream] == list(range(len(stream)))
    assert [e["type"] for e in stream[:2]] == ["response.created", "response.in_progress"]
    added = [e for e in stream if e["type"] == "response.output_item.added"]
    finished = [e for e in stream if e["type"] == "response.output_item.done"]
    assert [e["output_index"] for e in added] == list(range(len(added)))
    assert [e["item"]["id"] for e in added] == [e["item"]["id"] for e in finished]
    final = stream[-1]["response"]
    assert [event["item"] for event in finished] == final["output"]
    return final


async def test_stream(client: Client) -> None:
    stream = events(await create(client, stream=True))
    final = check_stream(stream)
    names = [event["type"].removeprefix("response.") for event in stream]
    assert names == [
        *("created", "in_progress", "output_item.added", "content_part.added"),
        *["output_text.delta"] * 5,
        *("output_text.done", "content_part.done", "output_item.done", "completed"),
    ]
    assert "".join(event.get("delta", "") for event in stream) == "Hello"
    assert final["status"] == "completed"
    assert (await client.get(f"/v1/responses/{final['id']}")).json() == final


async def test_thought_text_and_calls_are_items_of_their_own(
    client: Client, engine: FakeEngine
) -> None:
    engine.script = answer(
        "<think>\nhm\n</think>\n\nOn it.<tool_call>\n"
        '{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call><tool_call>\n'
        '{"name": "patch", "arguments": {"input": "a\\n\\u00e9"}}\n</tool_call>'
    )
    fields: dict[str, Any] = {
        "tools": [WEATHER, PATCH],
        "reasoning": {"summary": "auto"},
        "include": ["reasoning.encrypted_content"],
    }
    final = check_stream(events(await create(client, stream=True, **fields)))
    thought, message, function, custom = final["output"]
    assert thought["content"] == [{"type": "reasoning_text", "text": "hm"}]
    assert thought["summary"] == [{"type": "summary_text", "text": "hm"}]
    assert thought["encrypted_content"] == seal("hm")
    assert message["content"][0]["text"] == "On it."
    assert (function["name"], function["arguments"]) == ("weather", '{"city": "Rome"}')
    assert (custom["type"], custom["input"]) == ("custom_tool_call", "a\né")
    assert final["usage"]["output_tokens_details"]["reasoning_tokens"] > 0
    whole = await created(client, **fields)
    assert [item["type"] for item in whole["output"]] == [i["type"] for i in final["output"]]


async def test_deltas_add_up(client: Client, engine: FakeEngine) -> None:
    engine.script = answer(
        '<tool_call>\n{"name": "patch", "arguments": {"input": "one\\ntwo"}}\n</tool_call>'
    )
    stream = events(await create(client, stream=True, tools=[PATCH]))
    deltas = [e for e in stream if e["type"] == "response.custom_tool_call_input.delta"]
    assert "".join(event["delta"] for event in deltas) == "one\ntwo"
    (done,) = [e for e in stream if e["type"] == "response.custom_tool_call_input.done"]
    assert done["input"] == "one\ntwo"
    check_stream(stream)


async def test_too_few_tokens_leave_it_incomplete(client: Client, engine: FakeEngine) -> None:
    engine.script = answer("Hel", FinishReason.LENGTH)
    final = check_stream(events(await create(client, stream=True, max_output_tokens=3)))
    assert engine.requests[-1].max_tokens == 3
    assert final["status"] == final["output"][0]["status"] == "incomplete"
    assert final["incomplete_details"] == {"reason": "max_output_tokens"}
    assert final["completed_at"] is None


async def test_failure_in_the_middle(client: Client, engine: FakeEngine) -> None:
    engine.script = failure(StepFailed("lost"), after="He")
    stream = events(await create(client, stream=True))
    assert [event["type"] for event in stream[-2:]] == ["error", "response.failed"]
    assert stream[-2]["message"] == "lost"
    assert stream[-1]["response"]["status"] == "failed"
    assert stream[-1]["response"]["error"] == {"code": "server_error", "message": "lost"}
    assert (await create(client)).status == 500


async def test_logprobs(client: Client, engine: FakeEngine) -> None:
    body = await created(client, include=["message.output_text.logprobs"], top_logprobs=2)
    logprobs = body["output"][0]["content"][0]["logprobs"]
    assert [entry["token"] for entry in logprobs] == list("Hello")
    assert len(logprobs[0]["top_logprobs"]) == 2
    await created(client, include=["message.output_text.logprobs"])
    assert engine.requests[-1].logprobs == 0


async def test_what_means_nothing_here_is_listed(client: Client) -> None:
    tools = [{"type": "web_search"}, WEATHER, {"type": "local_shell"}]
    items = [
        {"role": "user", "content": "Hi"},
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"},
        {"role": "user", "content": "Go on"},
    ]
    include = ["web_search_call.action.sources"]
    response = await create(client, tools=tools, input=items, include=include, nonsense=1)
    assert response.status == 200
    assert response.headers["x-ignored-params"] == (
        "nonsense, include (web_search_call.action.sources), input[1] (web_search_call), "
        "input[2] (encrypted_content of another server), tools[0] (web_search), "
        "tools[2] (local_shell)"
    )


async def test_shell_calls_are_calls_to_the_model(client: Client, engine: FakeEngine) -> None:
    action = {"type": "exec", "command": ["ls"], "env": {}}
    items = [
        {"role": "user", "content": "List"},
        {"type": "local_shell_call", "call_id": "c1", "action": action, "id": "lsh_1"},
        {"type": "local_shell_call_output", "id": "c1", "output": "a.py"},
    ]
    await created(client, input=items)
    assert '{"name": "local_shell", "arguments": {"type": "exec"' in prompt_of(engine)
    assert "a.py" in prompt_of(engine)


async def test_truncation_drops_the_oldest_turns_and_says_so(
    client: Client, engine: FakeEngine
) -> None:
    turns = [
        {"role": role, "content": f"{number}" + "x" * 300}
        for number in range(8)
        for role in ("user", "assistant")
    ]
    items = [{"role": "system", "content": "S"}, *turns, {"role": "user", "content": "last"}]
    refused = await create(client, input=items)
    assert refused.status == 400
    assert refused.json()["error"]["code"] == "context_length_exceeded"
    assert refused.json()["error"]["param"] == "input"
    response = await create(client, input=items, truncation="auto", max_output_tokens=50)
    assert response.status == 200
    prompt = prompt_of(engine)
    assert prompt.startswith("<system>S<end>")
    assert prompt.endswith("<user>last<end><assistant>")
    assert len(prompt) + 50 <= 2048 < len(prompt) + 50 + 320
    assert "oldest messages, by truncation" in response.headers["x-ignored-params"]
    alone = await create(client, input="y" * 3000, truncation="auto")
    assert alone.status == 400


async def test_null_is_not_given(client: Client, engine: FakeEngine) -> None:
    from server.protocol.responses import ResponsesRequest

    optional = set(ResponsesRequest.__struct_encode_fields__) - {"input", "model"}
    await created(client, **dict.fromkeys(optional))
    await created(client)
    given, plain = engine.requests
    assert given.sampling == plain.sampling
    assert given.max_tokens == plain.max_tokens


@pytest.mark.parametrize(
    ("query", "contents"),
    [
        ("", "cba"),
        ("order=asc&limit=2", "ab"),
        ("order=asc&after=msg_a", "bc"),
    ],
)
async def test_pages_of_input_items(client: Client, query: str, contents: str) -> None:
    items = [{"role": "user", "content": c, "id": f"msg_{c}"} for c in "abc"]
    body = await created(client, input=items)
    path = f"/v1/responses/{body['id']}/input_items"
    page = (await client.get(f"{path}?{query}")).json()
    assert "".join(item["content"] for item in page["data"]) == contents
    assert page["has_more"] is (contents == "ab")
    for bad in ("order=up", "limit=0", "limit=x", "limit=000000001" + "0" * 5000, "after=msg_z"):
        assert (await client.get(f"{path}?{bad}")).status == 400
    assert (await client.get(f"{path}?include=all")).headers["x-ignored-params"] == "include"


async def test_input_tokens_are_counted(client: Client, engine: FakeEngine) -> None:
    first = await created(client, input="One")
    fields = {"input": "Two", "previous_response_id": first["id"], "tools": [WEATHER]}
    counted = await client.post("/v1/responses/input_tokens", {"model": "fake-model", **fields})
    body = counted.json()
    assert body["object"] == "response.input_tokens"
    assert body["input_tokens"] == (await created(client, **fields))["usage"]["input_tokens"]
    assert len(engine.requests) == 2
    bad = await client.post("/v1/responses/input_tokens", {"input": "x", "temperature": 3})
    assert bad.json()["error"]["param"] == "temperature"


async def test_too_long_is_told_with_both_counts(client: Client, engine: FakeEngine) -> None:
    engine.refusal = ContextLengthExceeded(900, 512)
    response = await create(client)
    assert response.status == 400
    assert "900" in response.json()["error"]["message"]
