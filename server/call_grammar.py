"""A `CallPlan` → grammar nodes: calls as this model writes them, arguments by their schemas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grammars
from grammars import GrammarError, Node, UnsupportedSchema
from grammars.compiler import schema_node
from server.chat.plan import CallPlan, FunctionPlan
from server.custom_tools import PARAMETER
from server.errors import UnusableTool, quote

_ID_PATTERN = "[A-Za-z0-9]{9}"
_DEFINITIONS = ("$defs", "definitions", "$schema", "$id")
_ANNOTATIONS = {"title", "description", "examples", "default", "$comment", "strict", "type"}


def call_nodes(plan: CallPlan) -> tuple[Node, Node]:
    """Calls from their first marker on, and free text up to a call with the rest of it.

    Raises UnusableTool.
    """
    calls = grammars.choice(*(_call(plan, function) for function in plan.functions))
    after_open = calls
    if plan.parallel:
        following = grammars.sequence(grammars.literal(plan.call_close + plan.next_open), calls)
        after_open = grammars.sequence(calls, grammars.repeat(following, 0, None))
    after_open = grammars.sequence(after_open, *_literals(plan.call_close, plan.section_close))
    forced = grammars.sequence(*_literals(plan.first_open), after_open)
    if not plan.triggers:
        return forced, forced
    # The first trigger is how a call usually opens; the others are banned from free text.
    opened = grammars.text_until(plan.triggers[0])
    return forced, grammars.sequence(opened, *_literals(plan.trigger_rests[0]), after_open)


def unknown_formats(plan: CallPlan) -> list[str]:
    """Formats in the schemas of a plan that compiled which are annotations, by function."""
    found = []
    for function in plan.functions:
        # Whether there are any is looked for first: few tools have some.
        if function.input_grammar is None and "'format'" in repr(function.schema):
            ignored = schema_node(_as_object(function.schema))[1]
            found += [f"{function.name} {place}" for place in ignored]
    return found


def _literals(*texts: str) -> list[Node]:
    joined = "".join(texts)
    return [grammars.literal(joined)] if joined else []


def _call(plan: CallPlan, function: FunctionPlan) -> Node:
    nodes: list[Node] = []
    for piece in function.pieces:
        match piece.slot:
            case None:
                nodes += _literals(piece.text)
            case "id":
                nodes.append(grammars.regex(_ID_PATTERN))
            case "index":
                nodes.append(grammars.regex("[0-9]{1,3}"))
            case _:
                nodes.append(_usable_arguments(plan, function))
    return grammars.sequence(*nodes)


def _usable_arguments(plan: CallPlan, function: FunctionPlan) -> Node:
    try:
        return _arguments(plan, function)
    except GrammarError as error:
        refused = UnusableTool(
            f"the schema of {quote(function.name)} cannot be enforced: {error}",
            loc=("body", "tools"),
        )
        refused.tool = function.name
        raise refused from None


def _arguments(plan: CallPlan, function: FunctionPlan) -> Node:
    if plan.encoded:
        raise UnsupportedSchema("$", "", "this model writes arguments as JSON inside a JSON string")
    if function.input_grammar is not None:
        return _custom_input(plan, *function.input_grammar)
    if plan.style in ("json_object", "name_then_json"):
        return schema_node(_as_object(function.schema))[0]
    write, separator = {
        "parameters": (_parameter, ""),
        "python": (_keyword_argument, ", "),
        "keyed": (_keyed, ","),
    }[plan.style]
    written = [
        (required, write(plan, key, schema))
        for required, key, schema in _properties(function.schema)
    ]
    return _in_order(written, separator)


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
    shared = {name: schema[name] for name in _DEFINITIONS if name in schema}
    return [
        (name in required, name, {**shared, **value} if isinstance(value, dict) else value)
        for name, value in properties.items()
    ]


def _parameter(plan: CallPlan, key: str, schema: Any) -> Node:
    """open key after_key value close; strings are bare and end at the close marker."""
    syntax = plan.parameters
    assert syntax is not None
    begin = grammars.literal(syntax.open + key + syntax.after_key)
    if grammars.takes_only_strings(schema):
        return grammars.sequence(
            begin, grammars.raw_string(schema, syntax.close, syntax.close.strip())
        )
    if syntax.after_key_json:
        begin = grammars.literal(syntax.open + key + syntax.after_key_json[0])
    return grammars.sequence(
        begin, _json(schema), grammars.literal(syntax.close_json or syntax.close)
    )


def _keyword_argument(_plan: CallPlan, key: str, schema: Any) -> Node:
    return grammars.sequence(grammars.literal(f"{key}="), _json(schema))


def _keyed(plan: CallPlan, key: str, schema: Any) -> Node:
    return grammars.sequence(grammars.literal(f"{key}:"), _keyed_value(plan, schema))


def _keyed_value(plan: CallPlan, schema: Any) -> Node:
    """Strings between quote marks, unescaped; objects and lists in the same notation."""
    if grammars.takes_only_strings(schema):
        quoted = grammars.raw_string(schema, plan.quote)
        return grammars.sequence(grammars.literal(plan.quote), quoted)
    branching = {"anyOf", "oneOf"} & schema.keys() if isinstance(schema, dict) else ()
    for keyword in branching:
        if schema.keys() <= {keyword, *_ANNOTATIONS, *_DEFINITIONS}:
            shared = {name: schema[name] for name in _DEFINITIONS if name in schema}
            return grammars.choice(
                *(_keyed_value(plan, {**shared, **branch}) for branch in schema[keyword])
            )
    kind = schema.get("type") if isinstance(schema, dict) else None
    if isinstance(kind, list):
        return grammars.choice(*(_keyed_value(plan, {**schema, "type": each}) for each in kind))
    if kind == "object":
        written = [
            (required, _keyed(plan, key, value)) for required, key, value in _properties(schema)
        ]
        body = _in_order(written, ",")
        return grammars.sequence(grammars.literal("{"), body, grammars.literal("}"))
    if kind == "array":
        return _keyed_list(plan, schema)
    if kind not in ("integer", "number", "boolean", "null"):
        raise UnsupportedSchema("$", "type", "this model's notation needs to know the type")
    return _json(schema)


def _keyed_list(plan: CallPlan, schema: dict[str, Any]) -> Node:
    known = {"items", "minItems", "maxItems", *_ANNOTATIONS, *_DEFINITIONS}
    for keyword in schema.keys() - known:
        raise UnsupportedSchema("$", keyword, "this model's notation knows plain lists only")
    shared = {name: schema[name] for name in _DEFINITIONS if name in schema}
    item = _keyed_value(plan, {**shared, **schema.get("items", {})})
    low, high = schema.get("minItems", 0), schema.get("maxItems")
    more = grammars.repeat(
        grammars.sequence(grammars.literal(","), item),
        max(low - 1, 0),
        None if high is None else max(high - 1, 0),
    )
    filled = grammars.sequence(item, more) if high != 0 else grammars.literal("")
    body = filled if low else grammars.optional(filled)
    return grammars.sequence(grammars.literal("["), body, grammars.literal("]"))


def _json(schema: Any) -> Node:
    return schema_node(schema)[0]


def _in_order(entries: list[tuple[bool, Node]], separator: str) -> Node:
    """The entries in order, optional ones left out at will, `separator` between those present."""
    rest_first: Node = grammars.literal("")
    rest_later: Node = grammars.literal("")
    for required, entry in reversed(entries):
        later = grammars.sequence(*_literals(separator), entry, rest_later)
        first = grammars.sequence(entry, rest_later)
        if required:
            rest_first, rest_later = first, later
        else:
            rest_first = grammars.choice(first, rest_first)
            rest_later = grammars.choice(later, rest_later)
    return rest_first
