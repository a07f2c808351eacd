"""Requests that are valid, and ways to make them anything but."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi."}]
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", 1]}},
    "required": ["a"],
}
FUNCTION = {"name": "look", "description": "Looks.", "parameters": SCHEMA}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}}
CHAT = {
    "model": "embedded",
    "messages": [
        *MESSAGES,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "3"},
        {"role": "user", "content": [{"type": "text", "text": "And?"}], "name": "me"},
    ],
    "max_tokens": 2,
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 5,
    "min_p": 0.1,
    "seed": 1,
    "n": 1,
    "stop": ["a", "b"],
    "logprobs": True,
    "top_logprobs": 2,
    "logit_bias": {"5": 1.5},
    "tools": [{"type": "function", "function": FUNCTION}],
    "tool_choice": "auto",
    "metadata": {"k": "v"},
    "user": "someone",
    "stream": False,
}
FORM = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}}
STREAMED = {"messages": MESSAGES, "max_tokens": 2, "stream": True, "response_format": FORM}

SEEDS: dict[str, list[dict[str, Any]]] = {
    "/v1/chat/completions": [CHAT, STREAMED | {"stream_options": {"include_usage": True}}],
    "/v1/chat/completions/none": [{"metadata": {"k": "v"}}],
    "/v1/completions": [
        {"prompt": "Hi", "max_tokens": 2, "echo": True, "logprobs": 2, "best_of": 2},
        {"prompt": [[1, 2, 3], [4]], "max_tokens": 1, "stream": True, "suffix": None},
    ],
    "/v1/embeddings": [{"model": "embedded", "input": ["a", "b"], "encoding_format": "base64"}],
    "/v1/rerank": [{"model": "embedded", "query": "a", "documents": ["b", {"text": "c"}]}],
    "/v1/responses": [
        {
            "model": "embedded",
            "instructions": "Be brief.",
            "input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}],
            "max_output_tokens": 16,
            "tools": [{"type": "function", **FUNCTION}],
            "text": {"format": {"type": "text"}},
            "stream": True,
            "store": False,
        }
    ],
    "/v1/messages": [
        {
            "model": "embedded",
            "max_tokens": 2,
            "system": [{"type": "text", "text": "Be brief."}],
            "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
            "tools": [{"name": "look", "input_schema": SCHEMA}],
            "thinking": {"type": "disabled"},
            "stop_sequences": ["x"],
            "stream": True,
        }
    ],
    "/v1/messages/count_tokens": [{"model": "embedded", "messages": MESSAGES[1:]}],
    "/api/chat": [{"model": "embedded", "messages": MESSAGES, "options": {"num_predict": 2}}],
    "/api/generate": [
        {"model": "embedded", "prompt": "Hi", "options": {"num_predict": 2}, "format": SCHEMA}
    ],
    "/api/embed": [{"model": "embedded", "input": "Hi"}],
    "/api/embeddings": [{"model": "embedded", "prompt": "Hi"}],
    "/api/show": [{"model": "embedded"}],
    "/api/pull": [{"model": "embedded", "stream": False}],
    "/api/create": [{"model": "new", "from": "embedded"}],
    "/api/copy": [{"source": "embedded", "destination": "new"}],
    "/v1/responses/input_tokens": [{"model": "embedded", "input": "Hi"}],
    "/tokenize": [{"content": "Hi there", "add_special": True, "with_pieces": True}],
    "/detokenize": [{"tokens": [1, 2, 3]}],
    "/apply-template": [{"messages": MESSAGES}],
    "/v1/grammar": [{"schema": SCHEMA}, {"response_format": FORM}],
}
"""Route → bodies it answers, or refuses for another reason than their form."""

READS = (
    *("/v1/chat/completions", "/v1/chat/completions/{id}", "/v1/chat/completions/{id}/messages"),
    *("/v1/responses/{id}", "/v1/responses/{id}/input_items"),
    *("/v1/models", "/v1/models/{name:path}", "/v1/engine", "/health", "/metrics"),
    *("/", "/api/version", "/api/tags", "/api/ps", "/api/blobs/{digest}", "/api/delete"),
)
"""Routes without a body."""

WEIRD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 129, 2**31, 2**63, -(2**63), 2**70, 1e308, -1e308, 1e-308, 0.5),
    *("", "\x00", "x", "\ud7ff\uffff", "<|im_end|>", "{{ 1 }}", "nan", "-", "9" * 400),
    *("x" * 50_000, [], {}, [[]], [None] * 50, {"type": "x"}, {"": ""}, ["a", 1]),
    *({"$ref": "#"}, {"type": "object", "$ref": "#/properties/none"}, {"role": "user"}),
)


IDENTIFIERS = ("none", "chatcmpl-0", "resp_" + "0" * 48, "..", "%2e%2e", "a/b", "%00", "%ff", "*")


class Bad(Struct):
    """One request, as bytes."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def bad_requests(rng: random.Random) -> Iterator[Bad]:
    """Endless."""
    paths = list(SEEDS)
    while True:
        if rng.random() < 0.08:
            yield bad_reading(rng)
            continue
        path = rng.choice(paths)
        document = copy.deepcopy(rng.choice(SEEDS[path]))
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            rng.choice(MUTATIONS)(rng, document)
        body = json.dumps(document).encode("utf-8", "surrogatepass")
        request = Bad("POST", path, {"content-type": "application/json"}, body)
        if rng.random() < 0.3:
            rng.choice(BREAKAGES)(rng, request)
        yield request


