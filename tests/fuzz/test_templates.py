"""Hostile chat templates: rendered or refused by a typed error, in bounded time and space.

INGLE_FUZZ=5000 runs the long form.
"""

# ruff: noqa: E501 - rows of tables

from __future__ import annotations

import os
import random
import resource
import time

import pytest

from server.chat import ChatTemplate, TemplateError, budget

CASES = int(os.environ.get("INGLE_FUZZ", "150"))
MESSAGES = [{"role": "user", "content": "hi"}]
MAX_SECONDS = 0.5
MAX_CPU = 8  # of one case; probing and rendering each have MAX_SECONDS, and compiling comes first
MAX_GROWTH = 700

ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}"
LONG = "{% set x = 'a' * 9999999 %}"
EACH = "{% for i in range(99999) %}"


def grown(start: str, step: str) -> str:
    return f"{{% set ns = namespace(x={start}) %}}{EACH}{{% set ns.x = {step} %}}{{% endfor %}}{{{{ ns.x }}}}"


BOMBS = {
    "loops": ENDLESS,
    "loops in a filter": "{% filter upper %}" + ENDLESS + "{% endfilter %}",
    "loops in a variable": "{% set x %}" + ENDLESS + "{% endset %}",
    "long loop": "{% for i in range(10**9) %}{% endfor %}",
    "product": "{{ 'x' * 10**10 }}",
    "doubled": grown("'ab'", "ns.x ~ ns.x"),
    "doubled by plus": grown("'ab'", "ns.x + ns.x"),
    "doubled list": grown("[1]", "ns.x + ns.x"),
    "nested list": grown("[]", "[ns.x, ns.x]"),
    "nested tuple": grown("()", "(ns.x,)"),
    "nested object": grown("{}", "{'a': ns.x, 'b': ns.x}"),
    "macro": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "branching macro": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "caller": "{% macro f() %}{% call f() %}{{ caller() }}{% endcall %}{% endmacro %}{{ f() }}",
    "recursive loop": "{% for m in [[1]] recursive %}{{ loop([m]) }}{% endfor %}",
    "wide field": "{{ '%999999999d'|format(1) }}",
    "wide field of str.format": "{{ '{:>999999999}'.format(1) }}",
    "width from an argument": "{{ '{:{}}'.format(1, 999999999) }}",
    "many fields": "{{ ('%9999s' * 999) % ((1,) * 999) }}",
    "indent": "{{ ('\\n' * 999999)|indent(99999) }}",
    "indent by text": "{{ 'a\\nb'|indent('x' * 9999999) }}",
    "ljust": "{{ 'x'.ljust(10**9) }}",
    "replace": "{{ ('x' * 99999).replace('x', 'y' * 99999) }}",
    "replace nothing": "{{ ('x' * 999999).replace('', 'y' * 9999) }}",
    "join": "{{ range(99999)|join('x' * 99999) }}",
    "power": "{{ 9**9**9 }}",
    "digits": "{{ ('9' * 9999999)|int }}",
    "group": "{{ range(99999)|groupby('x')|list }}",
    "sum of lists": "{{ ([[0] * 9999] * 9999)|sum(start=[])|length }}",
    "slices kept": LONG + "{% set l = [] %}" + EACH + "{{ l.append(x[i:]) or '' }}{% endfor %}",
    "slices in variables": LONG + "".join(f"{{% set x{i} = x[{i}:] %}}" for i in range(999)),
    "reversed copies": LONG + "".join(f"{{% set x{i} = x|reverse %}}" for i in range(999)),
    "words": LONG + EACH + "{% set y = x|wordcount %}{% endfor %}",
    "parts": "{% set x = 'a ' * 4999999 %}" + "".join(f"{{% set x{i} = x.split() %}}" for i in range(99)),
    "lines": "{{ ('a\\n' * 4999999).splitlines()|length }}",
    "many outputs": "{{ 1 }}" * 140_000,
    "deep": "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}",
    "deep blocks": "{% if 1 %}" * 3_000 + "{% endif %}" * 3_000,
    "signs": "{{ " + "-" * 50_000 + "1 }}",
    "filters": "{{ 1" + "|int" * 20_000 + " }}",
    "attributes": "{{ messages" + ".a" * 20_000 + " }}",
    "sums": "{{ 1" + "+1" * 20_000 + " }}",
    "digits of source": "{{ " + "9" * 9_999 + " }}",
    "text of an error": "{{ raise_exception('x' * 9999999) }}",
}  # fmt: skip

