"""Learn how a template writes tool calls: locate the name and the arguments in what it prints."""

import re
from collections.abc import Iterator
from typing import Any, Protocol

from msgspec.structs import replace

from server.chat.locate import json_span, locate
from server.chat.syntax import (
    CallSyntax,
    Lexer,
    Piece,
    ThoughtSyntax,
    core,
)
from server.chat.traits import KEY, KEY2, NAME, NAME2, VALUE, VALUE2, probe_call

_ID, _ID2 = "q7W2e9R4t", "m3N8b5V1c"
_OTHER = "Wvalue9"
_FIRST = {KEY: VALUE, KEY2: _OTHER}
_SECOND = {KEY: VALUE2, KEY2: _OTHER}
_NUMBER = 4207
_OTHER_VALUES: tuple[tuple[Any, str], ...] = (
    (_NUMBER, str(_NUMBER)),
    (True, "[Tt]rue"),
    (None, "None|null"),
    ({"w": 1}, r"\{.{1,20}\}"),
    ([_NUMBER], r"\[\s*4207\s*\]"),
)
_TRICKY = "w'w\\w"


class Turns(Protocol):
    """`discovery.Probes`, as far as calls need it."""

    template: Any
    lexer: Lexer

    def body(self, *args: Any, **kwargs: Any) -> str | None: ...


def learn_call_syntaxes(
    turns: Turns, thought: ThoughtSyntax, content: tuple[str, str], end: str
) -> tuple[tuple[CallSyntax, ...], str]:
    """The syntaxes of calls, the usual one first, and the marker that ends a turn of calls."""
    traits = turns.template.traits
    if not traits.prints_calls:
        return (), ""
    found = _main_syntax(turns, thought, content, end, traits.many_calls)
    if found is None:
        return (), ""
    main, call_end = found
    others = tuple(_special_syntaxes(turns, main, end, call_end))
    return (main, *others), call_end


def _main_syntax(
    turns: Turns, thought: ThoughtSyntax, content: tuple[str, str], end: str, many: bool
) -> tuple[CallSyntax, str] | None:
    named = turns.template.traits.call_ids == "named"
    ids = (f"functions.{NAME}:0", f"functions.{NAME2}:1") if named else (_ID, _ID2)
    first = probe_call(NAME, _FIRST, ids[0])
    second = probe_call(NAME2, _SECOND, ids[1])
    text = turns.body(calls=[first, second])
    if text is None:
        return None
    lexer = turns.lexer
    one = locate(lexer, text, NAME, _FIRST, ids[0])
    two = locate(lexer, text, NAME2, _SECOND, ids[1], one.end if one else 0)
    if one is None or two is None:
        return None
    pieces = _with_index(one.pieces, two.pieces)
    before = _strip_opening(lexer, text[: one.start], thought, content)
    middle, after = text[one.end : two.start], text[two.end :]
    after, call_end = _cut_end(lexer, after, middle, end, many)
    call_close = lexer.common_prefix(middle, after) if many else after
    rest = middle[len(call_close) :]
    call_open = lexer.common_suffix(before, rest) if many else ""
    syntax = CallSyntax(
        style=one.style,
        pieces=pieces,
        section_open=before[: len(before) - len(call_open)],
        call_open=call_open,
        call_close=call_close,
        separator=rest[: len(rest) - len(call_open)] if many else "",
        section_close=after[len(call_close) :],
        parallel=many,
        **one.details,
    )
    if syntax.style == "parameters":
        syntax = _with_typed_parameters(turns, syntax)
    elif syntax.style in ("python", "keyed"):
        syntax = _with_words(turns, syntax)
    syntax = replace(syntax, triggers=triggers_of(lexer, syntax))
    bare_after_content = not syntax.triggers and turns.template.traits.content_with_calls
    return replace(syntax, in_text=bare_after_content), call_end


def _strip_opening(
    lexer: Lexer, text: str, thought: ThoughtSyntax, content: tuple[str, str]
) -> str:
    """What stands before the first call, without an empty thought and empty content."""
    opened, closed = (re.escape(t.strip()) for t in (thought.open, thought.close))
    text = re.sub(rf"^\s*(?:{opened})?\s*{closed}\s*", "", text, count=1)
    if lexer.markers(content[0]):
        for marker in content:
            begin = text.find(marker.strip())
            if core(marker) and begin >= 0 and not core(text[:begin]):
                text = text[begin + len(marker.strip()) :]
    return text


