"""What models really write: exact, careless, broken, cut off; fed whole and in pieces."""

import json
import random
from functools import cache
from typing import Any

import pytest

from server.chat import CallDelta, ChatFormat, ContentDelta, ReasoningDelta, delta_fields
from tests.server.chat.shapes import SHAPES
from tests.server.chat.turns import PARIS, TOOLS, TURNS, USER, parsed, plain, turn, written

CITY = ("get_weather", {"city": "Paris"})
NOW: tuple[str, dict[str, Any]] = ("now", {})


@cache
def form(name: str) -> ChatFormat:
    return ChatFormat.from_template(SHAPES[name])


def read(name: str, text: str, prompt: str | None = None) -> tuple[str, str, list[Any]]:
    """(content, thought, calls) of `text`, the same whole and in pieces."""
    whole = parsed(form(name), text, 0, prompt)
    for step in (1, 2, 5):
        assert parsed(form(name), text, step, prompt) == whole
    seen = plain(whole)
    return seen["content"], seen["thought"], seen["calls"]


ARGS = '{"city": "Paris"}'
OBJECT = '{"name": "get_weather", "arguments": ' + ARGS + "}"


@pytest.mark.parametrize(
    ("name", "text", "calls"),
    [
        ("tags", f"<tool_call>{OBJECT}</tool_call>", [CITY]),
        ("tags", f"<tool_call>\n  {OBJECT}\n\n</tool_call>\n\n", [CITY]),
        ("tags", f'<tool_call>{{"arguments": {ARGS}, "name": "get_weather"}}</tool_call>', [CITY]),
        ("tags", f'<tool_call>{{"name": "get_weather", "parameters": {ARGS}}}</tool_call>', [CITY]),
        ("tags", f'<tool_call>[{OBJECT}, {{"name": "now"}}]</tool_call>', [CITY, NOW]),
        ("tags", f"<tool_call>{OBJECT}\n{OBJECT}</tool_call>", [CITY, CITY]),
        ("tags", f"<tool_call>{OBJECT}<tool_call>{OBJECT}", [CITY, CITY]),
        ("tags", '<tool_call>{"name": "now", "arguments": null}</tool_call>', [NOW]),
        (
            "tags",
            '<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}',
            [CITY],
        ),
        ("list", f"<TOOLCALL> [ {OBJECT} , {OBJECT} ] </TOOLCALL>", [CITY, CITY]),
        ("list", f"<TOOLCALL>{OBJECT}</TOOLCALL>", [CITY]),
        ("list-bare", f"[{OBJECT}]", [CITY]),
        ("object-bare", OBJECT, [CITY]),
        ("object-bare", f"{OBJECT}\n{OBJECT}", [CITY, CITY]),
        ("object-bare", f'{{"type": "function", {OBJECT[1:]}', [CITY]),
        ("brackets", f"[TOOL_CALLS]get_weather[ARGS]{ARGS}", [CITY]),
        ("brackets", f"[TOOL_CALLS]get_weather {ARGS}", [CITY]),
        ("id-before-name", f"<|call:begin|>7<|call:name|>get_weather<|call:args|>{ARGS}", [CITY]),
        ("fenced", f"<|call_begin|>function<|sep|>get_weather\n{ARGS}<|call_end|>", [CITY]),
        (
            "parameters",
            "<function=get_weather><parameter=city>Paris</parameter></function>",
            [CITY],
        ),
        ("parameters", "<tool_call>\n<function=now>\n</function>\n</tool_call>", [NOW]),
        ("python", "<|call_start|>[get_weather('Paris')]<|call_end|>", [CITY]),
        ("python", "<|call_start|>[get_weather( city = 'Paris' ), now()]", [CITY, NOW]),
        ("recipients", f"get_weather\n{ARGS}", [CITY]),
    ],
)
def test_calls_are_read_as_models_write_them(name: str, text: str, calls: list[Any]) -> None:
    assert read(name, text) == ("", "", calls)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tags", "Use the <tool_call> tag; <tool"),
        ("tags", "<tool_call>\nnothing\n</tool_call>"),
        ("tags", '<tool_call>{"name": 7}</tool_call>'),
        ("tags", '<tool_call>{"arguments": {"a": 1}}</tool_call>'),
        ("tags", '<tool_call>\n{"name": "get_weather", "argum'),
        ("tags", "<tool_call>"),
        ("list", "<TOOLCALL>[1, 2]</TOOLCALL>"),
        ("parameters", "<tool_call>\n<function="),
        ("brackets", "[TOOL_CALLS] is a marker"),
        ("object-bare", '{"name": "Ada", "arguments": {"age": 36}}'),
        ("object-bare", '{"city": "Paris"}'),
        ("object-bare", "{"),
        ("list-bare", "[1, 2]"),
        ("python-bare", "[one](http://two)"),
        ("name-line", "\nHello\n{}"),
        ("name-line", "Hello\n{}"),
        ("prompt-switches", "a < b > c <"),
    ],
)
def test_what_is_no_call_is_content(name: str, text: str) -> None:
    content, thought, calls = read(name, text)
    assert (content.strip(), thought, calls) == (text.strip(), "", [])