def bad_reading(rng: random.Random) -> Bad:
    """An identifier that nothing has, and parameters of a page that are none."""
    path = re.sub(r"\{[^}]*\}", rng.choice(IDENTIFIERS), rng.choice(READS))
    names = ("limit", "after", "order", "model", "stream", "include[]", "metadata[k]", "x", "")
    values = (
        "",
        "0",
        "-1",
        "99999999999999999999",
        "1e9",
        "x" * 3000,
        "%00",
        "%ff",
        "%F0%9F",
        "asc",
    )
    pairs = (f"{rng.choice(names)}={rng.choice(values)}" for _ in range(rng.randrange(4)))
    method = rng.choice(("GET", "GET", "GET", "HEAD", "DELETE", "POST", "OPTIONS"))
    request = Bad(method, f"{path}?{'&'.join(pairs)}", {}, b"")
    if rng.random() < 0.3:
        rng.choice((mistype, misname, behead))(rng, request)
    return request


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in a document with every key in it."""
    found: list[tuple[Any, Any]] = []
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    for key in keys:
        found.append((value, key))
        if isinstance(value[key], dict | list):
            found += places(value[key])
    return found


def replace(rng: random.Random, document: Any) -> None:
    if found := places(document):
        container, key = rng.choice(found)
        container[key] = copy.deepcopy(rng.choice(WEIRD))


def remove(rng: random.Random, document: Any) -> None:
    if found := places(document):
        container, key = rng.choice(found)
        del container[key]


def repeat(rng: random.Random, document: Any) -> None:
    """A list much longer, or a number turned into its text."""
    if found := places(document):
        container, key = rng.choice(found)
        value = container[key]
        container[key] = value * 40 if isinstance(value, list | str) else str(value)


def add(rng: random.Random, document: Any) -> None:
    document[rng.choice(NAMES)] = copy.deepcopy(rng.choice(WEIRD))


NAMES = (
    *("x", "", "model", "n", "format", "options", "think", "store", "lora", "keep_alive"),
    *("fallbacks", "priority", "template", "chat_template_kwargs", "grammar", "raw", "input"),
)


def nest(rng: random.Random, document: Any) -> None:
    deep: Any = rng.choice(WEIRD)
    for _ in range(rng.choice((3, 60, 400))):
        deep = [deep] if rng.random() < 0.5 else {"a": deep}
    if found := places(document):
        container, key = rng.choice(found)
        container[key] = deep


def truncate(rng: random.Random, request: Bad) -> None:
    request.body = request.body[: rng.randrange(len(request.body) + 1)]


def flip(rng: random.Random, request: Bad) -> None:
    data = bytearray(request.body or b"x")
    for _ in range(rng.choice((1, 1, 5))):
        data[rng.randrange(len(data))] = rng.randrange(256)
    request.body = bytes(data)


def insert(rng: random.Random, request: Bad) -> None:
    at = rng.randrange(len(request.body) + 1)
    bits = (b"\xff", b"\xc3(", b"\x00", b"\\ud800", b"NaN", b"Infinity", b'"', b"{", b"]", b"//")
    request.body = request.body[:at] + rng.choice(bits) + request.body[at:]


def deepen(rng: random.Random, request: Bad) -> None:
    """Brackets that nothing closes, or all of which are closed."""
    opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")))
    depth = rng.choice((900, 1_100, 100_000))
    middle = rng.choice((b"", b"1", request.body))
    request.body = opening * depth + middle + closing * rng.choice((0, depth))


def bloat(rng: random.Random, request: Bad) -> None:
    """A megabyte or two more than it was."""
    filler = rng.choice((b'"x":"' + b"x" * 2**20 + b'",', b'"":0,' * 2**18, b" " * 2**21))
    request.body = request.body[:1] + filler + request.body[1:]


def mistype(rng: random.Random, request: Bad) -> None:
    kinds = ("text/plain", "", "application/x-www-form-urlencoded", "application/json; charset=x")
    request.headers["content-type"] = rng.choice(kinds)


def misname(rng: random.Random, request: Bad) -> None:
    ends = ("/", "/..", "//x", "?a=1&a=%00", "%2e%2e/%2f", "/%ff", "/" + "y" * 3000, ";x", "/x/y/z")
    request.path += rng.choice(ends)


def mismethod(rng: random.Random, request: Bad) -> None:
    request.method = rng.choice(("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE"))


def behead(rng: random.Random, request: Bad) -> None:
    names = ("authorization", "x-request-id", "accept", "x-api-key", "anthropic-version", "cookie")
    values = ("", "Bearer", "Bearer \xff", "a\tb", "x" * 5000, "é", "a,b;c=d", "1e9")
    request.headers[rng.choice(names)] = rng.choice(values)


Mutation = Callable[[random.Random, Any], None]
MUTATIONS: tuple[Mutation, ...] = (replace, replace, replace, remove, repeat, add, nest)
BREAKAGES: tuple[Mutation, ...] = (
    *(truncate, flip, insert, truncate, flip, insert),
    *(deepen, bloat),
    *(mistype, misname, mismethod, behead, mistype, misname, mismethod, behead),
)
