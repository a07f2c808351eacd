"""Whatever no type knows is found, wherever it stands."""

from __future__ import annotations

import msgspec
import pytest

from server.protocol.chat_completions import ChatCompletionRequest
from server.unknown_fields import MAX_FOUND, UnknownFields
from tests.server.asgi import Client

CALL = {"id": "1", "type": "function", "mood": 1, "function": {"name": "f", "strict": True}}


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"prompt": "Hi", "stop": ["a"], "messages": []}, ["prompt"]),
        ({"model": "m", "messages": [{"role": "user", "content": "Hi", "name": "ann"}]}, []),
        ({"mood": 1, "messages": []}, ["mood"]),
        ({"messages": [{"role": "user"}, {"role": "user", "id": "7"}]}, ["messages[1].id"]),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "", "hue": 1}]}]},
            ["messages[0].content[0].hue"],
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [CALL]}]},
            ["messages[0].tool_calls[0].mood", "messages[0].tool_calls[0].function.strict"],
        ),
        ({"stream_options": {"include_usage": True, "mood": 1}}, ["stream_options.mood"]),
        ({"stream_options": None, "metadata": {"mood": "1"}}, []),
        (
            {"tools": [{"type": "function", "mood": 1, "function": {"name": "f", "hue": 1}}]},
            ["tools[0].mood"],
        ),
        (
            {"tools": [{"type": "custom", "custom": {"name": "f", "format": {"type": "text"}}}]},
            [],
        ),
        ({"tools": [{"type": "custom", "custom": {"mood": 1}}]}, ["tools[0].custom.mood"]),
        (
            {"response_format": {"type": "json_schema", "mood": 1, "json_schema": {"hue": 1}}},
            ["response_format.mood", "response_format.json_schema.hue"],
        ),
        ({"response_format": {"type": "regex", "pattern": "a", "json_schema": None}}, []),
    ],
)
def test_unknown_fields(body: dict[str, object], found: list[str]) -> None:
    assert UnknownFields(ChatCompletionRequest)(msgspec.json.encode(body)) == found


BLOCK = {"type": "text", "text": "Hi", "mood": 1, "cache_control": {"type": "ephemeral"}}
HELLO = {"role": "user", "content": "Hi", "mood": 1}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "body", "found"),
    [
        ("/v1/chat/completions", {"messages": [HELLO]}, "messages[0].mood"),
        ("/v1/completions", {"stream": True, "stream_options": {"mood": 1}}, "stream_options.mood"),
        (
            "/v1/messages",
            {"max_tokens": 9, "messages": [{"role": "user", "content": [BLOCK]}]},
            "messages[0].content[0].mood",
        ),
        (
            "/v1/responses",
            {"input": "Hi", "reasoning": {"mood": 1}, "text": {"hue": 2}},
            "text.hue, reasoning.mood",
        ),
        (
            "/api/chat",
            {"stream": False, "messages": [HELLO], "options": {"hue": 2}},
            "options.hue, messages[0].mood",
        ),
        ("/apply-template", {"messages": [HELLO]}, "messages[0].mood"),
    ],
)
async def test_every_door_tells_of_them(
    client: Client, path: str, body: dict[str, object], found: str
) -> None:
    response = await client.post(path, {"model": "fake-model", **body})
    assert response.status == 200
    assert response.headers["x-ignored-params"] == found


def test_there_is_an_end_to_looking() -> None:
    messages = [{"role": "user", "content": "", "mood": 1}] * 1000
    body = msgspec.json.encode({"messages": messages})
    assert len(UnknownFields(ChatCompletionRequest)(body)) == MAX_FOUND
