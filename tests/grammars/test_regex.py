"""ECMA-262 patterns as automata, held against Python's engine, and what is refused."""

# ruff: noqa: E501 - rows of tables

import random
import re

import pytest

import grammars
from grammars import regular, strings, unroll
from grammars.charset import unicode_property
from grammars.gbnf import print_gbnf
from grammars.patterns import pattern
from grammars.strings import StringConstraint
from tests.grammars.support import DONE, GbnfMatcher, Judges

SAME_IN_PYTHON = [
    "a+", "^a+$", "a|^b$", "^(a|b)*?c{1,2}$", "(^|x)a($|y)", "^$|^abc$", "[^a-c]", "^[a-cx]{2,3}$",
    r"\bab\b", r"\Bb", "^(?!.*ab)[abc]+$", "^(?=.*a)(?=.*b).{2,4}$", "(?<=a)b", "(?<!a)b$",
    "(?:a(?!b))+", "^((?!ab).)*$", "^(?!(a|ab|abc)$)[abc]*$", "(a|b(?=c))*c$", "^(a?b?)*c$",
    "(?<!^a)b", "^(?!.*(a(?!b))).*$", r"a\.b", r"^[\]x]", "x{0}a", "^(?:a{2}){1,2}$",
    "^(?!^a|bb)[abc]*$", r"^\b(?=^.b)", "(^(?!(^a)b)a)|c",
]  # fmt: skip


@pytest.mark.parametrize("source", SAME_IN_PYTHON)
def test_the_automaton_agrees_with_another_engine(source):
    rng = random.Random(source)
    found, python = pattern(source), re.compile(source.replace("$", r"\Z"))
    printed = GbnfMatcher(
        print_gbnf(strings.body(StringConstraint(matches=frozenset(["p:" + source]))))
    )
    for _ in range(400):
        text = "".join(rng.choice("abcxy .]") for _ in range(rng.randrange(7)))
        wanted = python.search(text) is not None
        assert found.automaton.matches(text) == wanted, text
        assert found.matches(text) == wanted, text
        assert (printed.judge(text) == DONE) == wanted, text


@pytest.mark.parametrize(
    ("source", "yes", "no"),
    [
        (r"^\d$", "7", "٧"),
        (r"^\w$", "_", "é"),
        (r"^\s$", "\u00a0", "\u200b"),
        (r"^\S$", "é", "\ufeff"),
        (r"^\p{L}$", "é", "1"),
        (r"^\p{Letter}+$", "π", "-"),
        (r"^\P{Lu}$", "a", "A"),
        (r"^\p{gc=Nd}$", "٧", "x"),
        (r"^.$", "😀", "\u2028"),
        (r"^\u{1F600}$", "😀", "x"),
        (r"^\ud83d\ude00$", "😀", "x"),
        (r"^\cJ$", "\n", "J"),
        (r"^[\b]$", "\b", "b"),
        (r"^[^]$", "\n", ""),
        (r"^a$", "a", "a\n"),
        (r"^[\w-]$", "-", "+"),
        (r"^\x41\0$", "A\0", "A"),
        (r"^{a}$", "{a}", "a"),
        (r"^(?<name>a)$", "a", "b"),
    ],
)
def test_ecma_262(source, yes, no):
    assert pattern(source).matches(yes)
    assert not pattern(source).matches(no)


@pytest.mark.parametrize(
    ("source", "position"),
    [("(a", 2), ("a)", 1), ("*a", 0), ("a**", 2), ("[a", 2), ("[b-a]", 2), (r"\1", 0), (r"\k<a>", 0),
     ("a{2,1}", 6), (r"\p{Nope}", 2), ("(?i)a", 0), ("a\\", 2), (r"\q", 0), ("^*", 0), ("(?<1>a)", 3)],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(source, position):
    with pytest.raises(grammars.UnsupportedPattern) as caught:
        grammars.compile_regex(source)
    assert caught.value.position == position


def test_a_property_of_the_unicode_database():
    assert unicode_property("Lu") and unicode_property("L") != unicode_property("Lu")
    assert unicode_property("Script=Greek") is None


def test_boolean_operations_on_automata():
    a, b = pattern("^a*$").automaton, pattern("^(aa)*$").automaton
    odd = regular.difference(a, b)
    assert [odd.matches("a" * n) for n in range(5)] == [False, True, False, True, False]
    assert regular.intersect([odd, b]).is_empty()
    everything = regular.union([odd, regular.complement(odd)])
    assert everything.matches("") and everything.matches("xyz")
    assert regular.finite_texts(regular.bound_length(odd, 0, 4), 9) == ["a", "aaa"]


@pytest.mark.parametrize("source", ["^(abc|d)*$", "^(a(b(c|d)*e)*)*$", r"^([ab]{3})*$", "(ab)+c"])
def test_both_ways_to_unroll_say_the_same(source):
    a = pattern(source).automaton
    rng = random.Random(1)
    ways = [GbnfMatcher(print_gbnf(f(a, False))) for f in (unroll.right_linear, unroll.regular)]
    for _ in range(300):
        text = "".join(rng.choice("abcde") for _ in range(rng.randrange(9)))
        assert {w.judge(text) == DONE for w in ways} == {a.matches(text)}, text


def test_a_pattern_for_the_whole_output():
    judges = Judges(grammars.compile_regex("a|b{2,3}"))
    assert [judges.judge(t) for t in ("a", "bb", "b", "ab", "")] == [
        "accepted", "accepted", "incomplete", "rejected", "incomplete"]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "accepted", "rejected"),
    [("^", [""], ["a"]), ("$", [""], ["a"]), ("^^a$$", ["a"], ["", "aa"]), ("^a|b$", ["a", "b"], ["ab"])],
)  # fmt: skip
def test_anchors_say_nothing_new_of_a_whole_text(source, accepted, rejected):
    judges = Judges(grammars.compile_regex(source))
    assert all(judges.judge(text) == DONE for text in accepted)
    assert not any(judges.judge(text) == DONE for text in rejected)
