"""JSON in pieces: what is handed on is the value itself, and valid JSON at every failure."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.chat.json_stream import JsonValue

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def read(text: str, step: int) -> tuple[JsonValue, str, int]:
    """Feed `text` in pieces; the value, what it handed on, and where it stopped."""
    value, out, position = JsonValue(), "", 0
    for end in range(step, len(text) + step, step):
        position, piece = value.read(text[:end], position)
        out += piece
    position, piece = value.read(text, position, final=True)
    return value, out + piece, position


@settings(max_examples=150, deadline=None)
@given(value=VALUES, step=st.integers(1, 7), indent=st.sampled_from([None, 1]))
def test_valid_json_passes_unchanged(value: Any, step: int, indent: int | None) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=step % 2 == 0)
    reader, out, position = read(text, step)
    assert reader.done
    assert out == text
    assert position == len(text)


def test_it_stops_at_the_end_of_the_value() -> None:
    reader, out, position = read('{"a": [1]} tail', 4)
    assert (reader.done, out, position) == (True, '{"a": [1]}', 10)


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ('"a\nb"', '"a\\nb"'),
        ('"\x01"', '"\\u0001"'),
        ('"\\q"', '"\\\\q"'),
        ('"it\\\'s"', '"it\'s"'),
        ('"\\u12g"', '"\\\\u12g"'),
        ("[True, False, None]", "[true, false, null]"),
        ("[one, 2,]", '["one", 2]'),
        ('{"a": 1, }', '{"a": 1}'),
    ],
)
def test_small_mistakes_are_mended(text: str, mended: str) -> None:
    for step in (1, 3, 50):
        reader, out, _ = read(text, step)
        assert reader.done
        assert out == mended
        json.loads(out)


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet='{}[]",:1.-e\\ tn\n', max_size=30))
def test_whatever_fails_can_be_completed_to_json(text: str) -> None:
    reader, out, _ = read("{" + text, 1)
    if reader.failed:
        json.loads(out + reader.closing())
    elif reader.done:
        json.loads(out)
    whole, all_out, _ = read("{" + text, 100)
    assert (whole.done, whole.failed, all_out) == (reader.done, reader.failed, out)