SECRETS = {
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ raise_exception.__globals__ }}",
    "attr": "{{ messages|attr('__class__') }}",
    "map": "{{ messages|map(attribute='__class__')|list }}",
    "format": "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "itself": "{{ self.__init__.__globals__ }}",
    "environment": "{{ self._TemplateReference__context.environment }}",
    "namespace": "{{ namespace.__init__.__globals__ }}",
    "cycler": "{{ cycler.__init__.__globals__.os }}",
    "import": "{% import 'os' as x %}{{ x }}",
    "include": "{% include '/etc/passwd' %}",
    "budget": "{{ self._TemplateReference__context.budget }}{{ budget }}{{ context }}{{ environment }}",
}  # fmt: skip


def outcome(source: str, seconds: float = MAX_CPU) -> tuple[str, str]:
    """The kind of the error and its text, or "rendered" and the prompt; the bounds are checked."""
    began, size = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        result = ("rendered", ChatTemplate(source).render(MESSAGES))
    except TemplateError as error:
        result = (error.kind, str(error))
    assert time.process_time() - began < seconds
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - size) >> 10 < MAX_GROWTH
    return result


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MAX_SECONDS", MAX_SECONDS)


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_templates_made_to_explode(name: str) -> None:
    kind, text = outcome(BOMBS[name])
    assert kind in ("rendered", "limit", "render", "raised", "syntax")
    assert len(text) <= budget.MAX_TEXT


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_nothing_inside_shows(name: str) -> None:
    kind, text = outcome(SECRETS[name])
    secrets = ("<class", "builtins", "Environment", "Budget", "root:", "__name__")
    assert kind != "rendered" or not any(secret in text for secret in secrets), text


_PIECES = ["{{", "}}", "{%", "%}", "{#", "#}", " messages ", "[0]", ".content", "|upper", "|tojson", "|join('x')", "(", ")",
           " for m in messages ", " endfor ", " if m ", " endif ", " set x = ", "'a'", "*", "~", "+", "9", "-", " is ", "defined",
           " macro f() ", " endmacro ", "f()", "[1:]", ".split()", "|list", "|sort", "{", "}", ",", ":", "'", "\\", "é", "\n", "namespace(a=1)",
           ".x", " in ", " not ", "range(9)", " break ", "|groupby('role')", "loop.index", "none", "|first"]  # fmt: skip
_TEMPLATE = (
    "{% for m in messages %}{{ '<' + m.role + '>' + m.content|trim }}{% if not loop.last %}\n{% endif %}"
    "{% endfor %}{% set ns = namespace(n=0) %}{% macro f(x) %}{{ x ~ 1 }}{% endmacro %}{{ f(ns.n) }}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)  # fmt: skip


def template(rng: random.Random) -> str:
    """A template with pieces of others put into it, or pieces alone."""
    if rng.random() < 0.3:
        return "{{" + "".join(rng.choices(_PIECES, k=rng.randrange(1, 12))) + "}}"
    text = _TEMPLATE
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(text))
        text = text[:at] + rng.choice(_PIECES) + text[at + rng.randrange(4) :]
    return text


def test_random_templates_are_rendered_or_refused() -> None:
    seen: dict[str, int] = {}
    for number in range(CASES):
        source = template(random.Random(f"template/{number}"))
        try:
            kind, _ = outcome(source)
        except BaseException as error:
            error.add_note(f"case {number}: {source!r}")
            raise
        seen[kind] = seen.get(kind, 0) + 1
    assert seen.get("rendered", 0) > CASES // 50 and seen.get("syntax", 0) > CASES // 50, seen
