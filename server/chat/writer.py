"""Calls → the text a model would write for them, in a given syntax."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from server.chat.messages import arguments_object
from server.chat.syntax import CallSyntax, ParameterSyntax


def write_calls(syntax: CallSyntax, calls: Sequence[Mapping[str, Any]]) -> str:
    """`calls` in OpenAI's shape (arguments as JSON text or as an object)."""
    written = [
        "".join(_pieces(syntax, call, index)) + syntax.call_close
        for index, call in enumerate(calls)
    ]
    if not written:
        return ""
    joined = syntax.next_open.join(written)
    return (syntax.first_open + joined + syntax.section_close).lstrip()


def _pieces(syntax: CallSyntax, call: Mapping[str, Any], index: int) -> Iterator[str]:
    function = call["function"]
    for piece in syntax.pieces:
        if piece.slot == "name":
            name = function["name"]
            quoted = syntax.style == "json_object"
            yield json.dumps(name, ensure_ascii=False)[1:-1] if quoted else name
        elif piece.slot == "id":
            yield str(call.get("id", ""))
        elif piece.slot == "index":
            yield str(index)
        elif piece.slot == "arguments":
            yield _arguments(syntax, function)
        else:
            yield piece.text


def _arguments(syntax: CallSyntax, function: Mapping[str, Any]) -> str:
    values = arguments_object(dict(function))
    if syntax.style == "parameters" and syntax.parameters is not None:
        return _parameters(syntax.parameters, values, syntax.python_words)
    if syntax.style == "python":
        return ", ".join(f"{key}={_python(value, syntax)}" for key, value in values.items())
    if syntax.style == "keyed":
        return ",".join(f"{key}:{_keyed(value, syntax.quote)}" for key, value in values.items())
    text = json.dumps(values, ensure_ascii=False)
    return json.dumps(text, ensure_ascii=False) if syntax.encoded else text


def _parameters(syntax: ParameterSyntax, values: Mapping[str, Any], python_words: bool) -> str:
    shown = []
    for key, value in values.items():
        if isinstance(value, str):
            shown.append(syntax.open + key + syntax.after_key + value + syntax.close)
        else:
            text = repr(value) if python_words else json.dumps(value, ensure_ascii=False)
            shown.append(
                syntax.open
                + key
                + (*syntax.after_key_json, syntax.after_key)[0]
                + text
                + syntax.close_json
            )
    return syntax.separator.join(shown)


def _python(value: Any, syntax: CallSyntax) -> str:
    if isinstance(value, str) and syntax.quote == '"':
        return json.dumps(value, ensure_ascii=False)
    return repr(value) if syntax.python_words else json.dumps(value, ensure_ascii=False)


def _keyed(value: Any, quote: str) -> str:
    if isinstance(value, str):
        return quote + value + quote
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_keyed(item, quote)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(_keyed(item, quote) for item in value) + "]"
    return json.dumps(value)
