"""Tool calls on a model that was never taught any: the grammar makes them valid all the same."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from openai import BadRequestError, OpenAI

from tests.e2e.chat import MODEL, messages

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 16},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
        "units": {"enum": ["C", "F"]},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
CLOCK = {
    "type": "object",
    "properties": {"zone": {"type": "string", "pattern": "^UTC[+-][0-9]{1,2}$"}},
    "required": ["zone"],
    "additionalProperties": False,
}
SCHEMAS = {"weather": WEATHER, "clock": CLOCK}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": schema}}
    for name, schema in SCHEMAS.items()
]
NAMED = {"type": "function", "function": {"name": "clock"}}


def ask(client: OpenAI, **fields: Any) -> Any:
    defaults: dict[str, Any] = {
        "model": MODEL,
        "messages": messages("What is the weather in Paris?"),
        "tools": TOOLS,
        "max_tokens": 100,
        "temperature": 1.2,
        "parallel_tool_calls": False,
    }
    return client.chat.completions.create(**(defaults | fields))


def check(call: Any) -> str:
    assert call.type == "function"
    assert call.id
    jsonschema.validate(json.loads(call.function.arguments), SCHEMAS[call.function.name])
    return str(call.function.name)


def test_a_hundred_required_calls_are_valid(client: OpenAI) -> None:
    ids: set[str] = set()
    for seed in range(5):
        choices = ask(client, tool_choice="required", n=20, seed=seed).choices
        for choice in choices:
            assert choice.finish_reason == "tool_calls"
            assert choice.message.content is None
            (call,) = choice.message.tool_calls
            check(call)
            ids.add(call.id)
    assert len(ids) == 100


def test_a_named_function_is_the_one_that_is_called(client: OpenAI) -> None:
    for choice in ask(client, tool_choice=NAMED, n=4).choices:
        assert check(choice.message.tool_calls[0]) == "clock"


def test_allowed_tools(client: OpenAI) -> None:
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}
    for choice in ask(client, tool_choice=allowed, n=4).choices:
        assert check(choice.message.tool_calls[0]) == "clock"


def test_parallel_calls_are_numbered(client: OpenAI) -> None:
    choices = ask(client, tool_choice="required", parallel_tool_calls=True, n=8, seed=1).choices
    counts = []
    for choice in choices:
        calls = choice.message.tool_calls
        for call in calls[: None if choice.finish_reason == "tool_calls" else -1]:
            check(call)
        counts.append(len(calls))
    assert max(counts) > 1


def test_none_calls_nothing(client: OpenAI) -> None:
    for choice in ask(client, tool_choice="none", n=4, max_tokens=20).choices:
        assert choice.message.tool_calls is None
        assert "<tool_call>" not in choice.message.content


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_streamed_is_what_comes_whole(client: OpenAI, choice: str) -> None:
    fields: dict[str, Any] = {"tool_choice": choice, "seed": 11, "max_tokens": 60}
    whole = ask(client, **fields).choices[0]
    content, calls, reason = "", {}, None
    for chunk in ask(client, stream=True, **fields):
        delta, reason = chunk.choices[0].delta, chunk.choices[0].finish_reason or reason
        content += delta.content or ""
        for part in delta.tool_calls or ():
            if part.id:
                assert part.index == len(calls)
                assert part.type == "function"
                calls[part.index] = [part.function.name, ""]
            calls[part.index][1] += part.function.arguments
    assert content == (whole.message.content or "")
    assert reason == whole.finish_reason
    expected = [[c.function.name, c.function.arguments] for c in whole.message.tool_calls or ()]
    assert list(calls.values()) == expected


def test_tools_with_a_response_format_give_a_call_or_a_document(client: OpenAI) -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    schema["additionalProperties"] = False
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    for choice in ask(client, response_format=form, n=12, seed=2).choices:
        if choice.message.tool_calls:
            check(choice.message.tool_calls[0])
        else:
            jsonschema.validate(json.loads(choice.message.content), schema)


def test_results_go_back_to_the_model(client: OpenAI) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    history = [
        *messages("What time is it?"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "12:34"},
    ]
    assert ask(client, messages=history, max_tokens=4).usage.prompt_tokens > 50


def test_legacy_functions(client: OpenAI) -> None:
    functions = [{"name": name, "parameters": schema} for name, schema in SCHEMAS.items()]
    completion = client.chat.completions.create(
        model=MODEL,
        messages=messages("What time is it?"),
        functions=functions,  # type: ignore[arg-type]
        function_call={"name": "clock"},
        max_tokens=60,
    )
    choice = completion.choices[0]
    assert choice.finish_reason == "function_call"
    assert choice.message.function_call is not None
    jsonschema.validate(json.loads(choice.message.function_call.arguments), CLOCK)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": {"type": "function", "function": {"name": "nope"}}}, "tool_choice"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools[1].function.name"),
        ({"tools": [{"type": "code_interpreter"}]}, "tools[0].type"),
        ({"function_call": {"name": "clock"}}, "function_call"),
    ],
)
def test_bad_tools_name_their_field(client: OpenAI, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        ask(client, **fields)
    error: Any = refused.value.body
    assert error["param"] == param


def test_a_schema_of_a_tool_that_cannot_be_enforced_is_refused(client: OpenAI) -> None:
    bad = {"type": "object", "properties": {"a": {"type": "string", "pattern": "(a)\\1"}}}
    tools = [TOOLS[0], {"type": "function", "function": {"name": "bad", "parameters": bad}}]
    with pytest.raises(BadRequestError, match=r"'bad'.*pattern") as refused:
        ask(client, tools=tools, tool_choice="required")
    assert refused.value.param == "tools[1].function.parameters"


def test_a_stop_string_inside_a_call_is_why_it_ended(client: OpenAI) -> None:
    (choice,) = ask(client, tool_choice=NAMED, temperature=0, stop="zone").choices
    assert choice.finish_reason == "stop"
    assert choice.stop_reason == "zone"
    assert choice.message.tool_calls[0].function.arguments == '{"'
    *_, last = ask(client, tool_choice=NAMED, temperature=0, stop="zone", stream=True)
    assert last.choices[0].finish_reason == "stop"
