"""Messages made to a template's liking, with nothing lost."""

import json
from typing import Any

import pytest

from server.chat import ChatFormat, ChatTemplate, TemplateError
from tests.server.chat.shapes import SHAPES
from tests.server.chat.turns import PARIS, ROME, TOOLS, call, tool, turn

Message = dict[str, Any]
PLAIN = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
FIRST_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
    "{{ raise_exception('system must come first') }}{% endif %}"
    "[{{ m.role }}]{{ m.content }}{% endfor %}"
)
CALLS = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% for c in m.tool_calls or [] %}"
    "<{{ c.id }}:{{ c.function.name }}{{ c.function.arguments | tojson }}>{% endfor %}"
    "{% if m.role == 'tool' %}({{ m.tool_call_id }},{{ m.name }}){% endif %}{% endfor %}"
)


def user(text: Any = "hi") -> Message:
    return {"role": "user", "content": text}


def system(text: str, role: str = "system") -> Message:
    return {"role": role, "content": text}


def result(call_id: str, text: str = "42") -> Message:
    return {"role": "tool", "tool_call_id": call_id, "content": text}


def test_a_developer_is_the_system() -> None:
    assert ChatTemplate(PLAIN).render([system("be", "developer"), user()]) == "[system]be[user]hi"


def test_several_system_messages_stay_where_the_template_takes_them() -> None:
    messages = [system("a"), system("b"), user(), system("c"), user("ho")]
    assert ChatTemplate(PLAIN).render(messages) == "[system]a[system]b[user]hi[system]c[user]ho"


def test_several_system_messages_become_one_where_only_the_first_may_be_one() -> None:
    messages = [system("a"), system("b", "developer"), user(), turn("x"), system("c"), user("ho")]
    assert ChatTemplate(FIRST_SYSTEM).render(messages) == (
        "[system]a\n\nb[user]hi[assistant]x[user]c[user]ho"
    )


def test_without_a_system_role_its_words_go_to_the_user() -> None:
    source = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + PLAIN
    assert ChatTemplate(source).render([system("a"), system("b"), user()]) == "[user]a\n\nb\n\nhi"


def test_turns_alternate_where_they_must() -> None:
    template = ChatTemplate(SHAPES["alternating"])
    messages = [system("s"), user("a"), user("b"), turn("c"), turn("d"), user("e")]
    assert template.render(messages) == (
        "[user]s\n\na\n\nb</s>[assistant]c\n\nd</s>[user]e</s>[assistant]"
    )


def test_content_in_parts() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert ChatTemplate(PLAIN).render([user(parts)]) == "[user]one\ntwo"
    shown = ChatTemplate(SHAPES["content-parts"]).render([user(parts), turn("three"), user("four")])
    assert [word in shown for word in ("one\ntwo", "three", "four")] == [True] * 3
    refusal = [{"type": "refusal", "refusal": "no"}]
    assert ChatTemplate(PLAIN).render([{"role": "assistant", "content": refusal}]).endswith("no")


def test_parts_that_cannot_be_shown_are_named() -> None:
    image = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "u"}}]
    with pytest.raises(TemplateError, match=r"messages\[1\]\.content\[1\].*image_url"):
        ChatTemplate(PLAIN).render([user(), user(image)])


def test_the_input_is_not_changed() -> None:
    messages = [system("a"), user([{"type": "text", "text": "b"}]), turn(None, PARIS), result("x")]
    before = json.dumps(messages)
    for source in SHAPES.values():
        ChatFormat.from_template(source).render(messages, TOOLS)
    assert json.dumps(messages) == before


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("{{ c.function.arguments | tojson }}", '{"city": "Paris", "days": 2}'),
        ("{{ c.function.arguments }}", '{"city":  "Paris", "days": 2}'),
        (
            "{% for k, v in c.function.arguments.items() %}{{ k }}={{ v }};{% endfor %}",
            "city=Paris;",
        ),
    ],
)
def test_arguments_are_an_object_or_text_as_the_template_wants(source: str, shown: str) -> None:
    template = (
        "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}"
        "{{ c.function.name }}:" + source + "{% endfor %}{% endfor %}"
    )
    function = {"name": "get_weather", "arguments": '{"city":  "Paris", "days": 2}'}
    for arguments in (function["arguments"], {"city": "Paris", "days": 2}):
        given = {"id": "a", "type": "function", "function": {**function, "arguments": arguments}}
        text = ChatTemplate(template).render([user(), turn(None, given)])
        assert text.replace("  ", " ").startswith("higet_weather:" + shown.replace("  ", " "))


def test_arguments_that_are_no_json_are_kept() -> None:
    broken = {"id": "a", "type": "function", "function": {"name": "now", "arguments": "{oops"}}
    text = ChatFormat.from_template(SHAPES["tags"]).render([user(), turn(None, broken), user()])
    assert "{oops" in text


def test_a_result_gets_the_name_of_its_call() -> None:
    messages = [user(), turn(None, PARIS, ROME), result(ROME["id"]), result(PARIS["id"])]
    assert (
        ChatTemplate(CALLS)
        .render(messages)
        .endswith(f"[tool]42({ROME['id']},get_weather)[tool]42({PARIS['id']},get_weather)")
    )


def test_legacy_function_calls() -> None:
    messages = [
        user(),
        {"role": "assistant", "content": None, "function_call": {"name": "now", "arguments": "{}"}},
        {"role": "function", "name": "now", "content": "noon"},
    ]
    assert ChatTemplate(CALLS).render(messages) == (
        "[user]hi[assistant]<call_0:now{}>[tool]noon(call_0,now)"
    )


