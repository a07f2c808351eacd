"""The arguments of a call as nodes: JSON, or one by one in a model's own notation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grammars
from grammars import Node, UnsupportedSchema
from grammars.compiler import schema_node
from grammars.compose import raw_string_node
from grammars.documents import segment
from server.chat.plan import CallPlan, FunctionPlan
from server.custom_tools import PARAMETER

_DEFINITIONS = ("$defs", "definitions", "$schema", "$id")
_ANNOTATIONS = {"title", "description", "examples", "default", "$comment", "strict", "type"}


class Arguments:
    """Those of one function. `ignored` collects the formats in them that are annotations.

    `at` is where a part stands in the schema of the function.
    """

    def __init__(self, plan: CallPlan, function: FunctionPlan) -> None:
        self.plan, self.function = plan, function
        self.ignored: list[str] = []

    def node(self) -> Node:
        plan, function = self.plan, self.function
        if plan.encoded:
            reason = "this model writes arguments as JSON inside a JSON string"
            raise UnsupportedSchema("$", "", reason)
        if function.input_grammar is not None:
            return _custom_input(plan, *function.input_grammar)
        if plan.style in ("json_object", "name_then_json"):
            return self._json(_as_object(function.schema), "$")
        write, separator = {
            "parameters": (self._parameter, ""),
            "python": (self._keyword_argument, ", "),
            "keyed": (self._keyed, ","),
        }[plan.style]
        written = [
            (required, write(key, schema, _property("$", key)))
            for required, key, schema in _properties(function.schema)
        ]
        return _in_order(written, separator)

    def _noted(self, found: tuple[Node, tuple[str, ...]], at: str) -> Node:
        """The node; what was ignored in it is named by its place in the whole schema."""
        node, ignored = found
        for place in ignored:
            shared = place.startswith(("$.$defs", "$.definitions"))
            self.ignored.append(f"{self.function.name} {place if shared else at + place[1:]}")
        return node

    def _json(self, schema: Any, at: str) -> Node:
        return self._noted(schema_node(schema), at)

    def _parameter(self, key: str, schema: Any, at: str) -> Node:
        """open key after_key value close; strings are bare and end at the close marker."""
        syntax = self.plan.parameters
        assert syntax is not None
        begin = grammars.literal(syntax.open + key + syntax.after_key)
        if grammars.takes_only_strings(schema):
            raw = raw_string_node(schema, syntax.close, syntax.close.strip())
            return grammars.sequence(begin, self._noted(raw, at))
        if syntax.after_key_json:
            begin = grammars.literal(syntax.open + key + syntax.after_key_json[0])
        close = grammars.literal(syntax.close_json or syntax.close)
        return grammars.sequence(begin, self._json(schema, at), close)

    def _keyword_argument(self, key: str, schema: Any, at: str) -> Node:
        return grammars.sequence(grammars.literal(f"{key}="), self._json(schema, at))

    def _keyed(self, key: str, schema: Any, at: str) -> Node:
        return grammars.sequence(grammars.literal(f"{key}:"), self._keyed_value(schema, at))

    def _keyed_value(self, schema: Any, at: str) -> Node:
        """Strings between quote marks, unescaped; objects and lists in the same notation."""
        if grammars.takes_only_strings(schema):
            quoted = self._noted(raw_string_node(schema, self.plan.quote), at)
            return grammars.sequence(grammars.literal(self.plan.quote), quoted)
        branching = {"anyOf", "oneOf"} & schema.keys() if isinstance(schema, dict) else ()
        for keyword in branching:
            if schema.keys() <= {keyword, *_ANNOTATIONS, *_DEFINITIONS}:
                return self._keyed_branches(schema, keyword, at)
        kind = schema.get("type") if isinstance(schema, dict) else None
        if isinstance(kind, list):
            kinds = ({**schema, "type": each} for each in kind)
            return grammars.choice(*(self._keyed_value(each, at) for each in kinds))
        if kind == "object":
            written = [
                (required, self._keyed(key, value, _property(at, key)))
                for required, key, value in _properties(schema)
            ]
            body = _in_order(written, ",")
            return grammars.sequence(grammars.literal("{"), body, grammars.literal("}"))
        if kind == "array":
            return self._keyed_list(schema, at)
        if kind not in ("integer", "number", "boolean", "null"):
            raise UnsupportedSchema("$", "type", "this model's notation needs to know the type")
        return self._json(schema, at)

    def _keyed_branches(self, schema: dict[str, Any], keyword: str, at: str) -> Node:
        branches = [{**_definitions(schema), **branch} for branch in schema[keyword]]
        return grammars.choice(
            *(self._keyed_value(b, f"{at}.{keyword}[{i}]") for i, b in enumerate(branches))
        )

    def _keyed_list(self, schema: dict[str, Any], at: str) -> Node:
        known = {"items", "minItems", "maxItems", *_ANNOTATIONS, *_DEFINITIONS}
        for keyword in schema.keys() - known:
            raise UnsupportedSchema("$", keyword, "this model's notation knows plain lists only")
        items = {**_definitions(schema), **schema.get("items", {})}
        item = self._keyed_value(items, f"{at}.items")
        low, high = schema.get("minItems", 0), schema.get("maxItems")
        more = grammars.repeat(
            grammars.sequence(grammars.literal(","), item),
            max(low - 1, 0),
            None if high is None else max(high - 1, 0),
        )
        filled = grammars.sequence(item, more) if high != 0 else grammars.literal("")
        body = filled if low else grammars.optional(filled)
        return grammars.sequence(grammars.literal("["), body, grammars.literal("]"))


def literals(*texts: str) -> list[Node]:
    joined = "".join(texts)
    return [grammars.literal(joined)] if joined else []


def _property(at: str, key: str) -> str:
    return f"{at}.properties{segment(key)}"


def _definitions(schema: Mapping[str, Any]) -> dict[str, Any]:
    """What references in the parts of a schema lead to."""
    return {name: schema[name] for name in _DEFINITIONS if name in schema}


def _custom_input(plan: CallPlan, syntax: str, definition: str) -> Node:
    """The one argument of a custom tool, held to the tool's own grammar."""
    if plan.style == "parameters":
        form = plan.parameters
        assert form is not None
        return grammars.sequence(
            grammars.literal(form.open + PARAMETER + form.after_key),
            grammars.written_text(syntax, definition, form.close),
        )
    if plan.style == "keyed":
        return grammars.sequence(
            grammars.literal(f"{PARAMETER}:{plan.quote}"),
            grammars.written_text(syntax, definition, plan.quote),
        )
    text = grammars.written_text(syntax, definition)
    if plan.style == "python":
        return grammars.sequence(grammars.literal(f"{PARAMETER}="), text)
    return grammars.sequence(grammars.literal(f'{{"{PARAMETER}": '), text, grammars.literal("}"))