def test_text_around_calls_is_content() -> None:
    text = f"One.\n<tool_call>{OBJECT}</tool_call>\nTwo.<tool_call>{OBJECT}</tool_call> Three."
    assert read("tags", text) == ("One.Two.Three.", "", [CITY, CITY])


def test_mistakes_in_arguments_are_mended() -> None:
    text = (
        '<tool_call>{"name": "store", "arguments": {"text": "a\nb\t\\x \\\' \\u12 ", '
        '"flag": True, "nothing": None, "items": [1, 2,], "code": word,}}</tool_call>'
    )
    arguments = {
        "text": "a\nb\t\\x ' \\u12 ",
        "flag": True,
        "nothing": None,
        "items": [1, 2],
        "code": "word",
    }
    assert read("tags", text) == ("", "", [("store", arguments)])


@pytest.mark.parametrize(
    ("broken", "arguments"),
    [
        ('{"a" 1}', {"a": None}),
        ('{"a": }', {"a": None}),
        ('{"a": [1, {"b": 2 3', {"a": [1, {"b": 2}]}),
        ("{'a': 1}", {}),
        ('{"a": 1.2.3}', {"a": None}),
    ],
)
def test_broken_arguments_stay_json_and_the_rest_is_content(broken: str, arguments: object) -> None:
    text = '<tool_call>{"name": "now", "arguments": ' + broken + "}</tool_call>"
    content, _, calls = read("tags", text)
    assert calls == [("now", arguments)]
    assert content.endswith("</tool_call>")


def test_arguments_that_are_cut_off_stay_cut_off() -> None:
    for name, text in (
        ("tags", '<tool_call>{"name": "store", "arguments": {"text": "rm -rf /tm'),
        ("parameters", "<tool_call>\n<function=store>\n<parameter=text>\nrm -rf /tm"),
    ):
        parser = form(name).parser(TOOLS)
        parser.feed(text)
        parser.finish()
        (call,) = parser.message()["tool_calls"]
        with pytest.raises(ValueError, match="Unterminated"):
            json.loads(call["function"]["arguments"])


@pytest.mark.parametrize("rest", ["", "</tool", "</tool_call>", "</tool_call>\n<tool_c"])
def test_a_marker_that_is_cut_behind_a_call_is_no_content(rest: str) -> None:
    assert read("tags", f"<tool_call>{OBJECT}{rest}") == ("", "", [CITY])


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("No call.", False),
        (f"<tool_call>{OBJECT[:-3]}", True),
        (f"<tool_call>{OBJECT}", False),
        (f"<tool_call>{OBJECT}</tool_call>\n<tool_call>{OBJECT[:-3]}", True),
    ],
)
def test_a_call_without_its_end_is_known_as_cut(text: str, cut: bool) -> None:
    parser = form("tags").parser(TOOLS)
    parser.feed(text)
    parser.finish()
    assert parser.cut == cut