def test_ids_of_nine_letters_where_they_are_demanded() -> None:
    source = CALLS.replace(
        "<{{ c.id }}",
        "{% if c.id | length != 9 %}{{ raise_exception('nine') }}{% endif %}<{{ c.id }}",
    )
    template = ChatTemplate(source)
    one = call("now", {}, "call_0123456789")
    text = template.render([user(), turn(None, one), result("call_0123456789")])
    given = text.split("<")[1].split(":")[0]
    assert len(given) == 9
    assert f"({given},now)" in text
    kept = template.render([user(), turn(None, PARIS), result(PARIS["id"])])
    assert PARIS["id"] in kept


def test_ids_that_carry_the_name() -> None:
    form = ChatFormat.from_template(SHAPES["id-is-name"])
    text = form.render([user(), turn(None, PARIS), result(PARIS["id"]), turn(None, ROME), user()])
    assert "functions.get_weather:0<|arg" in text
    assert "functions.get_weather:1<|arg" in text


ONE_CALL = (
    "{% for m in messages %}{% if m.tool_calls %}{% if m.tool_calls | length != 1 %}"
    "{{ raise_exception('one call') }}{% endif %}<a>{{ m.tool_calls[0].function.name }}"
    "{{ m.tool_calls[0].function.arguments | tojson }}</a>"
    "{% else %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endif %}{% endfor %}"
)


def test_several_calls_of_one_turn_become_several_turns_each_with_its_result() -> None:
    messages = [
        user(),
        turn("Looking.", PARIS, ROME),
        result(PARIS["id"], "p"),
        result(ROME["id"], "r"),
        turn("Done."),
    ]
    assert ChatTemplate(ONE_CALL).render(messages) == (
        "<user>hi</user><assistant>Looking.</assistant>"
        '<a>get_weather{"city": "Paris", "days": 2}</a><tool>p</tool>'
        '<a>get_weather{"city": "Rome"}</a><tool>r</tool><assistant>Done.</assistant>'
    )


def test_content_beside_a_call_is_not_lost() -> None:
    source = (
        "{% for m in messages %}{% if m.tool_calls %}[CALLS]{{ m.tool_calls[0].function.name }}"
        "{{ m.tool_calls[0].function.arguments | tojson }}{% else %}"
        "({{ m.role }}){{ m.content }}{% endif %}{% endfor %}"
    )
    form = ChatFormat.from_template(source)
    messages = [user(), turn("Looking.", PARIS), result(PARIS["id"]), turn("Done.")]
    assert "Looking.[CALLS]get_weather{" in form.render(messages)


def test_templates_without_tools_are_told_of_them_and_print_calls_as_text() -> None:
    form = ChatFormat.from_template(PLAIN)
    messages = [system("be"), user(), turn("Well.", PARIS), result(PARIS["id"], "sunny"), user()]
    text = form.render(messages, TOOLS)
    assert form.calls_from == "generic"
    assert text.startswith("[system]be\n\n# Tools")
    assert json.dumps(TOOLS[0]) in text
    assert 'Well.\n<tool_call>\n{"name": "get_weather", "arguments": {"city"' in text
    assert "sunny" in text
    assert form.render([user()], TOOLS).startswith("[system]# Tools")
    assert form.render([user()]) == "[user]hi"


def test_tools_that_say_little_and_templates_that_want_more() -> None:
    small = {"type": "function", "function": {"name": "now"}}
    source = (
        "{% for t in tools %}{{ t.function.name + t.function.description }}{% endfor %}" + PLAIN
    )
    assert ChatFormat.from_template(source).render([user()], [small]) == "now[user]hi"
    picky = (
        "{% for t in tools or [] %}{% for k, v in t.function.parameters.properties.items() %}"
        "{{ t.function.name + k + v.type.upper() }}{% endfor %}{% endfor %}" + PLAIN
    )
    union = tool("f", {"a": {"anyOf": [{"type": "null"}, {"type": "integer"}]}})
    text = ChatFormat.from_template(picky).render([user()], [union])
    assert text == "faINTEGER[user]hi"


def test_tools_under_another_name_or_without_their_wrapper() -> None:
    for name in ("tools", "xml_tools", "functions"):
        source = "{% for t in " + name + " %}<{{ t.name }}>{% endfor %}" + PLAIN
        form = ChatFormat.from_template(source)
        assert form.render([user()], TOOLS) == "<get_weather><store><now>[user]hi"


def test_thoughts_of_earlier_turns_reach_the_template_under_its_own_key() -> None:
    for key in ("reasoning_content", "reasoning", "thinking", "thought"):
        source = PLAIN.replace("{{ m.content }}", "({{ m." + key + " }}){{ m.content }}")
        for given in ("reasoning_content", "thinking"):
            message = {"role": "assistant", "content": "b", given: "a"}
            assert "(a)b" in ChatTemplate(source).render([user(), message, user()])


def test_the_switch_of_thinking_by_any_name() -> None:
    for name in ("enable_thinking", "thinking"):
        source = (
            PLAIN + "{% if add_generation_prompt %}{{ 'ON' if " + name + " else 'OFF' }}{% endif %}"
        )
        form = ChatFormat.from_template(source)
        assert form.render([user()], enable_thinking=True).endswith("ON")
        assert form.render([user()], enable_thinking=False).endswith("OFF")
        assert form.render([user()], reasoning_effort="none").endswith("OFF")
