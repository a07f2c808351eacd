"""What an answer may look like → one grammar: a document, calls, or both, after a free thought."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

import grammars
from engine.request import Grammar
from grammars import GrammarCache, GrammarError, Node, UnsupportedSchema
from grammars.compiler import schema_node
from server.call_grammar import CallNodes, call_nodes
from server.chat.format import ChatFormat
from server.chat.plan import CallPlan
from server.checks import missing
from server.decode import check_types
from server.errors import InvalidRequest, Loc, UnsupportedField, quote

FORMAT_LOC: Loc = ("body", "response_format")
TOOLS_LOC: Loc = ("body", "tools")
FORMAT_TYPES = ("text", "json_object", "json_schema", "gbnf", "regex")
SCHEMA_TYPES = {"name": str, "description": str, "strict": bool}
"""Of what stands beside a schema: it is enforced, whether or not `strict` asks for it."""


class ResponseFormat(Struct, frozen=True):
    """A response_format with its own part checked for shape: what kind, and of what."""

    kind: str
    """json_object, json_schema, gbnf or regex."""
    content: Any
    """The schema, the grammar's text or the pattern; None for json_object."""
    loc: Loc


class Thought(Struct, frozen=True):
    """Where an answer may think before it is held to anything."""

    open: str
    close: str
    begun: bool
    """The prompt has opened it: the answer begins inside."""
    after: str = ""
    """What this format writes between a thought and the rest."""

    @classmethod
    def of(cls, format: ChatFormat, prompt: str) -> Thought | None:
        """None where answers of this format do not think."""
        syntax, begun = format.learned.thought, format.opens_thought(prompt)
        if not (begun or syntax.learned):
            return None
        return cls(syntax.open, syntax.close, begun, format.learned.after_thought)


class Wanted(Struct, frozen=True, kw_only=True):
    """Everything that constrains one answer."""

    form: ResponseFormat | None = None
    calls: CallPlan | None = None
    """The functions that may be called, in the model's own syntax."""
    must_call: bool = False
    banned: tuple[str, ...] = ()
    """Markers that open a call, where none may be called."""
    thought: Thought | None = None
    content_open: str = ""
    """The marker that opens the answer proper, in formats that have one."""


class OutputGrammar(Struct, frozen=True):
    """A grammar with what it leaves to the model although the schema mentions it."""

    grammar: Grammar
    ignored: tuple[str, ...] = ()


def read_response_format(wire: Mapping[str, Any] | None) -> ResponseFormat | None:
    """The format that was asked for; None for text. Raises InvalidRequest with the field."""
    if wire is None or wire.get("type") == "text":
        return None
    kind = wire.get("type")
    if kind is None:
        raise missing((*FORMAT_LOC, "type"))
    if kind not in FORMAT_TYPES:
        raise UnsupportedField(
            f"response_format.type must be one of {', '.join(FORMAT_TYPES)}, but is {quote(kind)}",
            loc=(*FORMAT_LOC, "type"),
        )
    if kind == "gbnf":
        return ResponseFormat(kind, _text(wire, "grammar"), (*FORMAT_LOC, "grammar"))
    if kind == "regex":
        return ResponseFormat(kind, _text(wire, "pattern"), (*FORMAT_LOC, "pattern"))
    check_types(wire, {"json_schema": dict}, FORMAT_LOC)
    nested = wire.get("json_schema") or {}
    check_types(nested, SCHEMA_TYPES, (*FORMAT_LOC, "json_schema"))
    if "schema" in nested:
        return schema_format(nested["schema"], (*FORMAT_LOC, "json_schema", "schema"))
    if "schema" in wire:
        return schema_format(wire["schema"], (*FORMAT_LOC, "schema"))
    if kind == "json_object":
        return ResponseFormat(kind, None, FORMAT_LOC)
    raise missing((*FORMAT_LOC, "json_schema", "schema"))


def _text(wire: Mapping[str, Any], field: str) -> str:
    value = wire.get(field)
    if value is None:
        raise missing((*FORMAT_LOC, field))
    if not isinstance(value, str) or not value:
        raise InvalidRequest(
            f"response_format.{field} must be a text, but is {quote(value)}",
            loc=(*FORMAT_LOC, field),
        )
    return value


def schema_format(schema: Any, loc: Loc) -> ResponseFormat:
    """The format of a bare schema, which stands at `loc`. Raises InvalidRequest."""
    if not isinstance(schema, dict | bool):
        raise InvalidRequest(f"a schema is an object, but this is {quote(schema)}", loc=loc)
    return ResponseFormat("json_schema", schema, loc)


