"""Rendering: Hugging Face's settings, no way out of the sandbox, a bound on time and output."""

import json
import threading
import time

import pytest

from server.chat import ChatFormat, ChatTemplate, TemplateError

USER = [{"role": "user", "content": "hi"}]


def render(source: str, **kwargs: object) -> str:
    return ChatTemplate(source).render(USER, **kwargs)


def test_blocks_are_trimmed_as_hugging_face_does() -> None:
    source = "a\n  {% for m in messages %}\n{{ m.content }}\n    {% endfor %}\nb"
    assert render(source) == "a\nhi\nb"


def test_loop_controls_and_generation_tags() -> None:
    source = (
        "{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}"
        "{% generation %}x{{ messages[0].content }}{% endgeneration %}"
    )
    assert render(source) == "012xhi"


def test_tojson_neither_escapes_html_nor_unicode() -> None:
    assert render("{{ '<é>&' | tojson }}") == '"<é>&"'
    assert render("{{ {'b': 1, 'a': [1]} | tojson(sort_keys=True, separators=(',', ':')) }}") == (
        '{"a":[1],"b":1}'
    )
    assert render("{{ {'a': 'é'} | tojson(indent=2, ensure_ascii=True) }}") == json.dumps(
        {"a": "é"}, indent=2
    )


def test_variables_reach_the_template() -> None:
    source = "{{ bos_token }}{{ mood }}{{ tools is none }}{{ eos_token }}"
    template = ChatTemplate(source, bos_token="<s>", eos_token="</s>")
    assert template.render(USER, mood="calm") == "<s>calmTrue</s>"


def test_strftime_now_prints_this_year() -> None:
    assert render("{{ strftime_now('%Y') }}") == time.strftime("%Y")


@pytest.mark.parametrize("source", [None, ""])
def test_a_model_without_a_template_gets_chatml(source: str | None) -> None:
    assert ChatTemplate(source).render(USER) == (
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("source", ["{% for %}", "{{ 1 | nosuch }}", "{% if %}", "(" * 9 + "{{"])
def test_a_template_that_does_not_compile_is_a_syntax_error(source: str) -> None:
    with pytest.raises(TemplateError) as caught:
        ChatTemplate(source)
    assert caught.value.kind == "syntax"


def test_raise_exception_carries_its_text() -> None:
    with pytest.raises(TemplateError, match="only cats") as caught:
        render("{{ raise_exception('only cats') }}")
    assert caught.value.kind == "raised"


def test_a_failing_template_is_a_render_error() -> None:
    with pytest.raises(TemplateError) as caught:
        render("{{ messages[0].content + 1 }}")
    assert caught.value.kind == "render"


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__.__base__.__subclasses__() }}",
    "{{ raise_exception.__globals__ }}",
    "{{ (raise_exception | attr('__globals__')).keys() }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ namespace.__init__.__globals__['os'] }}",
    "{{ self._TemplateReference__context.environment }}",
    "{{ self.__init__.__globals__ }}",
    "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "{{ '{x.__class__}'.format_map({'x': messages}) }}",
    "{{ ('{0.__class__}' | attr('format'))(messages) }}",
    "{{ ['{0.__class__.__init__}'] | map('format', messages) | list }}",
    "{{ [messages] | map(attribute='__class__') | list }}",
    "{{ messages | map('attr', '__class__') | list }}",
    "{% set f = ''.format %}{{ f.__self__.__class__ }}",
    "{{ dict.fromkeys.__self__.__class__ }}",
    "{{ messages.append.__self__.__class__.__base__ }}",
    "{{ (messages | groupby('role'))[0].__class__.__init__ }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os }}",
    "{{ lipsum.__globals__ }}",
    "{{ get_flashed_messages.__globals__ }}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_no_way_out_of_the_sandbox(source: str) -> None:
    try:
        text = render(source)
    except TemplateError:
        return
    assert not any(word in text for word in ("class '", "globals", "module", "root:", "<function"))


def test_the_caller_s_data_cannot_be_changed() -> None:
    messages = [{"role": "user", "content": "hi"}]
    tools = [{"type": "function", "function": {"name": "f"}}]
    source = "{% set _ = tools.pop() %}{% set _ = messages.append('x') %}{{ messages | length }}"
    assert ChatTemplate(source).render(messages, tools) == "2"
    assert (len(messages), len(tools)) == (1, 1)
    for change in ("messages[0].update({'a': 1})", "messages.clear()", "messages.append([1])"):
        with pytest.raises(TemplateError):
            render("{{ " + change + " }}")


