"""Users' own grammars."""

# ruff: noqa: E501 - rows of tables

import pytest

import grammars
from tests.grammars.support import DEAD, DONE, OPEN, Judges

JSON = r"""
# the usual grammar
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""


@pytest.mark.parametrize(
    ("text", "verdicts"),
    [
        ('root ::= "a" | "ab" "c"', {"a": DONE, "ab": OPEN, "abc": DONE, "b": DEAD}),
        ('root ::= "ab"? "abc"', {"abc": DONE, "ababc": DONE, "abab": OPEN}),
        ("root ::= x y\nx ::= [a-z]+\ny ::= [a-z0-9]", {"ab": DONE, "a1": DONE, "a": OPEN, "1": DEAD}),
        ('root ::= "(" root ")" | "x"', {"((x))": DONE, "((x)": OPEN, "x)": DEAD}),
        ('root ::= [^a-c] . "é"{2}', {"xyéé": DONE, "ayéé": DEAD, "xyé": OPEN}),
        (r'root ::= "\x41B\U0001F600\n" [\]\\-]', {"AB😀\n]": DONE, "AB😀\n-": DONE, "AB😀\nx": DEAD}),
        ('root ::=\n  "a" |\n  ( "b"\n "c" )\n', {"a": DONE, "bc": DONE}),
        ("root ::= a*\na ::= \"x\" b?\nb ::= \"y\" a", {"": DONE, "xyx": DONE, "y": DEAD}),
        (JSON, {'{"a": [1, "b\\n", {}]}': DONE, '{"a":1': OPEN, "[]": DEAD}),
    ],
)  # fmt: skip
def test_language(text, verdicts):
    judges = Judges(grammars.compile_gbnf(text))
    assert {t: judges.judge(t) for t in verdicts} == verdicts


@pytest.mark.parametrize(
    ("text", "line", "column", "reason"),
    [
        ('root ::= "a', 1, 10, "without end"),
        ("root ::= [a", 1, 10, "without end"),
        ('root ::= "a"\nother ::= x y', 2, 11, "'x' is not defined"),
        ('a ::= "a"', 1, 1, "no rule named root"),
        ('root ::= "a"\nroot ::= "b"', 2, 1, "defined twice"),
        ('root ::= root "a"', 1, 1, "left-recursive"),
        ('root ::= "x"? y\ny ::= root', 1, 1, "left-recursive"),
        ('root ::= ("a"', 1, 14, "expected )"),
        ('root = "a"', 1, 6, "expected ::="),
        ("root ::= *", 1, 10, "nothing to repeat"),
        ('root ::= "a"{3,2}', 1, 18, "out of order"),
        ('root ::= "a"{999999}', 1, 14, "number up to"),
        (r'root ::= "\q"', 1, 12, "unknown escape"),
        ("root ::= [b-a]", 1, 14, "out of order"),
        ("root ::= []", 1, 10, "matches nothing"),
        ("root ::= " + "(" * 100, 1, 71, "nested"),
        ("", 1, 1, "no rule named root"),
    ],
)
def test_errors(text, line, column, reason):
    with pytest.raises(grammars.GBNFSyntaxError, match=reason.replace(")", r"\)")) as caught:
        grammars.compile_gbnf(text)
    assert (caught.value.line, caught.value.column) == (line, column)


def test_what_is_printed_can_be_read_again():
    compiled = grammars.compile({"type": "object", "properties": {"a": {"pattern": "^[^x]+\\n$"}}})
    first, second = Judges(compiled), Judges(grammars.compile_gbnf(compiled.gbnf))
    for text in ('{"a": "y\\n"}', '{"a": "x\\n"}', '{"a": 1, "b": []}', "{"):
        assert first.judge(text) == second.judge(text)