class Constraints:
    """Compiles what is wanted, and remembers it by its content. Threads may share it."""

    def __init__(self) -> None:
        self._cache = GrammarCache()

    def compile(self, wanted: Wanted) -> OutputGrammar | None:
        """None where nothing is asked. Up to some 10 ms for a new schema: call off the loop.

        Raises InvalidRequest with the path into the request and into the schema.
        """
        if wanted.form is None and wanted.calls is None and not wanted.banned:
            return None
        try:
            compiled = self._compiled(wanted)
        except GrammarError as error:
            loc = wanted.form.loc if wanted.form is not None else TOOLS_LOC
            raise refusal(error, loc) from None
        return OutputGrammar(Grammar(compiled.gbnf, compiled.lark), compiled.ignored)

    def _compiled(self, wanted: Wanted) -> grammars.Compiled:
        form = wanted.form
        plain = wanted.thought is None and not wanted.content_open
        if form is not None and wanted.calls is None and plain:
            return self._document(form)
        key = repr(wanted)
        return self._cache.get("answer", key, lambda: _compose(wanted))

    def _document(self, form: ResponseFormat) -> grammars.Compiled:
        match form.kind:
            case "gbnf":
                return self._cache.gbnf(form.content)
            case "regex":
                return self._cache.regex(form.content)
            case _:
                return self._cache.schema(_schema(form))


def refusal(error: GrammarError, loc: Loc) -> InvalidRequest:
    """The 400 that names path, keyword and reason."""
    what = "schema" if isinstance(error, UnsupportedSchema) else "constraint"
    return InvalidRequest(
        f"the {what} cannot be enforced: {error}", loc=loc, code="unsupported_schema"
    )


def _schema(form: ResponseFormat) -> Any:
    return {"type": "object"} if form.kind == "json_object" else form.content


def _compose(wanted: Wanted) -> grammars.Compiled:
    ignored: tuple[str, ...] = ()
    document: Node | None = None
    if wanted.form is not None:
        document, ignored = _form_node(wanted.form)
        if wanted.content_open:
            document = grammars.sequence(grammars.literal(wanted.content_open.strip()), document)
    calls = None if wanted.calls is None else call_nodes(wanted.calls)
    body = _body(wanted, document, calls)
    if calls is not None:
        ignored = (*ignored, *calls.ignored)
    return grammars.compile_node(_after_thought(wanted, body), ignored)


def _form_node(form: ResponseFormat) -> tuple[Node, tuple[str, ...]]:
    match form.kind:
        case "gbnf":
            raise UnsupportedField(
                "a GBNF grammar constrains the whole answer: it goes neither with tools"
                " nor with thinking",
                loc=form.loc,
            )
        case "regex":
            return grammars.regex(form.content), ()
        case _:
            return schema_node(_schema(form))


def _body(wanted: Wanted, document: Node | None, calls: CallNodes | None) -> Node:
    """Calls, a document, either of them, or free text that may turn into calls."""
    if wanted.calls is None or calls is None:
        return document or grammars.text_without(*wanted.banned)
    if wanted.must_call:
        return calls.forced
    if document is not None:
        return grammars.choice(calls.forced, document)
    if not wanted.calls.triggers:
        return grammars.choice(calls.forced, text_unlike(wanted.calls))
    return grammars.choice(grammars.text_without(*wanted.calls.triggers), calls.triggered)


def text_unlike(plan: CallPlan) -> Node:
    """Where calls stand bare: text that does not begin as a call does."""
    begins = plan.first_open or plan.functions[0].pieces[0].text
    return grammars.regex(rf"([^\s{re.escape(begins[0])}][\s\S]*)?")


def _after_thought(wanted: Wanted, body: Node) -> Node:
    """The constraint begins where the thought closes."""
    thought = wanted.thought
    if thought is None:
        return body
    space = grammars.repeat(grammars.choice(grammars.literal("\n"), grammars.literal(" ")), 0, 4)
    after = [grammars.literal(thought.after)] if thought.after else []
    close = grammars.text_until(thought.close.strip())
    rest = grammars.sequence(close, *after, space, body)
    if thought.begun:
        return rest
    opened = grammars.sequence(grammars.literal(thought.open.strip()), rest)
    return grammars.choice(opened, body)
