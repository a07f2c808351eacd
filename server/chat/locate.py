"""Find one call in what a template printed: its name, its arguments, and the literals between."""

import json
import re
from typing import Any

from msgspec import Struct

from server.chat.syntax import Lexer, ParameterSyntax, Piece, Style, core
from server.chat.traits import Message

_DECODER = json.JSONDecoder()


class Core(Struct, frozen=True):
    """One call located in a text: [start, end) from its first slot to its last."""

    start: int
    end: int
    style: Style
    pieces: tuple[Piece, ...]
    details: dict[str, Any]


def locate(
    lexer: Lexer, text: str, name: str, arguments: Message, call_id: str, start: int = 0
) -> Core | None:
    """Where the call of `name` with `arguments` stands in `text` after `start`."""
    span = json_span(text, arguments, start)
    if span is not None:
        begin, end, encoded = span
        return _in_object(text, name, begin, end, call_id, start, encoded) or _name_first(
            text, name, begin, end, call_id, start, encoded
        )
    return _by_parts(lexer, text, name, arguments, start)


def json_span(text: str, arguments: Message, start: int) -> tuple[int, int, bool] | None:
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
