"""Text and JSON in one grammar, the cache, and what importing costs."""

# ruff: noqa: E501 - rows of tables

import subprocess
import sys

import pytest

import grammars
from tests.grammars.support import DEAD, DONE, OPEN, Judges

INT = {"type": "integer"}


def judges(node):
    return Judges(grammars.compile_node(node))


def test_a_call_after_free_text():
    call = grammars.sequence(grammars.json_schema(INT), grammars.literal("</call>"))
    node = grammars.choice(
        grammars.text_without("<call>"), grammars.sequence(grammars.text_until("<call>"), call)
    )
    j = judges(node)
    assert j.judge("just <text> < call>") == DONE
    assert j.judge("so: <call>12</call>") == DONE
    assert j.judge("<call>") == OPEN
    assert j.judge("<<call>x") == DEAD
    assert j.judge("<call>1</call> more") == DEAD


def test_calls_one_after_the_other():
    call = grammars.sequence(
        grammars.literal("<call>"), grammars.json_schema(INT), grammars.literal("</call>")
    )
    j = judges(grammars.repeat(call, 1, 2))
    assert j.judge("<call>1</call>") == DONE
    assert j.judge("<call>1</call><call>-2</call>") == DONE
    assert j.judge("<call>1</call>" * 3) == DEAD


def test_markers_that_begin_alike():
    j = judges(grammars.sequence(grammars.text_until("<a>", "<ab>"), grammars.literal("!")))
    assert j.judge("x<a<ab>!") == DONE
    assert j.judge("x<a>!") == DONE
    assert j.judge("x<a>y") == DEAD


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "string"}, 'any "text"\n<b>', "with </p> in it</p>"),
        ({"enum": ["red", "green"]}, "red", "blue"),
        ({"type": "string", "pattern": "^[a-z<]*$"}, "ab<", "A"),
        ({"type": "string", "maxLength": 3}, "a\nb", "abcd"),
    ],
)
def test_raw_strings(schema, good, bad):
    assert grammars.takes_only_strings(schema)
    j = judges(grammars.raw_string(schema, "</p>"))
    assert j.judge(good + "</p>") == DONE
    assert j.judge(bad + "</p>") == DEAD


@pytest.mark.parametrize("schema", [INT, {"type": ["string", "null"]}, True])
def test_only_strings_are_written_raw(schema):
    assert not grammars.takes_only_strings(schema)
    with pytest.raises(grammars.UnsupportedSchema):
        grammars.raw_string(schema, "</p>")


def test_any_object():
    j = Judges(grammars.compile_json_object())
    assert j.judge('{"a": [{"b": null}]}') == DONE
    assert j.judge("[]") == DEAD


def test_the_cache_knows_content_and_forgets_the_oldest():
    cache = grammars.GrammarCache(size=2)
    first = cache.schema({"type": "integer"})
    assert cache.schema({"type": "integer"}) is first
    assert cache.schema({"properties": {"a": {}, "b": {}}}) is not cache.schema(
        {"properties": {"b": {}, "a": {}}}
    )
    assert cache.schema({"type": "integer"}) is not first
    assert (cache.hits, cache.misses) == (1, 4)
    assert cache.regex("a").gbnf != cache.gbnf('root ::= "b"').gbnf


def test_importing_is_light():
    code = "import sys, grammars; print(sorted({'jsonschema', 'llguidance', 'engine', 'numpy'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
