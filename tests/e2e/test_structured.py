"""Structured output on the real model: whatever ends by itself is valid."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest
from openai import BadRequestError, OpenAI

from tests.e2e.chat import MODEL, messages
from tests.e2e.server_process import ServerProcess
from tests.stress_model import gemma

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
SHORT = {"type": "string", "maxLength": 12}
SCHEMAS: dict[str, Any] = {
    "person": PERSON,
    "people": {"type": "array", "items": PERSON, "minItems": 1, "maxItems": 2},
    "enum": {"enum": ["red", "green", {"other": [1, 2]}, None]},
    "const": {"const": {"answer": 42}},
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer", "minimum": -20, "exclusiveMaximum": 300},
    "multiple": {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 700},
    # Digits of a number by itself go on, when they are hot, to max_tokens: no token ends them.
    "number": {
        "type": "object",
        "properties": {"share": {"type": "number", "minimum": 0, "maximum": 1}},
        "required": ["share"],
        "additionalProperties": False,
    },
    "pattern": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{2,4}$"},
    "unanchored": {"type": "string", "pattern": "cat|dog", "maxLength": 15},
    "date": {"type": "string", "format": "date"},
    "uuid": {"type": "string", "format": "uuid"},
    "ipv4": {"type": "string", "format": "ipv4"},
    "optional": {
        "type": "object",
        "properties": {"a": SHORT, "b": {"type": "integer"}, "c": {"type": "null"}},
        "additionalProperties": False,
    },
    "any of": {"anyOf": [PERSON, {"type": "array", "items": {"type": "boolean"}, "maxItems": 3}]},
    "all of": {"allOf": [PERSON, {"properties": {"age": {"minimum": 18}}}]},
    "if": {
        "type": "object",
        "properties": {"kind": {"enum": ["x", "y"]}, "size": {"type": "integer"}},
        "required": ["kind"],
        "additionalProperties": False,
        "if": {"properties": {"kind": {"const": "x"}}},
        "then": {"required": ["size"]},
    },
    "recursive": {
        "$defs": {
            "tree": {
                "type": "object",
                "properties": {
                    "value": {"type": "integer", "minimum": 0, "maximum": 9},
                    "next": {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "null"}]},
                },
                "required": ["value", "next"],
                "additionalProperties": False,
            }
        },
        "$ref": "#/$defs/tree",
    },
    "tuple": {
        "type": "array",
        "prefixItems": [SHORT, {"type": "integer"}, {"type": "boolean"}],
        "items": False,
        "minItems": 2,
    },
    "escapes": {"enum": ['"\\/\b\n', "é日🎉", ""]},
}


def form(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


@pytest.fixture(scope="module")
def stress() -> Iterator[ServerProcess]:
    with ServerProcess(["--model", str(gemma()), "--parallel", "8", "--context", "512"]) as process:
        yield process


@pytest.fixture(params=["server", "stress"] if "INGLE_LONG" in os.environ else ["server"])
def hot(request: pytest.FixtureRequest) -> Iterator[OpenAI]:
    """Of the embedded model, and in the long form of Gemma 3."""
    process: ServerProcess = request.getfixturevalue(request.param)
    with OpenAI(base_url=process.base_url, api_key="none", max_retries=0) as openai:
        yield openai


@pytest.mark.parametrize("name", SCHEMAS)
def test_ten_hot_answers_are_valid(hot: OpenAI, name: str) -> None:
    """200 generations at temperature 1.5 over 20 schemas; `length` may cut one short."""
    completion = hot.chat.completions.create(
        model=MODEL,
        messages=messages("Answer in JSON."),
        response_format=form(SCHEMAS[name]),  # type: ignore[arg-type]
        temperature=1.5,
        seed=7,
        n=10,
        max_tokens=180,
    )
    ended = [c.message.content or "" for c in completion.choices if c.finish_reason == "stop"]
    assert ended
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    for text in ended:
        jsonschema.validate(
            json.loads(text), SCHEMAS[name], jsonschema.Draft202012Validator, format_checker=checker
        )


def answer(client: OpenAI, **fields: Any) -> str:
    completion = client.chat.completions.create(
        model=MODEL, messages=messages("Name a fruit."), **({"max_tokens": 60} | fields)
    )
    return completion.choices[0].message.content or ""


def test_json_object(client: OpenAI) -> None:
    text = answer(client, response_format={"type": "json_object"}, temperature=0, max_tokens=200)
    assert text.startswith("{")


def test_regex_and_gbnf(client: OpenAI) -> None:
    by_pattern = answer(
        client, response_format={"type": "regex", "pattern": "(apple|pear)-[0-9]{3}"}
    )
    assert re.fullmatch("(apple|pear)-[0-9]{3}", by_pattern)
    grammar = 'root ::= item ("," item)*\nitem ::= "kiwi" | "fig"\n'
    by_grammar = answer(client, response_format={"type": "gbnf", "grammar": grammar}, max_tokens=9)
    assert re.fullmatch("(kiwi|fig|,)*[a-z]*", by_grammar)


def test_streamed_is_the_same_text(client: OpenAI) -> None:
    fields: dict[str, Any] = {"response_format": form(PERSON), "temperature": 1.2, "seed": 3}
    whole = answer(client, **fields)
    stream = client.chat.completions.create(
        model=MODEL, messages=messages("Name a fruit."), max_tokens=60, stream=True, **fields
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert "".join(pieces) == whole
    assert json.loads(whole)


def test_logprobs_cover_forced_tokens(client: OpenAI) -> None:
    completion = client.chat.completions.create(
        model=MODEL,
        messages=messages("Name a fruit."),
        response_format=form(PERSON),  # type: ignore[arg-type]
        logprobs=True,
        top_logprobs=2,
        max_tokens=60,
        seed=3,
    )
    choice = completion.choices[0]
    assert choice.logprobs is not None and choice.logprobs.content is not None
    assert "".join(each.token for each in choice.logprobs.content) == choice.message.content


def test_penalties_and_stops_go_with_a_schema(client: OpenAI) -> None:
    text = answer(
        client,
        response_format=form(PERSON),
        presence_penalty=2,
        frequency_penalty=2,
        temperature=1.3,
        seed=5,
        logit_bias={"17": 3},
    )
    jsonschema.validate(json.loads(text), PERSON)
    assert answer(client, response_format=form(PERSON), stop=['"age"'], seed=5).endswith(", ")


@pytest.mark.parametrize(
    ("schema", "path", "keyword"),
    [
        ({"type": "objekt"}, "$", "type"),
        (
            {"type": "object", "properties": {"a": {"type": "string", "pattern": "(a)\\1"}}},
            "$.properties.a",
            "pattern",
        ),
        ({"$ref": "#/$defs/missing"}, "$", "$ref"),
    ],
)
def test_what_cannot_be_enforced_is_a_400(
    client: OpenAI, schema: Any, path: str, keyword: str
) -> None:
    with pytest.raises(BadRequestError) as refused:
        answer(client, response_format=form(schema))
    error: Any = refused.value.body
    assert error["param"] == "response_format.json_schema.schema"
    assert error["code"] == "unsupported_schema"
    assert path in error["message"]
    assert keyword in error["message"]


def test_unknown_formats_are_annotations_and_listed(http: httpx.Client) -> None:
    schema = {"type": "string", "format": "colour", "maxLength": 5}
    body = {"messages": messages("Hi"), "response_format": form(schema), "max_tokens": 5}
    response = http.post("/v1/chat/completions", json=body)
    assert response.status_code == 200
    assert "colour" in response.headers["x-ignored-params"]


def test_unknown_formats_of_tools_are_listed_too(http: httpx.Client) -> None:
    hue = {"type": "string", "format": "hue", "maxLength": 5}
    parameters = {"type": "object", "properties": {"a": hue}, "required": ["a"]}
    tool = {"type": "function", "function": {"name": "paint", "parameters": parameters}}
    body = {"messages": messages("Hi"), "tools": [tool], "max_tokens": 1}
    response = http.post("/v1/chat/completions", json=body)
    assert response.headers["x-ignored-params"] == "paint $.properties.a.format: hue"


def test_grammar_shows_the_gbnf_of_a_schema(http: httpx.Client) -> None:
    response = http.post("/v1/grammar", json={"schema": PERSON})
    assert response.status_code == 200
    assert response.json()["grammar"].startswith("root ::=")
    refused = http.post("/v1/grammar", json={"schema": {"type": 5}})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "schema"
