"""Custom tools: one free text instead of arguments, in the model's own call syntax."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from server.custom_tools import InputReader, as_arguments
from tests.server.asgi import Client
from tests.server.fakes import INFO, FakeEngine, answer

PATCH = {"type": "custom", "custom": {"name": "patch", "description": "Changes files."}}
CALL = '<tool_call>\n{"name": "patch", "arguments": {"input": "a\\n\\u00e9\\"b"}}\n</tool_call>'
TEXT = 'a\né"b'


@pytest.fixture
async def engine() -> FakeEngine:
    return FakeEngine(info=replace(INFO, context=4096))


def split(arguments: str) -> list[str]:
    """What the reader says of each character, and at the end."""
    reader = InputReader()
    return [*(reader.read(char) for char in arguments), reader.finish()]


@pytest.mark.parametrize("text", ["", 'a\n"b"\\c\té', "\U0001f600 and \x01", "}" * 5])
@pytest.mark.parametrize("ascii", [True, False])
def test_input_in_fragments(text: str, ascii: bool) -> None:
    arguments = json.dumps({"input": text}, ensure_ascii=ascii)
    assert "".join(split(arguments)) == text
    assert InputReader().read(arguments) == text
    assert InputReader().read(as_arguments(text)) == text


def test_text_comes_as_soon_as_it_is_certain() -> None:
    reader = InputReader()
    assert [reader.read(part) for part in ('{"input":', ' "ab\\', "u00e", "9c", 'd"}')] == [
        *("", "ab", "", "éc", "d"),
    ]


@pytest.mark.parametrize("other", ['{"other": 1}', '{"inp', '"x"', "[1]", "", '{"input": 5}'])
def test_other_arguments_come_as_they_are(other: str) -> None:
    assert "".join(split(other)) == other


def test_half_a_pair_is_no_character() -> None:
    assert "".join(split('{"input": "a\\ud83d\\n\\ud83dx"}')) == "a?\n?x"


@pytest.mark.anyio
async def test_chat_answers_with_the_text(client: Client, engine: FakeEngine) -> None:
    engine.script = answer(CALL)
    choice = (await client.chat(tools=[PATCH])).json()["choices"][0]
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert call == {"id": call["id"], "type": "custom", "custom": {"name": "patch", "input": TEXT}}


@pytest.mark.anyio
async def test_chat_streams_it(client: Client, engine: FakeEngine) -> None:
    engine.script = answer(CALL)
    chunks = (await client.chat(tools=[PATCH], stream=True)).events()[:-1]
    deltas = [d for c in chunks for d in c["choices"][0]["delta"].get("tool_calls", ())]
    assert [delta.get("type") for delta in deltas] == ["custom"] + [None] * (len(deltas) - 1)
    assert deltas[0]["custom"]["name"] == "patch"
    assert "".join(delta["custom"]["input"] for delta in deltas) == TEXT


@pytest.mark.anyio
async def test_its_grammar_constrains_the_call(client: Client, engine: FakeEngine) -> None:
    grammar = {"type": "grammar", "grammar": {"syntax": "regex", "definition": "[0-9]{3}"}}
    custom = {"name": "patch", "format": grammar}
    choice: Any = {"type": "custom", "custom": {"name": "patch"}}
    response = await client.chat(tools=[{"type": "custom", "custom": custom}], tool_choice=choice)
    assert response.status == 200, response.body
    assert '"[0-9]{3}"' in engine.compiled[-1].lark.replace("\\", "")
    shown = engine.tokenizer.decode(engine.requests[-1].prompt)
    assert "Must match this regex grammar" in shown
    assert "input_grammar" not in shown


@pytest.mark.anyio
async def test_earlier_calls_are_shown_to_the_model(client: Client, engine: FakeEngine) -> None:
    call = {"id": "c1", "type": "custom", "custom": {"name": "patch", "input": TEXT}}
    messages = [
        {"role": "user", "content": "Go"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "done"},
    ]
    response = await client.chat(tools=[PATCH], messages=messages)
    assert response.status == 200, response.body
    shown = engine.tokenizer.decode(engine.requests[-1].prompt)
    assert f'"arguments": {as_arguments(TEXT)}' in shown


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("tool", "param"),
    [
        ({"type": "custom"}, "tools[0].custom"),
        ({"type": "custom", "custom": {}}, "tools[0].custom.name"),
        (
            {"type": "custom", "custom": {"name": "p", "format": {"type": "xml"}}},
            "tools[0].custom.format",
        ),
        (
            {
                "type": "custom",
                "custom": {"name": "p", "format": {"type": "grammar", "grammar": {}}},
            },
            "tools[0].custom.format.grammar",
        ),
    ],
)
async def test_refusals(client: Client, tool: dict[str, Any], param: str) -> None:
    response = await client.chat(tools=[tool])
    assert response.status == 400
    assert response.json()["error"]["param"] == param


@pytest.mark.anyio
async def test_a_grammar_that_cannot_be_read_is_refused(client: Client) -> None:
    grammar = {"syntax": "lark", "definition": "start: nowhere\n"}
    custom = {"name": "p", "format": {"type": "grammar", "grammar": grammar}}
    response = await client.chat(tools=[{"type": "custom", "custom": custom}])
    assert response.status == 400
    assert "nowhere is not defined" in response.json()["error"]["message"]
