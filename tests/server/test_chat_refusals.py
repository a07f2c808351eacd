"""Bad input to chat completions: a 400 that names the field."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import InvalidLora
from engine.request import LoraScale
from tests.server.asgi import Client
from tests.server.fakes import FakeEngine

pytestmark = pytest.mark.anyio

USER = {"role": "user", "content": "Hi"}

OUT_OF_RANGE = [
    ("temperature", -0.1),
    ("temperature", 2.1),
    ("top_p", 0),
    ("top_p", 1.1),
    ("top_k", -2),
    ("min_p", -0.1),
    ("min_p", 1.1),
    ("presence_penalty", 2.1),
    ("presence_penalty", -2.1),
    ("frequency_penalty", 2.1),
    ("frequency_penalty", -2.1),
    ("repetition_penalty", 0),
    ("repetition_penalty", 2.1),
    ("repeat_penalty", 0),
    ("n", 0),
    ("n", 129),
    ("max_tokens", 0),
    ("max_completion_tokens", 0),
    ("context_length_exceeded_behavior", "shrug"),
    ("service_tier", "scale"),
    ("prompt_cache_retention", "1 year"),
    ("verbosity", "chatty"),
    ("reasoning_effort", "extreme"),
]


@pytest.mark.parametrize(("field", "value"), OUT_OF_RANGE)
async def test_out_of_range(client: Client, field: str, value: Any) -> None:
    response = await client.chat(**{field: value})
    body = response.json()
    assert response.status == 400
    assert body["error"]["param"] == field
    assert body["error"]["code"] == "invalid_value"
    assert repr(value) in body["error"]["message"]
    assert body["detail"][0]["loc"] == ["body", field]


async def test_two_names_of_one_penalty_must_agree(client: Client) -> None:
    response = await client.chat(repetition_penalty=1.1, repeat_penalty=1.2)
    assert (response.status, response.json()["error"]["param"]) == (400, "repeat_penalty")


async def test_adapters_out_of_range(client: Client) -> None:
    response = await client.chat(lora=[{"name": "a"}, {"name": "b", "scale": 101}])
    assert response.status == 400
    assert response.json()["error"]["param"] == "lora[1].scale"


async def test_adapters_that_the_model_does_not_have(client: Client, engine: FakeEngine) -> None:
    engine.refusal = InvalidLora("no LoRA adapter is called 'a'; there is: none")
    response = await client.chat(lora=[{"name": "a"}])
    error = response.json()["error"]
    assert (response.status, error["param"], error["code"]) == (400, "lora", "invalid_lora")


async def test_adapters_reach_the_engine(client: Client, engine: FakeEngine) -> None:
    await client.chat(lora=[{"name": "a"}, {"name": "b", "scale": 0.5}])
    await client.chat(lora=[])
    await client.chat()
    scales = (LoraScale("a"), LoraScale("b", 0.5))
    assert [request.lora for request in engine.requests] == [scales, (), None]


WRONG_TYPE = [
    ("lora", [{"name": 1}], "lora[0].name"),
    ("temperature", "hot", "temperature"),
    ("max_tokens", 1.5, "max_tokens"),
    ("n", True, "n"),
    ("stream", "yes", "stream"),
    ("stop", 7, "stop"),
    ("stop", ["a", 7], "stop[1]"),
    ("seed", "seed", "seed"),
    ("logit_bias", {"4": 1, "5": "much"}, "logit_bias.5"),
    ("messages", "Hi", "messages"),
    ("messages", None, "messages"),
    ("messages", [USER, 5], "messages[1]"),
    ("messages", [{"role": 5, "content": "Hi"}], "messages[0].role"),
    ("messages", [{"role": "user", "content": 5}], "messages[0].content"),
    ("metadata", {"a": 1}, "metadata.a"),
    ("tools", {}, "tools"),
    ("tools", [{"function": {"name": "f", "description": 5}}], "tools[0].function.description"),
    ("tools", [{"function": {"name": "f", "strict": "no"}}], "tools[0].function.strict"),
    ("functions", [{"name": "f", "parameters": []}], "functions[0].parameters"),
    ("response_format", {"type": "json_schema", "json_schema": 5}, "response_format.json_schema"),
    (
        "response_format",
        {"type": "json_schema", "json_schema": {"schema": {}, "strict": "yes"}},
        "response_format.json_schema.strict",
    ),
    ("model", 5, "model"),
]


@pytest.mark.parametrize(("field", "value", "param"), WRONG_TYPE)
async def test_wrong_type(client: Client, field: str, value: Any, param: str) -> None:
    response = await client.chat(**{field: value})
    body = response.json()
    assert response.status == 400
    assert body["error"]["param"] == param
    assert body["error"]["code"] == "invalid_type"
    assert body["error"]["message"].startswith(param)


NAMED = {"name": "f"}
TOOL = {"type": "function", "function": NAMED}


def allowed(*tools: Any) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": list(tools)}}


CONTRADICTIONS: list[tuple[dict[str, Any], list[str | int]]] = [
    ({"stop": ""}, ["stop"]),
    ({"stop": ["a", ""]}, ["stop", 1]),
    ({"stop": ["a"] * 17}, ["stop"]),
    ({"stop": ["a", "b" * 1025]}, ["stop", 1]),
    ({"logit_bias": {"abc": 1}}, ["logit_bias", "abc"]),
    ({"logit_bias": {"-1": 1}}, ["logit_bias", "-1"]),
    ({"logit_bias": {str(0x110000): 1}}, ["logit_bias", str(0x110000)]),
    ({"logit_bias": {"5": 101}}, ["logit_bias", "5"]),
    ({"top_logprobs": 3}, ["top_logprobs"]),
    ({"logprobs": True, "top_logprobs": 21}, ["top_logprobs"]),
    ({"logprobs": True, "top_logprobs": -1}, ["top_logprobs"]),
    ({"stream_options": {"include_usage": True}}, ["stream_options"]),
    ({"metadata": {str(i): "" for i in range(17)}}, ["metadata"]),
    ({"metadata": {"k" * 65: ""}}, ["metadata"]),
    ({"metadata": {"k": "v" * 513}}, ["metadata", "k"]),
    ({"chat_template_kwargs": {"messages": []}}, ["chat_template_kwargs", "messages"]),
    ({"chat_template_kwargs": {"self": 1}}, ["chat_template_kwargs", "self"]),
    ({"messages": []}, ["messages"]),
    ({"messages": [{"role": "wizard", "content": "Hi"}]}, ["messages", 0, "role"]),
    ({"messages": [{"content": "Hi"}]}, ["messages", 0, "role"]),
    ({"messages": [USER, {"role": "tool", "content": "1"}]}, ["messages", 1, "tool_call_id"]),
    (
        {"messages": [{"role": "user", "content": [{"type": "smell"}]}]},
        ["messages", 0, "content", 0, "type"],
    ),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"type": "spell"}]}]},
        ["messages", 0, "tool_calls", 0, "type"],
    ),
    ({"tools": [TOOL], "functions": [{"name": "g"}]}, ["functions"]),
    ({"tools": [TOOL], "tool_choice": {"type": "spell", "function": NAMED}}, ["tool_choice"]),
    (
        {"tools": [TOOL], "tool_choice": allowed({"type": "function", "function": None})},
        ["tool_choice", "allowed_tools", "tools", 0],
    ),
    (
        {"tools": [TOOL], "tool_choice": allowed({"function": NAMED}, {"function": {"name": "g"}})},
        ["tool_choice", "allowed_tools", "tools", 1],
    ),
    ({"response_format": {}}, ["response_format", "type"]),
    ({"response_format": {"type": "regex"}}, ["response_format", "pattern"]),
    ({"tool_choice": "required"}, ["tool_choice"]),
    ({"function_call": {"name": "f"}}, ["function_call"]),
]


@pytest.mark.parametrize(("fields", "loc"), CONTRADICTIONS)
async def test_contradictions(
    client: Client, engine: FakeEngine, fields: dict[str, Any], loc: list[str | int]
) -> None:
    response = await client.chat(**fields)
    assert response.status == 400
    assert response.json()["detail"][0]["loc"] == ["body", *loc]
    assert engine.requests == []


IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}
AUDIO = {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}
FILE = {"type": "file", "file": {"file_id": "x"}}
UNSERVED: list[tuple[dict[str, Any], str]] = [
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"tools": [{"type": "code_interpreter"}]}, "tools[0].type"),
    ({"audio": {"voice": "x", "format": "wav"}}, "audio"),
    ({"web_search_options": {}}, "web_search_options"),
    ({"modalities": ["text", "audio"]}, "modalities[1]"),
    ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages[0].content[0].type"),
    ({"messages": [{"role": "user", "content": [AUDIO]}]}, "messages[0].content[0].type"),
    ({"messages": [{"role": "user", "content": [FILE]}]}, "messages[0].content[0].type"),
]


@pytest.mark.parametrize(("fields", "param"), UNSERVED)
async def test_unserved_fields_are_refused(
    client: Client, fields: dict[str, Any], param: str
) -> None:
    error = (await client.chat(**fields)).json()["error"]
    assert error["param"] == param
    assert error["code"] == "unsupported_parameter"


HARMLESS: list[dict[str, Any]] = [
    {"response_format": {"type": "text"}},
    {"tools": [], "tool_choice": "auto"},
    {"tool_choice": "none", "parallel_tool_calls": True},
    {"store": False},
    {"fallbacks": []},
    {"modalities": ["text"]},
    {"logprobs": False, "top_logprobs": 0},
    {"logit_bias": {}},
    {"stop": []},
    {"prompt_cache_retention": "24h"},
]


@pytest.mark.parametrize("fields", HARMLESS)
async def test_harmless_forms_are_accepted(client: Client, fields: dict[str, Any]) -> None:
    response = await client.chat(**fields)
    assert response.status == 200, response.body


async def test_web_search_options_may_be_null(client: Client) -> None:
    assert (await client.chat(web_search_options=None)).status == 200


NAMES = ["fake-model", "alias", "org/fake-model", "a/b/alias", "alias:latest", "org/alias:latest"]


@pytest.mark.parametrize("name", [*NAMES, None])
async def test_model_names(client: Client, name: str | None) -> None:
    response = await client.chat(model=name)
    assert response.status == 200
    assert response.json()["model"] == "fake-model"


async def test_unknown_model(client: Client) -> None:
    response = await client.chat(model="gpt-9")
    error = response.json()["error"]
    assert response.status == 404
    assert error["code"] == "model_not_found"
    assert "gpt-9" in error["message"]
    assert "fake-model" in error["message"]
