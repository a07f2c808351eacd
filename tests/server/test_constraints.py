"""Whatever a grammar lets a model write, the parser of the same format reads as valid calls."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from engine.constraint import ConstraintCompiler, TokenConstraint
from server.chat import ChatFormat
from server.constraints import Constraints, Thought, Wanted, read_response_format
from server.errors import InvalidRequest, UnusableTool

TEMPLATES = sorted((Path(__file__).parents[2].parent / "shared" / "templates").glob("*.jinja"))
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 12},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
        "units": {"enum": ["C", "F"]},
        "exact": {"type": "boolean"},
        "near": {"type": "array", "items": {"type": "string", "maxLength": 5}, "maxItems": 2},
        "more": {
            "type": "object",
            "properties": {"deep": {"type": "boolean"}, "note": {"type": "string", "maxLength": 5}},
            "required": ["deep"],
            "additionalProperties": False,
        },
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}},
    {
        "type": "function",
        "function": {"name": "stop", "parameters": {"type": "object", "properties": {}}},
    },
]
SCHEMAS = {"weather": SCHEMA, "stop": {"type": "object"}}
DOCUMENT = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}


class Bytes:
    """A vocabulary of single bytes; 256 ends an answer."""

    n_vocab = 257
    control = frozenset({256})
    end_of_generation = frozenset({256})

    def token_bytes(self, token: int) -> bytes:
        return bytes([token]) if token < 256 else b"<end>"

    def encode(
        self, text: str, *, add_special: bool = False, parse_special: bool = True
    ) -> list[int]:
        return list(text.encode())


@pytest.fixture(scope="module")
def compiler() -> ConstraintCompiler:
    return ConstraintCompiler(Bytes())


LONGEST = 4000
LIKELY = np.zeros(257)
LIKELY[[ord(c) for c in 'abcxyz019 "{}],:\n<>/']] = 20.0


def closing_marks(wanted: Wanted) -> list[bytes]:
    """What ends the parts that take any text."""
    marks = [wanted.thought.close.strip()] if wanted.thought else []
    if wanted.calls is not None:
        marks.append(wanted.calls.quote)
        if wanted.calls.parameters is not None:
            marks.append(wanted.calls.parameters.close)
    return [mark.encode() for mark in marks if mark]


def spelled(constraint: TokenConstraint, text: bytes) -> TokenConstraint | None:
    """The constraint after `text`, if it allows it."""
    ahead = constraint.fork()
    for byte in text:
        if ahead.finished or not ahead.mask()[byte]:
            return None
        ahead.accept(byte)
    return ahead


def write(compiler: ConstraintCompiler, wanted: Wanted, rng: random.Random) -> str:
    """One random text of the grammar: plain letters and closing marks are likelier."""
    output = Constraints().compile(wanted)
    assert output is not None
    constraint = compiler.compile(output.grammar)
    marks = closing_marks(wanted)
    out = bytearray()
    while not constraint.finished and len(out) <= LONGEST:
        if marks and rng.random() < 0.15:
            mark = rng.choice(marks)
            if (ahead := spelled(constraint, mark)) is not None:
                constraint = ahead
                out += mark
                continue
        allowed = np.flatnonzero(constraint.mask())
        if 256 in allowed and (len(allowed) == 1 or rng.random() < 0.3):
            break
        weights = 0.2 + LIKELY[allowed]
        weights[allowed >= 128] = 0.0 if (allowed < 128).any() else 1.0
        weights[allowed == 256] = 0.0
        weights[allowed < 32] *= 0.05
        token = rng.choices(allowed.tolist(), weights.tolist())[0]
        out.append(token)
        constraint.accept(token)
    return out.decode()


def calls_of(format: ChatFormat, prompt: str, text: str) -> dict[str, Any]:
    """The message, read whole and letter by letter."""
    whole = format.parser(TOOLS, prompt)
    whole.feed(text)
    whole.finish()
    single = format.parser(TOOLS, prompt)
    for letter in text:
        single.feed(letter)
    single.finish()
    assert single.message() == whole.message()
    return whole.message()


def check(message: dict[str, Any]) -> None:
    for call in message["tool_calls"]:
        function = call["function"]
        arguments = json.loads(function["arguments"])
        jsonschema.validate(arguments, SCHEMAS[function["name"]])


@pytest.mark.skipif(not TEMPLATES, reason="no public chat templates beside this checkout")
@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_every_constrained_call_is_read_and_valid(path: Path, compiler: ConstraintCompiler) -> None:
    format = ChatFormat.from_template(path.read_text())
    prompt = format.render([{"role": "user", "content": "Hi"}], TOOLS)
    read = 0
    for parallel in (True, False):
        wanted = Wanted(
            calls=format.call_plan(TOOLS, parallel),
            must_call=True,
            thought=Thought.of(format, prompt),
        )
        for seed in range(12):
            text = write(compiler, wanted, random.Random(seed))
            if len(text) > LONGEST:
                continue
            read += 1
            message = calls_of(format, prompt, text)
            assert message.get("tool_calls"), text
            assert parallel or len(message["tool_calls"]) == 1
            check(message)
    assert read > 12


@pytest.mark.parametrize("source", [None])
def test_a_document_or_a_call(source: str | None, compiler: ConstraintCompiler) -> None:
    format = ChatFormat.from_template(source)
    form = read_response_format(DOCUMENT)
    wanted = Wanted(form=form, calls=format.call_plan(TOOLS))
    kinds = set()
    for seed in range(40):
        text = write(compiler, wanted, random.Random(seed))
        message = calls_of(format, "", text)
        if message.get("tool_calls"):
            check(message)
            kinds.add("call")
        else:
            jsonschema.validate(json.loads(message["content"]), SCHEMA)
            kinds.add("document")
    assert kinds == {"call", "document"}


@pytest.mark.parametrize(
    ("wire", "loc"),
    [
        ({"type": "xml"}, ("body", "response_format", "type")),
        ({"type": "json_schema"}, ("body", "response_format", "json_schema", "schema")),
        ({"type": "json_schema", "schema": 3}, ("body", "response_format", "schema")),
        ({"type": "gbnf"}, ("body", "response_format", "grammar")),
        ({"type": "regex", "pattern": 4}, ("body", "response_format", "pattern")),
    ],
)
def test_bad_formats_name_their_field(wire: dict[str, Any], loc: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_response_format(wire)
    assert refused.value.loc == loc


def test_a_tools_schema_is_refused_under_tools_even_beside_a_document() -> None:
    bad = {"type": "object", "properties": {"a": {"type": "string", "pattern": "(a)\\1"}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": bad}}]
    plan = ChatFormat.from_template(None).call_plan(tools)
    with pytest.raises(UnusableTool, match=r"'f'.*pattern") as refused:
        Constraints().compile(Wanted(form=read_response_format(DOCUMENT), calls=plan))
    assert refused.value.loc == ("body", "tools")
    assert refused.value.tool == "f"


HUES: dict[str, Any] = {
    "type": "object",
    "properties": {
        "a": {"type": "string", "format": "hue"},
        "b": {"type": "array", "items": {"$ref": "#/$defs/tone"}},
    },
    "$defs": {"tone": {"type": "string", "format": "tone"}},
}


@pytest.mark.skipif(not TEMPLATES, reason="no public chat templates beside this checkout")
@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_unknown_formats_are_named_by_their_place_in_every_notation(path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "paint", "parameters": HUES}}]
    plan = ChatFormat.from_template(path.read_text()).call_plan(tools)
    compiled = Constraints().compile(Wanted(calls=plan))
    assert compiled is not None
    assert set(compiled.ignored) == {
        "paint $.properties.a.format: hue",
        "paint $.$defs.tone.format: tone",
    }


@pytest.mark.parametrize(
    ("wire", "says"),
    [
        ({"type": "json_schema", "schema": {"type": "nonsense"}}, "type"),
        ({"type": "gbnf", "grammar": "root ::= missing"}, "line 1"),
        ({"type": "regex", "pattern": "(a"}, "offset"),
    ],
)
def test_what_cannot_be_enforced_is_refused_with_the_reason(
    wire: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidRequest, match=says):
        Constraints().compile(Wanted(form=read_response_format(wire)))