def test_thoughts() -> None:
    for text in (
        "<think>\nHm.\n</think>\n\nYes.",
        "<think>Hm.</think>Yes.",
        "\n<think> Hm.</think> Yes.",
    ):
        assert read("tags", text) == ("Yes.", "Hm.", [])
    assert read("tags", "<think>\nnever closed ") == ("", "never closed", [])
    assert read("tags", "<think></think>Yes.") == ("Yes.", "", [])
    assert read("tags", "Yes, <think> is a tag, </think> too.") == (
        "Yes, <think> is a tag, </think> too.",
        "",
        [],
    )
    text = f"<think>I could <tool_call> it</think><tool_call>{OBJECT}</tool_call>"
    assert read("tags", text) == ("", "I could <tool_call> it", [CITY])


def test_a_prompt_may_have_opened_the_thought() -> None:
    assert read("prompt-opens", "Hm.\n</think>\n\nYes.") == ("Yes.", "Hm.", [])
    prompt = "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert read("prompt-opens", "Yes.", prompt) == ("Yes.", "", [])
    assert read("key-value", "Hm.</think>Yes.") == ("Yes.", "Hm.", [])
    assert read("key-value", "Yes.", "<|im_start|>assistant\n</think>") == ("Yes.", "", [])


def test_content_that_a_client_has_begun_goes_on() -> None:
    assert read("tags", "re.", "<|im_start|>assistant\nSu") == ("re.", "", [])


def test_the_end_of_a_turn_ends_the_message() -> None:
    parser = form("tags").parser(TOOLS)
    parser.feed("Hello")
    assert not parser.ended
    parser.feed("<|im_end|>\n<|im_start|>user\nHi")
    assert parser.ended
    parser.finish()
    assert parser.message() == {"role": "assistant", "content": "Hello"}


def test_whitespace_of_content_is_kept() -> None:
    assert read("tags", "\n\n  Hello \n\n")[0] == "\n\n  Hello \n\n"


def test_strings_and_numbers_follow_the_schema() -> None:
    text = (
        "<tool_call><function=store><parameter=text>42</parameter><parameter=ratio>42</parameter>"
        "<parameter=flag>False</parameter><parameter=items>['a', 1]</parameter>"
        "<parameter=nothing>null</parameter><parameter=other>007</parameter></function></tool_call>"
    )
    expected = {
        "text": "42",
        "ratio": 42,
        "flag": False,
        "items": ["a", 1],
        "nothing": None,
        "other": "007",
    }
    assert read("parameters-python", text) == ("", "", [("store", expected)])


def test_unions_and_references_in_a_schema() -> None:
    parameters = {
        "$defs": {"Name": {"type": "string"}},
        "properties": {
            "name": {"$ref": "#/$defs/Name"},
            "size": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "kind": {"enum": ["1", "2"]},
            "either": {"type": ["string", "integer"]},
        },
    }
    tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    parser = form("parameters-python").parser(tools)
    keys = {"name": "1", "size": "1", "kind": "1", "either": "true"}
    shown = "".join(f"<parameter={k}>{v}</parameter>" for k, v in keys.items())
    parser.feed(f"<tool_call><function=f>{shown}</function></tool_call>")
    parser.finish()
    (call,) = parser.message()["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {
        "name": "1",
        "size": 1,
        "kind": "1",
        "either": "true",
    }


def test_no_tools_means_no_calls() -> None:
    text = f"<tool_call>{OBJECT}</tool_call>"
    parser = form("tags").parser([])
    parser.feed(text)
    parser.finish()
    assert parser.message() == {"role": "assistant", "content": text}


def test_unknown_tools_allow_any_name() -> None:
    parser = form("tags").parser()
    parser.feed('<tool_call>{"name": "anything", "arguments": {}}</tool_call>')
    parser.finish()
    assert parser.message()["tool_calls"][0]["function"]["name"] == "anything"