def _as_object(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments are an object, whether or not the schema says so."""
    return dict(schema) if "type" in schema or "$ref" in schema else {"type": "object", **schema}


def _properties(schema: Mapping[str, Any]) -> list[tuple[bool, str, dict[str, Any]]]:
    """(required, name, schema) as declared, for styles that write arguments one by one."""
    known = {"properties", "required", "additionalProperties", *_DEFINITIONS, *_ANNOTATIONS}
    for keyword in schema.keys() - known:
        raise UnsupportedSchema(
            "$", keyword, "this model writes arguments one by one; only properties can be told"
        )
    required = schema.get("required", [])
    properties = schema.get("properties", {})
    for name in required:
        if name not in properties:
            raise UnsupportedSchema("$", "required", f"{name!r} is not among the properties")
    shared = _definitions(schema)
    return [
        (name in required, name, {**shared, **value} if isinstance(value, dict) else value)
        for name, value in properties.items()
    ]


def _in_order(entries: list[tuple[bool, Node]], separator: str) -> Node:
    """The entries in order, optional ones left out at will, `separator` between those present."""
    rest_first: Node = grammars.literal("")
    rest_later: Node = grammars.literal("")
    for required, entry in reversed(entries):
        later = grammars.sequence(*literals(separator), entry, rest_later)
        first = grammars.sequence(entry, rest_later)
        if required:
            rest_first, rest_later = first, later
        else:
            rest_first = grammars.choice(first, rest_first)
            rest_later = grammars.choice(later, rest_later)
    return rest_first
