"""A chat format from the side of constrained decoding: what must be written, as data."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from server.chat.discovery import Learned
from server.chat.syntax import CallSyntax, Lexer, ParameterSyntax, Piece, Style


class FunctionPlan(Struct, frozen=True):
    """One function: `pieces` in order, its name already written out.

    Slots that are left: "arguments" (in the plan's style, obeying `schema`), "id" (nine letters
    and digits will do everywhere), "index" (a number that counts the calls).
    """

    name: str
    pieces: tuple[Piece, ...]
    schema: Mapping[str, Any]
    input_grammar: tuple[str, str] | None = None  # of a custom tool: (syntax, definition)


class CallPlan(Struct, frozen=True):
    """first_open call (call_close next_open call)* call_close section_close, then an end marker.

    style "json_object" and "name_then_json": the arguments slot is JSON (inside a JSON string
    where `encoded`); "parameters": each argument as `parameters` has it, strings bare (they end
    at its close marker), other values as JSON; "python": key=literal joined by ", ";
    "keyed": key:value joined by ",", strings between `quote` marks, without escapes.
    """

    style: Style
    functions: tuple[FunctionPlan, ...]
    first_open: str
    next_open: str
    call_close: str
    section_close: str
    parallel: bool  # more than one call is asked for, and the format can hold it
    triggers: tuple[str, ...]  # each opens a call in free text; () where calls stand bare
    trigger_rests: tuple[str, ...]  # what of first_open is still to be written behind each
    ends: tuple[str, ...]
    thought_open: str
    thought_close: str
    after_thought: str  # stands between a thought and what follows it: a header of its own
    content_open: str
    parameters: ParameterSyntax | None
    encoded: bool
    quote: str
    python_words: bool


def call_plan(
    syntax: CallSyntax, learned: Learned, tools: Sequence[Mapping[str, Any]], parallel: bool
) -> CallPlan:
    """The plan for calls of `tools` (definitions in OpenAI's shape) in `syntax`."""
    rests = [_rest(syntax.first_open, trigger) for trigger in syntax.triggers]
    return CallPlan(
        style=syntax.style,
        functions=tuple(_function(syntax, tool.get("function", tool)) for tool in tools),
        first_open=syntax.first_open.lstrip("\n"),
        next_open=syntax.next_open,
        call_close=syntax.call_close,
        section_close=syntax.section_close,
        parallel=parallel and syntax.parallel,
        triggers=syntax.triggers,
        trigger_rests=tuple(rests),
        ends=learned.ends,
        thought_open=learned.thought.open,
        thought_close=learned.thought.close,
        after_thought=learned.after_thought,
        content_open=learned.content_open,
        parameters=syntax.parameters,
        encoded=syntax.encoded,
        quote=syntax.quote,
        python_words=syntax.python_words,
    )


def _rest(opening: str, trigger: str) -> str:
    at = opening.rfind(trigger)
    return opening[at + len(trigger) :] if at >= 0 else ""


def _function(syntax: CallSyntax, function: Mapping[str, Any]) -> FunctionPlan:
    name = function["name"]
    quoted = json.dumps(name, ensure_ascii=False)[1:-1] if syntax.style == "json_object" else name
    pieces: list[Piece] = []
    for piece in syntax.pieces:
        text = quoted if piece.slot == "name" else piece.text
        if piece.slot not in (None, "name"):
            pieces.append(piece)
        elif pieces and pieces[-1].slot is None:
            pieces[-1] = Piece(pieces[-1].text + text)
        else:
            pieces.append(Piece(text))
    schema = function.get("parameters")
    empty: Mapping[str, Any] = {"type": "object", "properties": {}}
    schema = schema if isinstance(schema, Mapping) else empty
    return FunctionPlan(name, tuple(pieces), schema, function.get("input_grammar"))


def special_markers(learned: Learned, calls: Sequence[CallSyntax]) -> tuple[str, ...]:
    """Every tag that the format's markers are made of, once each."""
    thought, lexer = learned.thought, Lexer()
    texts = [learned.header, thought.open, thought.close, *learned.ends]
    texts += [learned.content_open, learned.content_close]
    if learned.channels is not None:
        texts += [learned.channels.channel_tag, learned.channels.message_tag, "<|constrain|>"]
    for call in calls:
        texts += [call.first_open, call.call_close, call.separator, call.section_close, call.quote]
        texts += [piece.text for piece in call.pieces]
        if call.parameters is not None:
            syntax = call.parameters
            whole = (syntax.open, syntax.after_key, syntax.close, *syntax.after_key_json)
            texts += [*whole, syntax.close_json]
    found = [marker for text in texts for marker in lexer.markers(text)]
    found += [trigger for call in calls for trigger in call.triggers]
    return tuple(dict.fromkeys([*found, *learned.ends]))