def test_ids_of_the_text_are_kept_and_others_made() -> None:
    text = '<calls>[{"name": "now", "arguments": {}, "id": "abc123xyz"}]</calls>'
    assert parsed(form("id-last"), text)["tool_calls"][0]["id"] == "abc123xyz"
    calls = [
        parsed(form("tags"), f"<tool_call>{OBJECT}</tool_call><tool_call>{OBJECT}</tool_call>")
        for _ in range(2)
    ]
    assert calls[0] == calls[1]
    first, second = calls[0]["tool_calls"]
    assert first["id"] != second["id"]
    parser = form("tags").parser(TOOLS, seed="another request")
    parser.feed(f"<tool_call>{OBJECT}</tool_call>")
    assert parser.message()["tool_calls"][0]["id"] != first["id"]


def test_deltas_come_as_soon_as_they_are_certain() -> None:
    parser = form("tags").parser(TOOLS)
    assert parser.feed("Well, ") == [ContentDelta("Well,")]
    assert parser.feed("yes <too") == [ContentDelta(" yes")]
    assert parser.feed("l> ") == [ContentDelta(" <tool>")]
    assert parser.feed('<tool_call>\n{"name": "get_weather"') == []
    (opened,) = parser.feed(', "arguments": {"ci')
    assert isinstance(opened, CallDelta)
    assert (opened.index, opened.name, opened.arguments) == (0, "get_weather", '{"ci')
    assert opened.id
    assert parser.feed('ty": "Par') == [CallDelta(0, 'ty": "Par')]
    assert parser.feed('is"}}\n</tool_call>') == [CallDelta(0, 'is"}')]
    assert parser.finish() == []


def test_strings_between_markers_stream_too() -> None:
    parser = form("parameters").parser(TOOLS)
    parser.feed("<tool_call>\n<function=store>\n<parameter=text>\n")
    assert parser.feed('one "two') == [CallDelta(0, 'one \\"two')]
    assert parser.feed("\n") == []
    assert parser.feed("three\n</parameter>") == [CallDelta(0, '\\nthree"')]


def test_deltas_in_openai_s_shape() -> None:
    assert delta_fields(ContentDelta("a")) == {"content": "a"}
    assert delta_fields(ReasoningDelta("a")) == {"reasoning_content": "a"}
    assert delta_fields(CallDelta(1, "{", "call_1", "f")) == {
        "tool_calls": [
            {
                "index": 1,
                "id": "call_1",
                "type": "function",
                "function": {"name": "f", "arguments": "{"},
            }
        ]
    }
    assert delta_fields(CallDelta(1, "}")) == {
        "tool_calls": [{"index": 1, "function": {"arguments": "}"}}]
    }


def damaged(text: str, pool: list[str], source: random.Random) -> str:
    for _ in range(source.randint(1, 3)):
        start = source.randint(0, len(text))
        stop = min(len(text), start + source.randint(1, 8))
        text = source.choice(
            [
                text[:start] + text[stop:],
                text[:start],
                text[:start] + source.choice(pool) + text[start:],
                text[:start] + text[start:stop] * 2 + text[stop:],
            ]
        )
    return text


@pytest.mark.parametrize("name", SHAPES)
def test_damaged_text_is_read_alike_whole_and_in_pieces(name: str) -> None:
    shape, source = form(name), random.Random(name)
    texts = [written(shape, TURNS[t]) for t in ("content-calls", "types", "reasoning", "quotes")]
    pool = ["\n", " ", '"', "{", "}", "[", "]", ",", "<", "\\", "x", *shape.markup.in_text.words]
    prompt = shape.render(USER, TOOLS)
    for _ in range(15):
        text = damaged(source.choice(texts), pool, source)
        whole = parsed(shape, text, 0, prompt)
        assert parsed(shape, text, 1, prompt) == whole
        assert parsed(shape, text, 4, prompt) == whole


def test_work_is_linear_in_the_text() -> None:
    """Counted in characters handed to the scanner, not in time."""
    turns = {
        "tags": turn(None, PARIS)["tool_calls"][0]["function"]["arguments"],
        "arguments-first": "",
    }
    for name in turns:
        parser = form(name).parser(TOOLS)
        text = written(form(name), TURNS["call"]).replace("Paris", "Paris " * 5000)
        longest = 0
        for char in text:
            parser.feed(char)
            longest = max(longest, len(parser._cursor.text))
        assert longest < 100  # nothing but a possible marker is ever kept for another look
