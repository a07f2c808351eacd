"""What /v1/responses refuses, by the names of its own fields."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.asgi import Client
from tests.server.fakes import FakeEngine
from tests.server.responses_requests import PATCH, WEATHER, create

pytestmark = pytest.mark.anyio


def user_part(kind: Any) -> list[Any]:
    return [{"role": "user", "content": [{"type": kind}]}]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"input": []}, "input"),
    ({"input": [{"role": "wizard", "content": "x"}]}, "input[0].role"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
        "input[0].content[0].type",
    ),
    (
        {"input": [{"role": "user", "content": [{"type": "input_file"}]}]},
        "input[0].content[0].type",
    ),
    (
        {"input": [{"role": "user", "content": [{"type": "input_text"}]}]},
        "input[0].content[0].text",
    ),
    ({"input": [{"type": "dream"}]}, "input[0].type"),
    ({"input": [{"type": {}}]}, "input[0].type"),
    ({"input": user_part([])}, "input[0].content[0].type"),
    ({"tools": [WEATHER], "tool_choice": {"type": "allowed_tools", "tools": 5}}, "tool_choice"),
    ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input[0].call_id"),
    (
        {"input": [{"type": "function_call_output", "call_id": "c", "output": ""}]},
        "input[0].call_id",
    ),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"max_tool_calls": 0}, "max_tool_calls"),
    ({"temperature": 3}, "temperature"),
    ({"top_logprobs": 21}, "top_logprobs"),
    ({"truncation": "middle"}, "truncation"),
    ({"include": ["secrets"]}, "include[0]"),
    ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
    ({"reasoning": {"summary": "long"}}, "reasoning.summary"),
    ({"text": {"verbosity": "shout"}}, "text.verbosity"),
    ({"text": {"format": {"type": "yaml"}}}, "text.format.type"),
    ({"text": {"format": {"type": "json_schema", "schema": {"type": "x"}}}}, "text.format.schema"),
    ({"tools": [{"type": "web_search"}, {"type": "function"}]}, "tools[1].name"),
    ({"tools": [{**PATCH, "format": {"type": "grammar", "syntax": "x"}}]}, "tools[0].format"),
    ({"tools": [WEATHER], "tool_choice": {"type": "function", "name": "f"}}, "tool_choice"),
    (
        {"tools": [{"type": "web_search"}, {**WEATHER, "parameters": {"type": "x"}}]},
        "tools[1].parameters",
    ),
    ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tool_choice"),
    ({"tools": [WEATHER], "tool_choice": {"type": "web_search_preview"}}, "tool_choice"),
    ({"background": True}, "background"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    ({"stream_options": {}}, "stream_options"),
    ({"metadata": {"k" * 65: ""}}, "metadata"),
    ({"service_tier": "gold"}, "service_tier"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED)
async def test_refusals_name_the_field(
    client: Client, engine: FakeEngine, fields: dict[str, Any], param: str
) -> None:
    response = await create(client, **fields)
    assert response.status == 400, response.body
    assert response.json()["error"]["param"] == param
    assert engine.requests == []