def _cut_end(lexer: Lexer, after: str, middle: str, end: str, many: bool) -> tuple[str, str]:
    """The text after the last call up to the end of the turn, and the marker that ends it."""
    if not end:  # nothing ends the last turn
        return after.rstrip("\n"), ""
    if end in after:
        return after[: after.index(end)], end
    close = lexer.common_prefix(middle, after) if many else ""
    found = lexer.markers(after[len(close) :])
    if not found:
        return after.rstrip("\n"), ""
    position = after.rindex(found[-1])
    return after[:position], found[-1]


def triggers_of(lexer: Lexer, syntax: CallSyntax) -> tuple[str, ...]:
    """The markers that open a call in free text; none where a call is bare JSON or a bare name."""
    found: list[str] = []
    for text in (syntax.section_open, syntax.call_open):
        words = [atom for atom in lexer.atoms(text) if core(atom)]
        if words and core(text) not in ("[", "{"):
            found.append(words[0].strip())
            later = [w for w in words[1:] if w.startswith("<") and syntax.style == "parameters"]
            found += later[-1:]
    return tuple(dict.fromkeys(found))


def _with_index(one: tuple[Piece, ...], two: tuple[Piece, ...]) -> tuple[Piece, ...]:
    """Numbers that count the calls become a slot."""
    pieces: list[Piece] = []
    for left, right in zip(one, two, strict=False):
        if left.text == right.text or left.slot:
            pieces.append(left)
            continue
        split = re.split(r"\d+", left.text), re.split(r"\d+", right.text)
        if split[0] != split[1] or len(split[0]) != 2:
            return one
        lead, tail = split[0]
        pieces += [p for p in (Piece(lead), Piece(slot="index"), Piece(tail)) if p.text or p.slot]
    return tuple(pieces)


def _with_typed_parameters(turns: Turns, syntax: CallSyntax) -> CallSyntax:
    """Look at other values as well: some templates mark what is a string and what is JSON."""
    assert syntax.parameters is not None
    words = len(turns.lexer.atoms(syntax.parameters.close))
    before, close_json, python_words = [], syntax.parameters.close, False
    for value, shown in _OTHER_VALUES:
        text = turns.body(calls=[probe_call(NAME, {KEY: value}, _ID)]) or ""
        at = text.find(KEY)
        close = re.escape(syntax.parameters.close)
        found = re.search(f"(?:{shown})(?={close})", text[at:]) if at >= 0 else None
        if found is None:
            continue
        before.append(text[at + len(KEY) : at + found.start()])
        python_words = python_words or found.group() in ("True", "None")
        if value == _NUMBER:
            close_json = "".join(turns.lexer.atoms(text[at + found.end() :])[:words])
    if not before:
        return syntax
    parameters = replace(
        syntax.parameters, after_key_json=tuple(dict.fromkeys(before)), close_json=close_json
    )
    return replace(syntax, parameters=parameters, python_words=python_words)


def _with_words(turns: Turns, syntax: CallSyntax) -> CallSyntax:
    """How truth values and awkward strings are printed."""
    text = turns.body(calls=[probe_call(NAME, {KEY: True}, _ID)]) or ""
    tricky = turns.body(calls=[probe_call(NAME, {KEY: _TRICKY}, _ID)]) or ""
    return replace(syntax, python_words="True" in text, escapes=_TRICKY not in tricky)


def _special_syntaxes(
    turns: Turns, main: CallSyntax, end: str, call_end: str
) -> Iterator[CallSyntax]:
    """Further ways of calling that the template knows for tools of its own."""
    template = turns.template
    if "builtin_tools" in template.variables:
        call = [probe_call(NAME, _FIRST, _ID)]
        text = turns.body(calls=call, settings={"builtin_tools": [NAME]}) or ""
        found = locate(turns.lexer, text, NAME, _FIRST, _ID)
        opened = text[: found.start] if found else ""
        if found and core(opened) and core(opened) != core(main.first_open):
            special = CallSyntax(
                style=found.style,
                pieces=found.pieces,
                call_open=opened,
                parallel=False,
                **found.details,
            )
            yield replace(special, triggers=triggers_of(turns.lexer, special))
            if main.style == "json_object":  # the same marker also stands before usual calls
                yield replace(main, call_open=opened, triggers=triggers_of(turns.lexer, special))
    if "python" in template.attributes:
        text = turns.body(calls=[probe_call("python", _FIRST, _ID)]) or ""
        span = json_span(text, _FIRST, 0)
        opened = text[: span[0]] if span else ""
        found_tags = turns.lexer.markers(opened)
        if span and len(found_tags) == 1 and "python" not in opened.replace(found_tags[0], ""):
            special = CallSyntax(
                style="name_then_json",
                pieces=(Piece(slot="arguments"),),
                call_open=opened,
                parallel=main.parallel,
                fixed_name="python",
            )
            yield replace(special, triggers=triggers_of(turns.lexer, special))
