"""What discovery finds out, and what constrained decoding is told of it."""

from functools import cache

import pytest

from server.chat import ChatFormat
from server.chat.plan import CallPlan
from tests.server.chat.shapes import SHAPES
from tests.server.chat.turns import TOOLS, TURNS, USER, parsed, plain, turn


@cache
def form(name: str) -> ChatFormat:
    return ChatFormat.from_template(SHAPES[name])


@pytest.mark.parametrize(
    ("name", "style", "opening", "closing"),
    [
        ("tags", "json_object", "<tool_call>", "</tool_call>"),
        ("list", "json_object", "<TOOLCALL>[", "]</TOOLCALL>"),
        ("list-words", "json_object", "functools[", "]"),
        ("object-bare", "json_object", "", ""),
        ("name-as-key", "json_object", "<|tools_prefix|>[", "]<|tools_suffix|>"),
        ("attribute", "name_then_json", "<function=", "</function>"),
        ("brackets", "name_then_json", "[TOOL_CALLS]", ""),
        ("name-line", "name_then_json", "", ""),
        ("parameters", "parameters", "<tool_call>\n<function=", "</function>\n</tool_call>"),
        ("key-value", "parameters", "<tool_call>", "</tool_call>"),
        ("python", "python", "<|call_start|>[", "]<|call_end|>"),
        ("keyed", "keyed", "<start_call>call:", "<end_call>"),
    ],
)
def test_how_calls_are_written(name: str, style: str, opening: str, closing: str) -> None:
    syntax = form(name).calls[0]
    assert syntax.style == style
    assert syntax.first_open.strip() == opening
    assert (syntax.call_close + syntax.section_close).strip() == closing
    assert form(name).calls_from == "template"


@pytest.mark.parametrize(
    ("name", "opened", "closed"),
    [
        ("tags", "<think>", "</think>"),
        ("brackets", "[THINK]", "[/THINK]"),
        ("inner-thought", "<|inner_prefix|>", "<|inner_suffix|>"),
        ("blocks", "<|inner_prefix|>", "<|inner_suffix|>"),
        ("open-close", "<|open|>think<|sep|>", "<|close|>think<|sep|>"),
        ("parts", "<|think|>", "<|end|>"),
        ("prompt-opens", "<think>", "</think>"),
        ("last-turn-apart", "<think>", "</think>"),
        ("thought-in-words", "Here are my steps:", "[BEGIN FINAL RESPONSE]"),
    ],
)
def test_where_thoughts_open_and_close(name: str, opened: str, closed: str) -> None:
    thought = form(name).learned.thought
    assert (thought.open.strip(), thought.close.strip()) == (opened, closed)
    assert thought.learned


def test_without_a_hint_thoughts_have_the_customary_tags() -> None:
    thought = form("plain-words").learned.thought
    assert (thought.open.strip(), thought.close.strip()) == ("<think>", "</think>")
    assert not thought.learned


def test_whether_the_prompt_has_opened_a_thought() -> None:
    assert form("prompt-opens").opens_thought(form("prompt-opens").render(USER))
    assert not form("tags").opens_thought(form("tags").render(USER))
    switched = form("key-value")
    assert switched.opens_thought(switched.render(USER, enable_thinking=True))
    assert not switched.opens_thought(switched.render(USER, enable_thinking=False))


def test_content_of_its_own_tags() -> None:
    learned = form("response-tags").learned
    assert (learned.content_open, learned.content_close) == ("<response>\n", "</response>")


def test_what_ends_a_turn() -> None:
    assert form("tags").learned.ends == ("<|im_end|>",)
    named = ChatFormat.from_template(SHAPES["plain-words"], eos_token="</s>")
    assert named.learned.ends == ("</s>",)


def test_a_description_says_it_in_one_line() -> None:
    text = form("tags").describe()
    assert "\n" not in text
    assert "<tool_call>" in text
    assert "<think>" in text


def test_the_stated_generic_format() -> None:
    generic = ChatFormat.from_template(None)
    assert generic.calls_from == "generic"
    assert generic.write_calls(TURNS["calls"]["tool_calls"]) == (
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 2}}\n'
        '</tool_call>\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n'
        "</tool_call>"
    )


