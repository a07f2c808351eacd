"""Grammars that custom tools bring, raw and inside a JSON string: both printed forms agree."""

from __future__ import annotations

import json

import pytest

import grammars
from tests.grammars.support import DEAD, DONE, OPEN, Judges

PATCH = """
start: begin hunk+ end
begin: "*** Begin" LF
end: "*** End" LF?
hunk: add_hunk
    | "*** Delete: " filename LF -> removal
add_hunk: "*** Add: " filename LF add_line+
filename: /(.+)/
add_line: "+" /(.*)/ LF -> line
%import common.LF
"""
SUMS = """
// Recursive, with blanks between its words.
?start: sum
sum: term (("+" | "-") term)*
term: NUMBER | "(" sum ")" | QUOTED
QUOTED: "\\"" /[^"\\n]*/ "\\""
%import common (NUMBER, WS_INLINE)
%ignore WS_INLINE
"""


def judges(syntax: str, definition: str, end: str | None = None) -> Judges:
    return Judges(grammars.compile_node(grammars.written_text(syntax, definition, end)))


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


@pytest.mark.parametrize(
    ("definition", "text", "verdict"),
    [
        (PATCH, '*** Begin\n*** Add: a.py\n+x = "1"\\n\n+\n*** End', DONE),
        (PATCH, "*** Begin\n*** Delete: é\n*** Delete: b\n*** End\n", DONE),
        (PATCH, "*** Begin\n*** End", DEAD),
        (PATCH, "*** Begin\n*** Add: a.py\nx\n*** End", DEAD),
        (SUMS, "1 + (2-3.5)", DONE),
        (SUMS, '(("a\\b"))-1 ', DONE),
        (SUMS, "(1", DEAD),
        (SUMS, "1 2", DEAD),
        ('start: "a".."c" "x"i~2 ["y"]\n', "bXxy", DONE),
        ('start: "a".."c" "x"i~2 ["y"]\n', "dxx", DEAD),
        ("start: A*\nA.2: /a.b/s\n", "a\nba b", DONE),
        ('start: "(" start ")" | /[a-c]+|é/\n', "((abc))", DONE),
        ('start: "(" start ")" | /[a-c]+|é/\n', "(é", DEAD),
    ],
)
def test_lark(definition: str, text: str, verdict: str) -> None:
    assert judges("lark", definition).judge(quoted(text)) == verdict
    raw = judges("lark", definition, "</end>").judge(text + "</end>")
    assert raw == verdict


def test_an_open_string_may_go_on() -> None:
    assert judges("lark", PATCH).judge('"*** Begin\\n*** Ad') == OPEN
    assert judges("lark", SUMS).judge('"(1 +') == OPEN


def test_regex() -> None:
    json_form = judges("regex", "[a-z]+\n[0-9]{2}")
    assert json_form.judge('"ab\\n12"') == DONE
    assert json_form.judge('"ab\\n1"') == DEAD
    raw = judges("regex", r"[\s\S]*", "</p>")
    assert raw.judge("any </ text</p>") == DONE
    assert raw.judge("one</p>two</p>") == DEAD


@pytest.mark.parametrize(
    ("definition", "reason"),
    [
        ('begin: "a"\n', "line 1, column 1: there is no rule named start"),
        ('start: "a" other\n', "line 1, column 12: other is not defined"),
        ('start: "a\n', "line 1, column 8: a string without end"),
        ('start: ("a"\n', "a group without end"),
        ('start: "a"\nstart: "b"\n', "line 2, column 1: start is defined twice"),
        ("start: A\n%import python.A\n", "line 2, column 1: of the directives"),
        ("start: A\n%import common.QQ\n", "the module common has no QQ"),
        ("start: NUMBER\n", "NUMBER is not imported"),
        ("start: sep{a}\n", "templates are not supported"),
        ("start: /a/i\n", "flags 'i'"),
        ('start: "a"~3..2\n', "repetitions must be in order"),
        ('start: "' + "(" * 5 + '"' + "(" * 80, "nested over"),
        ('start "a"\n', "expected :"),
    ],
)
def test_what_is_refused(definition: str, reason: str) -> None:
    with pytest.raises(grammars.LarkSyntaxError) as refused:
        grammars.written_text("lark", definition)
    assert reason in str(refused.value)


def test_a_pattern_that_is_not_regular_is_refused() -> None:
    with pytest.raises(grammars.UnsupportedPattern):
        grammars.written_text("lark", "start: /(a)\\1/\n")
