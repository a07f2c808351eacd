"""Messages in channels: each part has a header that says whom it is for."""

from typing import Any

import pytest

from server.chat import ChatFormat
from tests.server.chat.turns import TURNS, parsed, plain, written

ARGS = '{"city": "Paris"}'
CITY = ("get_weather", {"city": "Paris"})
NOW: tuple[str, dict[str, Any]] = ("now", {})

CHANNELS = (
    "<|start|>system<|message|>{{ tools }}<|end|>{% for m in messages %}"
    "{% if m.role == 'assistant' %}{% if 'tool_calls' in m %}"
    "{% if m.thinking %}<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>"
    "{% endif %}<|start|>assistant to=functions.{{ m.tool_calls[0].function.name }}<|channel|>"
    "commentary json<|message|>{{ m.tool_calls[0].function.arguments | tojson }}<|call|>"
    "{% elif loop.last %}{% if m.thinking %}<|start|>assistant<|channel|>analysis<|message|>"
    "{{ m.thinking }}<|end|>{% endif %}<|start|>assistant<|channel|>final<|message|>"
    "{{ m.content }}<|return|>{% else %}<|start|>assistant<|channel|>final<|message|>"
    "{{ m.content }}<|end|>{% endif %}{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}"
    "<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<|channel|>final<|message|>Yes.<|return|>", ("Yes.", "", [])),
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>"
            "Yes.",
            ("Yes.", "Hm.", []),
        ),
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary "
            f"to=functions.get_weather <|constrain|>json<|message|>{ARGS}<|call|>",
            ("", "Hm.", [CITY]),
        ),
        (
            "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant to=functions.now"
            "<|channel|>commentary json<|message|>{}<|call|>",
            ("I look.", "", [NOW]),
        ),
        ("Plain.", ("Plain.", "", [])),
        ("<|channel|>final", ("<|channel|>final", "", [])),
    ],
)
def test_channels(text: str, expected: object) -> None:
    channels = ChatFormat.from_template(CHANNELS)
    for step in (0, 1, 3):
        seen = plain(parsed(channels, text, step))
        assert (seen["content"], seen["thought"], seen["calls"]) == expected


def test_channels_round_trip() -> None:
    channels = ChatFormat.from_template(CHANNELS)
    for message in TURNS.values():
        assert plain(parsed(channels, written(channels, message))) == plain(message)