@pytest.mark.parametrize(
    ("listed", "written"),
    [
        ("<|tool_list_start|>{}<|tool_list_end|>", "<|tool_call_start|>[now()]<|tool_call_end|>"),
        (
            "{} Answer with <|tool_call|> and a list.",
            '<|tool_call|>[{"name": "now", "arguments": {}}]',
        ),
        ("<|tool|>{}<|/tool|>", '<|tool_call|>[{"name": "now", "arguments": {}}]<|/tool_call|>'),
        ("<tools>{}</tools>", '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'),
    ],
)
def test_shapes_that_a_template_only_suggests(listed: str, written: str) -> None:
    source = (
        "{% if tools %}" + listed.replace("{}", "{{ tools | tojson }}") + "{% endif %}"
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    )
    stated = ChatFormat.from_template(source)
    assert stated.write_calls(TURNS["empty"]["tool_calls"]) == written
    assert plain(parsed(stated, written))["calls"] == [("now", {})]


def test_a_user_may_know_better() -> None:
    better = form("tags").overridden(thought=("<mull>", "</mull>"), ends=("<|halt|>",))
    seen = parsed(better, "<mull>Hm.</mull>Yes.<|halt|>No.", prompt="")
    assert plain(seen) == {"content": "Yes.", "thought": "Hm.", "calls": []}
    generic = form("brackets").overridden(generic_calls=True)
    assert generic.calls_from == "generic"
    assert plain(parsed(generic, generic.write_calls(TURNS["empty"]["tool_calls"])))["calls"] == [
        ("now", {})
    ]


def plan(name: str, parallel: bool = True) -> CallPlan:
    return form(name).call_plan(TOOLS[:1], parallel)


def spelled(plan: CallPlan, arguments: str) -> str:
    """One call as a grammar built from the plan would allow it."""
    pieces = plan.functions[0].pieces
    slots = {"arguments": arguments, "id": "abcdefgh9", "index": "0"}
    call = "".join(piece.text or slots[piece.slot or "id"] for piece in pieces)
    return plan.first_open + call + plan.call_close + plan.section_close


ARGUMENTS = {
    "json_object": '{"city": "Paris"}',
    "name_then_json": '{"city": "Paris"}',
    "python": 'city="Paris"',
}


@pytest.mark.parametrize("name", SHAPES)
def test_what_a_plan_allows_is_read_as_a_call(name: str) -> None:
    planned = plan(name)
    if planned.style == "parameters":
        assert planned.parameters is not None
        syntax = planned.parameters
        arguments = syntax.open + "city" + syntax.after_key + "Paris" + syntax.close
    elif planned.style == "keyed":
        arguments = f"city:{planned.quote}Paris{planned.quote}"
    else:
        arguments = ARGUMENTS[planned.style]
        arguments = '"{\\"city\\": \\"Paris\\"}"' if planned.encoded else arguments
    text = spelled(planned, arguments)
    seen = plain(parsed(form(name), text, prompt=""))
    assert seen == {"content": "", "thought": "", "calls": [("get_weather", {"city": "Paris"})]}
    assert all(trigger in text for trigger in planned.triggers[:1])


def test_what_is_left_to_write_behind_a_trigger() -> None:
    for name in ("tags", "list", "parameters", "fenced"):
        planned = plan(name)
        for trigger, rest in zip(planned.triggers, planned.trigger_rests, strict=True):
            assert planned.first_open.endswith(trigger + rest)


def test_parallel_calls_only_where_asked_and_possible() -> None:
    assert plan("tags").parallel
    assert not plan("tags", parallel=False).parallel


def test_markers_name_every_tag_of_the_format() -> None:
    assert set(form("tags").markers()) == {
        "<|im_start|>",
        "<|im_end|>",
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
    }
    assert {"<escape>", "<start_call>", "<end_call>"} <= set(form("keyed").markers())


@pytest.mark.parametrize("name", SHAPES)
def test_a_finished_turn_begins_with_the_prompt_it_answers(name: str) -> None:
    for message in (TURNS["content"], TURNS["calls"], turn("x", thought="y")):
        prompt = form(name).render(USER, TOOLS)
        text = form(name).render([*USER, message], TOOLS, add_generation_prompt=False)
        assert text.startswith(prompt)


def test_importing_the_package_needs_no_server_and_no_engine() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from server.chat import ChatFormat; "
        "print([m for m in ('starlette', 'llama_cpp', 'engine', 'uvicorn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
