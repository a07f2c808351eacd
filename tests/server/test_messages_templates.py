"""Anthropic's turns through public chat templates; skipped where these are absent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from server.api.messages_call import translate
from server.chat.format import ChatFormat
from server.conversation import _up_to, template_kwargs, template_messages
from server.protocol.anthropic import MessagesRequest
from server.tools import read_toolset

TEMPLATES = sorted((Path(__file__).parents[2].parent / "shared" / "templates").glob("*.jinja"))
SCHEMA = {"type": "object", "properties": {"at": {"type": "string"}, "n": {"type": "integer"}}}
DROPPED = {"mistralai-Mistral-Nemo-Instruct-2407": ["Be brief."]}
"""It prints the system message only where the last turn is the user's."""
INPUT = {"at": "the “sky”", "n": 3}
TURNS: list[dict[str, Any]] = [
    {"role": "user", "content": [{"type": "text", "text": "What is it?"}]},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "I shall look.", "signature": "x"},
            {"type": "tool_use", "id": "toolu_01D7FLrfh4GYq7", "name": "look", "input": INPUT},
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "toolu_01D7FLrfh4GYq7", "content": "gone blue"},
            {"type": "text", "text": "Well?"},
        ],
    },
    {"role": "system", "content": "Answer in French."},
]


def rendered(format: ChatFormat, arguments: Any = None) -> str:
    """The prompt; `arguments` replace those of the call."""
    body = {
        "max_tokens": 1,
        "system": "Be brief.",
        "messages": TURNS,
        "tools": [{"name": "look", "input_schema": SCHEMA}],
        "thinking": {"type": "adaptive"},
    }
    chat = translate(msgspec.convert(body, MessagesRequest)).chat
    if arguments is not None:
        calls = chat.messages[2].tool_calls
        assert calls is not None
        calls[0].function.arguments = arguments
    toolset = read_toolset(chat)
    assert toolset is not None
    tools = list(toolset.offered)
    return format.render(template_messages(chat.messages), tools, True, **template_kwargs(chat))


@pytest.mark.skipif(not TEMPLATES, reason="no templates beside the checkout")
@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_a_conversation_loses_nothing(path: Path) -> None:
    format = ChatFormat.from_template(path.read_text("utf-8"), bos_token="<s>", eos_token="</s>")
    text = rendered(format)
    words = ["Be brief.", "What is it?", "look", "sky", "gone blue", "Well?", "Answer in French."]
    assert [word for word in words if word not in text] == DROPPED.get(path.stem, [])
    # The input comes back as a value; the model wrote it as text, which the cache has.
    assert rendered(format, json.dumps(INPUT, ensure_ascii=False)) == text


@pytest.mark.skipif(not TEMPLATES, reason="no templates beside the checkout")
@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_an_answer_can_be_continued(path: Path) -> None:
    """The prompt is that of the turn, with what is continued at its end, outside of a thought."""
    format = ChatFormat.from_template(path.read_text("utf-8"), bos_token="<s>", eos_token="</s>")
    user = {"role": "user", "content": "Count."}
    turns = [user, {"role": "assistant", "content": "One, two,"}]
    text = _up_to(format.render(turns, None, False), "One, two,")
    assert text.endswith("One, two,")
    assert text.count("One, two,") == 1
    assert not format.opens_thought(text)
    parser = format.parser([], text)
    deltas = parser.feed(" three.") + parser.finish()
    assert "".join(delta.text for delta in deltas) in (" three.", "three.")  # type: ignore[union-attr]
    assert {type(delta).__name__ for delta in deltas} == {"ContentDelta"}
