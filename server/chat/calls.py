"""Learn how a template writes tool calls: locate the name and the arguments in what it prints."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from server.chat.syntax import (
    CallSyntax,
    Lexer,
    ParameterSyntax,
    Piece,
    Style,
    ThoughtSyntax,
    core,
)
from server.chat.traits import KEY, KEY2, NAME, NAME2, VALUE, VALUE2, Message, probe_call

_DECODER = json.JSONDecoder()
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


class Core(Struct, frozen=True):
    """One call located in a text: [start, end) from its first slot to its last."""

    start: int
    end: int
    style: Style
    pieces: tuple[Piece, ...]
    details: dict[str, Any]


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
    if end and end in after:
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


def locate(
    lexer: Lexer, text: str, name: str, arguments: Message, call_id: str, start: int = 0
) -> Core | None:
    """Where the call of `name` with `arguments` stands in `text` after `start`."""
    span = _json_span(text, arguments, start)
    if span is not None:
        begin, end, encoded = span
        return _in_object(text, name, begin, end, call_id, start, encoded) or _name_first(
            text, name, begin, end, call_id, start, encoded
        )
    return _by_parts(lexer, text, name, arguments, start)


def _json_span(text: str, arguments: Message, start: int) -> tuple[int, int, bool] | None:
    """The arguments as a JSON object, or as JSON in a JSON string."""
    limit = text.find(next(iter(arguments)), start)
    for opening in ("{", '"'):
        position = text.rfind(opening, start, limit)
        while position >= start and position >= 0:
            value, end = _decode(text, position)
            if value == arguments:
                return position, end, False
            if isinstance(value, str) and _decode(value, 0)[0] == arguments:
                return position, end, True
            position = text.rfind(opening, start, position)
    return None


def _decode(text: str, position: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, position)
    except ValueError:
        return None, position


def _in_object(
    text: str, name: str, begin: int, end: int, call_id: str, start: int, encoded: bool
) -> Core | None:
    """The call as one JSON object that holds both the name and the arguments."""
    position, found = text.rfind("{", start, begin), None
    value, _ = _decode(text, begin)
    while position >= start and position >= 0:
        whole, stop = _decode(text, position)
        if isinstance(whole, dict) and stop >= end:
            path = _path_to(whole, value)
            if path is None or _NAMES(whole, name) is None:
                if found is not None or path is None:
                    break
            else:
                found = (position, stop, whole, path)
        position = text.rfind("{", start, position)
    if found is None:
        return None
    position, stop, whole, path = found
    is_key = path[-1] == name
    pieces = _pieces(text, position, stop, begin, end, name, call_id)
    details: dict[str, Any] = {
        "arguments_path": path,
        "name_path": () if is_key else _path_to(whole, name),
        "id_path": _path_to(whole, call_id) or (),
        "name_is_key": is_key,
        "encoded": encoded,
    }
    return Core(position, stop, "json_object", pieces, details)


def _NAMES(whole: Message, name: str) -> tuple[str, ...] | None:  # noqa: N802
    if name in whole:
        return (name,)
    return _path_to(whole, name)


def _path_to(value: Any, target: Any) -> tuple[str, ...] | None:
    """The keys that lead to `target` through objects."""
    if not isinstance(value, dict):
        return None
    for key, item in value.items():
        if type(item) is type(target) and item == target:
            return (key,)
        deeper = _path_to(item, target)
        if deeper is not None:
            return (key, *deeper)
    return None


def _name_first(
    text: str, name: str, begin: int, end: int, call_id: str, start: int, encoded: bool
) -> Core | None:
    """The name (and an id), then the arguments as JSON."""
    at = text.rfind(name, start, begin)
    if at < 0:
        return None
    first = at
    if call_id and not call_id.startswith("functions."):
        before = text.find(call_id, start, at)
        first = before if before >= 0 else at
    pieces = _pieces(text, first, end, begin, end, name, call_id)
    return Core(first, end, "name_then_json", pieces, {"encoded": encoded})


def _pieces(
    text: str, first: int, last: int, begin: int, end: int, name: str, call_id: str
) -> tuple[Piece, ...]:
    """Cut text[first:last] at the name, the id and the arguments [begin, end)."""
    cuts: list[tuple[int, int, Any]] = [(begin, end, "arguments")]
    at = text.rfind(name, first, begin)
    at = at if at >= 0 else text.find(name, end, last)
    cuts.append((at, at + len(name), "name"))
    if call_id and not call_id.startswith("functions."):
        spot = text.find(call_id, first, last)
        if spot >= 0:
            cuts.append((spot, spot + len(call_id), "id"))
    pieces: list[Piece] = []
    position = first
    for left, right, slot in sorted(cuts):
        if left > position:
            pieces.append(Piece(text[position:left]))
        pieces.append(Piece(slot=slot))
        position = right
    if position < last:
        pieces.append(Piece(text[position:last]))
    return tuple(pieces)


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


def _by_parts(lexer: Lexer, text: str, name: str, arguments: Message, start: int) -> Core | None:
    """The name, then each argument on its own: markers, keywords or an object without quotes."""
    (key, value), (key2, value2) = arguments.items()
    at = text.find(name, start)
    spots = [at]
    for word in (key, value, key2, value2):
        spots.append(text.find(word, spots[-1]))
    if at < 0 or min(spots) < 0:
        return None
    after_name = text[at + len(name) : spots[1]]
    between = text[spots[1] + len(key) : spots[2]]
    joint = text[spots[2] + len(value) : spots[3]]
    rest = text[spots[4] + len(value2) :]
    keyword = re.fullmatch(r"\s*=\s*([\"'])", between)
    if keyword and after_name.rstrip().endswith("("):
        return _bracketed(text, at, name, after_name, rest, ")", "python", keyword.group(1))
    labelled = re.fullmatch(r"\s*:\s*(\S+)", between)
    if labelled and after_name.rstrip().endswith("{") and joint.startswith(labelled.group(1)):
        return _bracketed(text, at, name, after_name, rest, "}", "keyed", labelled.group(1))
    return _marked(lexer, text, at, after_name, between, joint, rest)


def _bracketed(
    text: str,
    at: int,
    name: str,
    after_name: str,
    rest: str,
    bracket: str,
    style: Style,
    quote: str,
) -> Core | None:
    close = rest.find(bracket)
    if close < 0:
        return None
    end = len(text) - len(rest) + close + 1
    pieces = (Piece(slot="name"), Piece(after_name), Piece(slot="arguments"), Piece(bracket))
    return Core(at, end, style, pieces, {"quote": quote})


def _marked(
    lexer: Lexer, text: str, at: int, after_name: str, between: str, joint: str, rest: str
) -> Core | None:
    close = lexer.common_prefix(joint, rest)
    remains = joint[len(close) :]
    opened = lexer.common_suffix(after_name, remains)
    if not core(opened + between) or not core(close):
        return None
    parameters = ParameterSyntax(
        open=opened,
        after_key=between,
        close=close,
        separator=remains[: len(remains) - len(opened)],
        after_key_json=(between,),
        close_json=close,
    )
    lead = after_name[: len(after_name) - len(opened)]
    end = len(text) - len(rest) + len(close)
    pieces = [Piece(slot="name"), Piece(lead), Piece(slot="arguments")]
    shown = tuple(piece for piece in pieces if piece.text or piece.slot)
    return Core(at, end, "parameters", shown, {"parameters": parameters})


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
        span = _json_span(text, _FIRST, 0)
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


def stated_syntaxes(lexer: Lexer, prompt: str, without: str) -> Sequence[CallSyntax]:
    """For templates that list tools but print no calls: shapes suggested by their markers.

    `prompt` is the prompt with tools, `without` the one without.
    """
    said = [tag for tag in lexer.markers(prompt) if tag not in without]
    if "<tool_call>" in said:
        return (GENERIC,)
    for tag in said:
        if re.fullmatch(r"[<\[]\|?(tool|function)_?calls?\|?[>\]]", tag, re.IGNORECASE):
            close = re.sub(r"^([<\[]\|?)", r"\1/", tag)
            return _list_syntaxes(tag, close if close in said else "", "json_object")
    for tag in said:
        close = tag.replace("tool", "/tool")
        if re.fullmatch(r"<\|?tools?\|?>", tag) and "|" in tag and close in said:
            named = re.sub("tools?", "tool_call", tag)
            return _list_syntaxes(named, named.replace("tool", "/tool"), "json_object")
    for tag in said:
        match = re.fullmatch(r"<\|?tool_\w*?_?(start|begin)\|?>", tag)
        if match and tag.replace("start", "end").replace("begin", "end") in prompt:
            opened = re.sub(r"tool_\w*?_?(start|begin)", r"tool_call_\1", tag)
            closed = opened.replace("start", "end").replace("begin", "end")
            return _list_syntaxes(opened, closed, "python")
    return ()


def _list_syntaxes(opened: str, closed: str, style: Style) -> Sequence[CallSyntax]:
    """A list of JSON objects and a list of Python calls between the same markers."""
    shared = CallSyntax(
        style="json_object",
        pieces=(
            Piece('{"name": "'),
            Piece(slot="name"),
            Piece('", "arguments": '),
            Piece(slot="arguments"),
            Piece("}"),
        ),
        section_open=opened + "[",
        separator=", ",
        section_close="]" + closed,
        triggers=(opened,),
        name_path=("name",),
        arguments_path=("arguments",),
    )
    python = replace(
        shared,
        style="python",
        pieces=(Piece(slot="name"), Piece("("), Piece(slot="arguments"), Piece(")")),
        python_words=True,
        name_path=(),
        arguments_path=(),
    )
    return (python, shared) if style == "python" else (shared, python)


GENERIC = CallSyntax(
    style="json_object",
    pieces=(
        Piece('{"name": "'),
        Piece(slot="name"),
        Piece('", "arguments": '),
        Piece(slot="arguments"),
        Piece("}"),
    ),
    call_open="<tool_call>\n",
    call_close="\n</tool_call>",
    separator="\n",
    triggers=("<tool_call>",),
    name_path=("name",),
    arguments_path=("arguments",),
)
