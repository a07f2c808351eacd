"""What a tool's schema says of an argument: enough to tell "42" from 42."""

import ast
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

_BY_PYTHON: dict[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    dict: "object",
    list: "array",
    type(None): "null",
}
_DEPTH = 8  # of references and unions


class ToolSchemas(Struct, frozen=True):
    """The parameters of a request's tools, by name; `known` is false when none were given."""

    known: bool
    parameters: dict[str, Mapping[str, Any]]

    @classmethod
    def of(cls, tools: Sequence[Mapping[str, Any]] | None) -> "ToolSchemas":
        found: dict[str, Mapping[str, Any]] = {}
        for tool in tools or ():
            function = tool.get("function", tool)
            if isinstance(function, Mapping) and isinstance(function.get("name"), str):
                parameters = function.get("parameters")
                found[function["name"]] = parameters if isinstance(parameters, Mapping) else {}
        return cls(tools is not None, found)

    def may_be(self, name: str) -> bool:
        """Whether a function of this name can be meant."""
        return not self.known or name in self.parameters

    def keys(self, name: str) -> list[str]:
        properties = self.parameters.get(name, {}).get("properties")
        return list(properties) if isinstance(properties, Mapping) else []

    def types(self, name: str, key: str) -> frozenset[str] | None:
        """The JSON types an argument may have; None where the schema does not say."""
        whole = self.parameters.get(name, {})
        properties = whole.get("properties")
        schema = properties.get(key) if isinstance(properties, Mapping) else None
        if schema is None:
            schema = whole.get("additionalProperties")
        found = _types(schema, whole, _DEPTH)
        return frozenset(found) if found is not None else None


def _types(schema: Any, whole: Mapping[str, Any], depth: int) -> set[str] | None:
    if not isinstance(schema, Mapping) or depth == 0:
        return None
    if "type" in schema:
        kind = schema["type"]
        return {kind} if isinstance(kind, str) else {k for k in kind if isinstance(k, str)}
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return {_BY_PYTHON.get(type(value), "string") for value in values}
    if isinstance(schema.get("$ref"), str):
        return _types(_resolve(schema["$ref"], whole), whole, depth - 1)
    for union in ("anyOf", "oneOf", "allOf"):
        if isinstance(schema.get(union), list):
            return _union(schema[union], whole, depth - 1)
    return None


def _union(branches: Iterable[Any], whole: Mapping[str, Any], depth: int) -> set[str] | None:
    found: set[str] = set()
    for branch in branches:
        types = _types(branch, whole, depth)
        if types is None:
            return None
        found |= types
    return found


def _resolve(reference: str, whole: Mapping[str, Any]) -> Any:
    node: Any = whole
    for part in reference.removeprefix("#").strip("/").split("/"):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def literal(text: str) -> tuple[bool, Any]:
    """The value of a JSON or Python literal, and whether `text` is one."""
    try:
        return True, json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        pass
    bare = text.strip()
    if not bare.startswith(("{", "[", "(")) and bare not in ("True", "False", "None"):
        return False, text
    try:
        value = ast.literal_eval(bare)
        json.dumps(value, allow_nan=False)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return False, text
    return True, value


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def argument_json(text: str, types: frozenset[str] | None, quoted: bool | None = None) -> str:
    """An argument written as text → JSON.

    `types`: what the schema allows (None: it does not say). `quoted`: whether the format itself
    marks the text as a string (None: it marks nothing, strings stand there bare).
    """
    if quoted or (quoted is None and types == frozenset({"string"})):
        return json.dumps(text, ensure_ascii=False)
    is_literal, value = literal(text)
    if quoted is None and (not is_literal or isinstance(value, str)):
        return json.dumps(text, ensure_ascii=False)
    if quoted is None and types and "string" in types and not _fits(value, types):
        return json.dumps(text, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False)


def _fits(value: Any, types: frozenset[str]) -> bool:
    kind = _BY_PYTHON.get(type(value), "string")
    return kind in types or (kind == "integer" and "number" in types)