BOMBS = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) %}aaaaaaaaaaaa{% endfor %}{% endfor %}",
    "{% macro f() %}{% for a in range(99999) %}"
    + "x" * 9999
    + "{% endfor %}{% endmacro %}{{ f() }}",
    "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{{ 'a' * 10000000000 }}",
    "{{ 10000000000 * 'a' }}",
    "{{ [1] * 10000000000 }}",
    "{{ 9 ** 99999999 }}",
    "{{ range(10000000000) | list }}",
    "{{ 'a' | center(10000000000) }}",
    "{{ 'a'.ljust(10000000000) }}",
    "{{ 'a'.zfill(10000000000) }}",
    "{{ '\\t'.expandtabs(10000000000) }}",
    "{{ '%10000000000d' % 1 }}",
    "{{ '%*d' % (10000000000, 1) }}",
    "{{ '%10000000000d' | format(1) }}",
    "{{ '{:10000000000}'.format(1) }}",
    "{{ '{:{}}'.format(1, 10000000000) }}",
    "{{ 'a' | indent(10000000000, first=True) }}",
    "{{ [1] | tojson(indent=10000000000) }}",
    "{{ [1] | batch(10000000000, 0) | list }}",
    "{{ [1] | slice(10000000000) | list }}",
    "{{ strftime_now('%1000000000d') }}",
    "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}"
    "{% endfor %}",
    "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}"
    "{% endfor %}",
    "{% set ns = namespace(x='a' * 999) %}{% for i in range(60) %}"
    "{% set ns.x = ns.x.replace('a', ns.x) %}{% endfor %}",
    "{% set ns = namespace(x='a' * 999) %}{% for i in range(60) %}"
    "{% set ns.x = ns.x | replace('a', ns.x) %}{% endfor %}",
    "{% set ns = namespace(x='a' * 999) %}{% for i in range(60) %}"
    "{% set ns.x = ns.x.join(ns.x | list) %}{% endfor %}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}"
    "{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}"
    "{% endfor %}",
    "{% set ns = namespace(x={}) %}{% for i in range(60) %}"
    "{% set ns.x = dict(a=ns.x, b=ns.x) %}{% endfor %}{{ ns.x | tojson }}",
    "{% set x = 'a' * 9999999 %}{{ ([x] * 99999) | map('upper') | list | length }}",
    "{% set x = 'a' * 9999999 %}{{ ([x] * 99999) | join }}",
    "{% set x = 'a' * 9999999 %}{% for i in range(99999) %}{% set y = x | upper %}{% endfor %}",
]


@pytest.mark.parametrize("source", BOMBS, ids=range(len(BOMBS)))
def test_what_has_no_end_is_ended(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.chat.budget.MAX_STEPS", 100_000)
    with pytest.raises(TemplateError) as caught:
        ChatTemplate("{% if go is defined %}" + source + "{% endif %}").render(USER, go=True)
    assert caught.value.kind in ("limit", "render")


def test_the_clock_ends_a_template_in_any_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.chat.budget.MAX_SECONDS", -1.0)
    template = object.__new__(ChatTemplate)
    caught: list[TemplateError] = []

    def run() -> None:
        try:
            ChatTemplate.__init__(template, "{% for i in range(99999) %}{% endfor %}")
            template.render(USER)
        except TemplateError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert caught[0].kind == "limit"


def test_deeply_nested_source_is_refused() -> None:
    with pytest.raises(TemplateError):
        ChatTemplate("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}").render(USER)


def test_a_slow_template_cannot_hold_up_a_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.chat.budget.MAX_STEPS", 10_000)
    endless = "{% for a in range(99999) %}{% endfor %}"
    for condition in ("true", "tools", "messages | length > 1"):
        source = "{% if " + condition + " %}" + endless + "{% endif %}{{ messages[0].content }}"
        with pytest.raises(TemplateError) as caught:
            ChatFormat.from_template(source)
        assert caught.value.kind == "limit"


@pytest.mark.parametrize(
    ("fits", "too_much"),
    [
        ("{% set x = 'a' * 16777216 %}", "{% set x = 'a' * 16777217 %}"),
        ("{% set x = 'a' * 16777215 + 'b' %}", "{% set x = 'a' * 16777216 + 'b' %}"),
        ("{% set x = [0] * 100000 %}", "{% set x = [0] * 100001 %}"),
        ("{% set x = 2 ** 2048 %}", "{% set x = 2 ** 2049 %}"),
        ("{{ '%9999s' % 1 }}", "{{ '%10000s' % 1 }}"),
    ],
)
def test_sizes_at_their_edge(fits: str, too_much: str) -> None:
    assert render("{% if go is defined %}" + fits + "{% endif %}", go=True) is not None
    with pytest.raises(TemplateError) as caught:
        render("{% if go is defined %}" + too_much + "{% endif %}", go=True)
    assert caught.value.kind == "limit"


def test_the_length_of_a_template_at_its_edge() -> None:
    assert render("x" * (1 << 17)) == "x" * (1 << 17)
    with pytest.raises(TemplateError) as caught:
        ChatTemplate("x" * ((1 << 17) + 1))
    assert caught.value.kind == "limit"


@pytest.mark.parametrize(
    ("bound", "source"),
    [
        ("MAX_STEPS", "{% for i in range(times) %}{% endfor %}"),
        ("MAX_CHARS", "{% for i in range(times) %}{% set x = 'a' * 100 %}{% endfor %}"),
    ],
)
def test_sums_at_their_edge(monkeypatch: pytest.MonkeyPatch, bound: str, source: str) -> None:
    monkeypatch.setattr(f"server.chat.budget.{bound}", 1_000)
    template = ChatTemplate("{% if times is defined %}" + source + "{% endif %}")
    ends = None
    for times in range(1_100):
        try:
            template.render(USER, times=times)
        except TemplateError as error:
            assert error.kind == "limit"
            ends = times
            break
    assert ends is not None
    each = 100 if bound == "MAX_CHARS" else 1
    assert 900 < ends * each <= 1_100
