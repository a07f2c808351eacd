"""/v1/responses on the real model, with the official client and as Codex speaks to it."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from openai.types.responses import (
    ResponseCompletedEvent,
    ResponseCustomToolCall,
    ResponseFunctionToolCall,
    ResponseTextDoneEvent,
)
from pydantic import BaseModel

from tests.e2e.chat import MODEL
from tests.e2e.server_process import ServerProcess

PATCH_GRAMMAR = """\
start: begin_patch hunk+ end_patch
begin_patch: "*** Begin Patch" LF
end_patch: "*** End Patch" LF?

hunk: add_hunk | delete_hunk
add_hunk: "*** Add File: " filename LF add_line+
delete_hunk: "*** Delete File: " filename LF
filename: /[a-z.]{1,12}/
add_line: "+" /[a-z ]{0,12}/ LF -> line

%import common.LF
"""
PATCH = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Use this tool to edit files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": PATCH_GRAMMAR},
}
CLOCK = {
    "type": "function",
    "name": "clock",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"zone": {"type": "string", "pattern": "^UTC[+-][0-9]{1,2}$"}},
        "required": ["zone"],
        "additionalProperties": False,
    },
}


def create(client: OpenAI, **fields: Any) -> Any:
    """A greedy answer without a thought."""
    defaults: dict[str, Any] = {
        "model": MODEL,
        "input": "Name three colours.",
        "instructions": "Be brief.",
        "max_output_tokens": 12,
        "temperature": 0,
        "reasoning": {"effort": "none"},
    }
    return client.responses.create(**(defaults | fields))


def test_a_chain_of_turns_computes_only_what_is_new(client: OpenAI) -> None:
    first = create(client)
    assert first.output_text
    second = create(client, input="One more?", previous_response_id=first.id)
    usage = second.usage
    before = first.usage.input_tokens + first.usage.output_tokens
    # Positions are reused in multiples of 4, and the last token is always computed.
    assert before - 8 <= usage.input_tokens_details.cached_tokens <= usage.input_tokens
    items = [
        {"role": "user", "content": "Name three colours."},
        *first.output,
        {"role": "user", "content": "One more?"},
    ]
    by_hand = create(client, input=items)
    assert by_hand.usage.input_tokens == usage.input_tokens
    assert by_hand.output_text == second.output_text


def test_retrieve_list_and_delete(client: OpenAI) -> None:
    made = create(client, metadata={"a": "b"})
    assert client.responses.retrieve(made.id) == made
    (item,) = client.responses.input_items.list(made.id).data
    assert item.type == "message"
    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(made.id)
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    with pytest.raises(openai.BadRequestError, match="is not stored"):
        create(client, previous_response_id=made.id)


class Person(BaseModel):
    name: str
    happy: bool


def test_parse_whole_and_streamed(client: OpenAI) -> None:
    fields: dict[str, Any] = {"model": MODEL, "input": "Invent somebody.", "temperature": 0}
    fields |= {"reasoning": {"effort": "none"}, "max_output_tokens": 40, "store": False}
    parsed = client.responses.parse(text_format=Person, **fields).output_parsed
    assert isinstance(parsed, Person)
    with client.responses.stream(text_format=Person, **fields) as stream:
        seen = list(stream)
        final = stream.get_final_response()
    assert final.output_parsed == parsed
    assert isinstance(seen[-1], ResponseCompletedEvent)
    (done,) = [event for event in seen if isinstance(event, ResponseTextDoneEvent)]
    assert json.loads(done.text) == parsed.model_dump()
    assert [event.sequence_number for event in seen] == list(range(len(seen)))


def test_thoughts_come_first_and_go_back(thinker: ServerProcess) -> None:
    client = OpenAI(base_url=thinker.base_url, api_key="none", max_retries=0)
    thought: dict[str, Any] = {
        "reasoning": {"effort": "low", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
        "extra_body": {"reasoning_budget": 6, "ignore_eos": True},
        "max_output_tokens": 20,
        "store": False,
    }
    answer = create(client, **thought)
    reasoning, message = answer.output
    assert reasoning.type == "reasoning"
    assert reasoning.content[0].text == reasoning.summary[0].text
    assert message.type == "message"
    assert 0 < answer.usage.output_tokens_details.reasoning_tokens < answer.usage.output_tokens
    # As Codex sends it back: without the content.
    sealed = {
        "type": "reasoning",
        "summary": [],
        "encrypted_content": reasoning.encrypted_content,
    }
    first = {"role": "user", "content": "Name three colours."}
    again = {"role": "user", "content": "And?"}
    carried = create(client, input=[first, sealed, message, again], store=False)
    plain = create(client, input=[first, message, again], store=False)
    assert carried.usage.input_tokens > plain.usage.input_tokens
    cached = carried.usage.input_tokens_details.cached_tokens
    assert cached > answer.usage.input_tokens


def test_functions_and_custom_tools(client: OpenAI) -> None:
    tools: Any = [CLOCK, PATCH]
    fields: dict[str, Any] = {"tools": tools, "temperature": 1, "max_output_tokens": 48}
    named = create(client, tool_choice={"type": "function", "name": "clock"}, **fields)
    call = named.output[0]
    assert isinstance(call, ResponseFunctionToolCall)
    assert re.fullmatch("UTC[+-][0-9]{1,2}", json.loads(call.arguments)["zone"])
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [PATCH]}
    patched = create(client, tool_choice=allowed, parallel_tool_calls=False, **fields)
    call = patched.output[0]
    assert isinstance(call, ResponseCustomToolCall)
    name = r"File: [a-z.]{1,12}\n"
    hunk = rf"(\*\*\* Add {name}(\+[a-z ]{{0,12}}\n)+|\*\*\* Delete {name})"
    whole = rf"\*\*\* Begin Patch\n{hunk}+\*\*\* End Patch\n?"
    if patched.status == "completed":
        assert re.fullmatch(whole, call.input)
    assert call.input.startswith("*** Begin Patch\n*** ")
    result = {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "Done!"}
    after = create(client, input=[result], previous_response_id=patched.id, tools=tools)
    assert after.usage.input_tokens_details.cached_tokens > patched.usage.input_tokens - 8


def codex_request(**fields: Any) -> dict[str, Any]:
    """What Codex sends in its second turn, shortened."""
    developer = {"type": "input_text", "text": "<permissions>Ask first.</permissions>"}
    return {
        "model": MODEL,
        "instructions": "You are a coding agent.",
        "input": [
            {"type": "message", "role": "developer", "content": [developer]},
            {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "<environment_context/>"}],
            },
            {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "Add a file."}],
            },
            {"type": "reasoning", "summary": [], "content": None, "encrypted_content": "gAAAA"},
            {
                "type": "function_call",
                "name": "shell",
                "arguments": '{"command":["ls"]}',
                "call_id": "call_1",
            },
            {"type": "function_call_output", "call_id": "call_1", "output": "README.md"},
        ],
        "tools": [
            {
                "type": "function",
                "name": "shell",
                "description": "Runs a command.",
                "strict": False,
                "parameters": {
                    "type": "object",
                    "properties": {"command": {"type": "array", "items": {"type": "string"}}},
                    "required": ["command"],
                    "additionalProperties": False,
                },
            },
            PATCH,
            {"type": "web_search", "external_web_access": False},
            {"type": "local_shell"},
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "reasoning": {"effort": "none", "summary": "auto"},
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "0199-abc",
        "text": {"verbosity": "low"},
        "max_output_tokens": 8,
        **fields,
    }


def test_codex(server: ServerProcess) -> None:
    response = httpx.post(f"{server.base_url}/responses", json=codex_request(), timeout=120)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-ignored-params"] == (
        "input[3] (encrypted_content of another server), tools[2] (web_search), "
        "tools[3] (local_shell)"
    )
    blocks = [b for b in response.text.strip().split("\n\n") if not b.startswith(":")]
    events = [json.loads(block.partition("\ndata: ")[2]) for block in blocks]
    assert events[0]["type"] == "response.created"
    assert events[-1]["type"] in ("response.completed", "response.incomplete")
    assert events[-1]["response"]["usage"]["output_tokens"] <= 8
    forced = codex_request(tool_choice={"type": "custom", "name": "apply_patch"}, stream=False)
    forced["max_output_tokens"] = 40
    (call,) = httpx.post(f"{server.base_url}/responses", json=forced, timeout=120).json()["output"]
    assert call["type"] == "custom_tool_call"
    assert call["input"].startswith("*** Begin Patch\n*** ")


def test_errors_name_the_field(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        create(client, tools=[{**PATCH, "format": {"type": "grammar", "syntax": "lark"}}])
    assert refused.value.param == "tools[0].format"
    with pytest.raises(openai.BadRequestError) as refused:
        create(client, input="word " * 2000)
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "input")
