"""Readers of one tool call each: from behind its opening marker to the end of its arguments.

A reader looks at every character once. Until it has told the collector of a call, the text may
turn out to be none (`Status.FAILED`): the parser then passes it on as content.
"""

import json
import re
from typing import Protocol

from server.chat.arguments import ArgumentsReader, JsonArguments, arguments_reader
from server.chat.deltas import Collector
from server.chat.json_stream import JsonValue
from server.chat.scan import Match, Status, match_core, skip_space
from server.chat.schema import ToolSchemas
from server.chat.syntax import CallSyntax, Piece, core

_NAME = re.compile(r"[\w.\-]+")
_ARGUMENT_KEYS = ("arguments", "parameters")
_LONGEST_NAME = 256


class CallReader(Protocol):
    def read(self, text: str, position: int, final: bool) -> tuple[int, Status]: ...


def call_reader(
    syntax: CallSyntax, tools: ToolSchemas, collector: Collector, bare: bool
) -> CallReader:
    """`bare`: nothing announced the call, so it counts only if it names a function exactly so."""
    if syntax.style == "json_object":
        return ObjectReader(syntax, tools, collector, bare)
    return PiecesReader(syntax, tools, collector, bare)


class ObjectReader:
    """A call as one JSON object, its keys in any order."""

    def __init__(
        self, syntax: CallSyntax, tools: ToolSchemas, collector: Collector, bare: bool
    ) -> None:
        self._syntax = syntax
        self._tools = tools
        self._collector = collector
        self._bare = bare
        self._path: list[str] = []
        self._want = "open"  # open, key, colon, value, inner, comma
        self._value: JsonValue | None = None
        self._text: list[str] = []
        self._role = ""  # of the value being read: key, name, id, arguments, other
        self._name = ""
        self._id = ""
        self._arguments: JsonArguments | None = None
        self._opened = False

    def read(self, text: str, position: int, final: bool) -> tuple[int, Status]:
        while True:
            if self._arguments is not None and self._role == "arguments":
                position, status = self._arguments.read(text, position, final)
                if status is not Status.DONE:
                    return position, status
                self._role, self._want = "", "comma"
            elif self._value is not None:
                position = self._read_value(self._value, text, position, final)
                if self._value is not None:
                    return position, Status.FAILED if self._value.failed else Status.MORE
                if self._bare and not self._plausible():
                    return position, Status.FAILED
            position = skip_space(text, position)
            if position >= len(text):
                return position, Status.MORE
            if self._want == "value" and self._open_value():
                continue
            status = self._structure(text[position])
            if status is Status.FAILED:
                return position, status
            position += 1
            if status is Status.DONE:
                return position, self._finish()

    def _structure(self, char: str) -> Status:
        """One character between values."""
        want = self._want
        if want in ("open", "inner") and char == "{":
            self._want = "key"
        elif want == "key" and char == '"':
            self._begin("key")
        elif want == "colon" and char == ":":
            self._want = "value"
        elif want in ("key", "comma") and char == "}":
            if not self._path:
                return Status.DONE
            self._path.pop()
            self._want = "comma"
        elif want == "comma" and char == ",":
            self._want = "key"
        else:
            return Status.FAILED
        return Status.MORE

    def _open_value(self) -> bool:
        """Begin to read the value of the last key; false where it is an object to look into."""
        path = tuple(self._path)
        role = self._role_of(path)
        if role == "inner":
            self._want = "inner"
            return False
        self._path.pop()
        if role == "arguments":
            if self._syntax.name_is_key:
                self._name = path[-1]
            self._role = role
            self._arguments = JsonArguments(self._collector, self._syntax.encoded)
            self._open_if_known(last=False)
        else:
            self._begin(role)
        return True

    def _role_of(self, path: tuple[str, ...]) -> str:
        syntax = self._syntax
        if syntax.name_is_key:
            return "arguments" if len(path) == len(syntax.arguments_path) else "inner"
        if path == syntax.name_path:
            return "name"
        if path == syntax.id_path:
            return "id"
        wanted = (syntax.name_path, syntax.arguments_path)
        is_argument_key = path == syntax.arguments_path or path[-1] in _ARGUMENT_KEYS
        at_their_place = path[:-1] == syntax.arguments_path[:-1] and self._arguments is None
        if is_argument_key and at_their_place:
            return "arguments"
        return "inner" if any(path == whole[: len(path)] for whole in wanted) else "other"

    def _begin(self, role: str) -> None:
        self._role = role
        self._value = JsonValue()
        self._text.clear()
        if role == "key":
            self._value.read('"', 0)

    def _read_value(self, value: JsonValue, text: str, position: int, final: bool) -> int:
        position, out = value.read(text, position, final)
        self._text.append(out)
        if value.done:
            self._value = None
            self._take("".join(self._text))
        return position

    def _take(self, text: str) -> None:
        role = self._role
        if role == "key":
            self._path.append(str(json.loads('"' + text)))
            self._want = "colon"
            return
        self._want = "comma"
        if role == "name" and text.lstrip().startswith('"'):
            self._name = str(json.loads(text))
        elif role == "id":
            found = json.loads(text)
            self._id = found if isinstance(found, str) else ""
        self._open_if_known(last=False)

    def _plausible(self) -> bool:
        """Of a bare object: its first key is one of the call's, its name one of the tools'."""
        if self._name and not self._tools.may_be(self._name):
            return False
        if self._role != "key" or self._opened or self._name:
            return True
        if self._syntax.name_is_key:
            return self._tools.may_be(self._path[-1])
        shown = "".join(piece.text for piece in self._syntax.pieces)
        return self._path[-1] in ("type", "id") or f'"{self._path[-1]}"' in shown

    def _open_if_known(self, last: bool) -> None:
        """Announce the call once name and id are known, or nothing more can be learned."""
        waits_for_id = bool(self._syntax.id_path) and not self._id and not last
        if self._opened or not self._name or waits_for_id:
            return
        if self._arguments is None and not last:
            return
        self._opened = True
        self._collector.open_call(self._name, self._id)
        if self._arguments is not None:
            self._arguments.release()

    def _finish(self) -> Status:
        self._open_if_known(last=True)
        if not self._opened:
            return Status.FAILED
        if self._arguments is None:
            self._collector.arguments("{}")
        return Status.DONE

    @property
    def opened(self) -> bool:
        return self._opened


class PiecesReader:
    """A call as literals and slots in a fixed order, the arguments in a syntax of their own."""

    def __init__(
        self, syntax: CallSyntax, tools: ToolSchemas, collector: Collector, bare: bool
    ) -> None:
        self._syntax = syntax
        self._tools = tools
        self._collector = collector
        self._bare = bare
        self._pieces = syntax.pieces
        self._index = 0
        self._name = syntax.fixed_name
        self._id = ""
        self._arguments: ArgumentsReader | None = None
        self._closed = False
        self.opened = False

    def read(self, text: str, position: int, final: bool) -> tuple[int, Status]:
        while self._index < len(self._pieces):
            piece = self._pieces[self._index]
            if piece.slot == "arguments":
                position, status = self._read_arguments(text, position, final)
            elif piece.slot is None:
                position, status = self._literal(piece, text, position, final)
            else:
                position, status = self._word(piece, text, position, final)
            if status is not Status.DONE:
                return position, status
        return position, Status.DONE

    def _read_arguments(self, text: str, position: int, final: bool) -> tuple[int, Status]:
        if self._arguments is None:
            if self._bare and not self._tools.may_be(self._name):
                return position, Status.FAILED
            if self._syntax.style == "name_then_json":
                # Only what looks like an object is announced as a call.
                position = skip_space(text, position)
                if position >= len(text):
                    return position, Status.MORE
                if text[position] not in '{"':
                    return position, Status.FAILED
            self._collector.open_call(self._name, self._id)
            self.opened = True
            self._arguments = arguments_reader(
                self._syntax, self._name, self._tools, self._collector
            )
            self._arguments.release()
        position, status = self._arguments.read(text, position, final)
        if status is Status.DONE:
            self._index += 1
        return position, status

    def _word(self, piece: Piece, text: str, position: int, final: bool) -> tuple[int, Status]:
        position = skip_space(text, position)
        match = _NAME.match(text, position)
        if match is None:
            return position, Status.MORE if position >= len(text) else Status.FAILED
        if match.end() == len(text) and not final:
            too_long = match.end() - position > _LONGEST_NAME
            return position, Status.FAILED if too_long else Status.MORE
        word, end = match.group(), match.end()
        if piece.slot == "name":
            suffix = core(self._next_literal()).rstrip("(")
            if suffix and suffix[0] in ".-_" and word.endswith(suffix):
                word, end = word[: -len(suffix)], end - len(suffix)
            self._name = word
        elif piece.slot == "id":
            self._id = word
        self._index += 1
        return end, Status.DONE

    def _next_literal(self) -> str:
        following = self._pieces[self._index + 1 : self._index + 2]
        return following[0].text if following else ""

    def _literal(self, piece: Piece, text: str, position: int, final: bool) -> tuple[int, Status]:
        """A literal; models may leave out an id with its marker, or a code fence."""
        position = skip_space(text, position)
        if position >= len(text) and core(piece.text) and not self._after_arguments():
            return position, Status.MORE
        found, end = match_core(text, position, core(piece.text))
        if found is Match.FULL:
            self._index += 1
            return end, Status.DONE
        if found is Match.PARTIAL and not final:
            return position, Status.MORE
        if self._after_arguments():
            self._index += 1
            return position, Status.DONE
        skipped = self._after_skipping_id(text, position)
        if skipped is Match.PARTIAL and not final:
            return position, Status.MORE
        if skipped is Match.FULL:
            self._index += 2
            return position, Status.DONE
        if self._syntax.style == "name_then_json" and text[position : position + 1] == "{":
            slots = [piece.slot for piece in self._pieces]
            self._index = slots.index("arguments")
            return position, Status.DONE
        return position, Status.FAILED

    def _after_arguments(self) -> bool:
        return any(piece.slot == "arguments" for piece in self._pieces[: self._index])

    def _after_skipping_id(self, text: str, position: int) -> Match:
        rest = self._pieces[self._index + 1 : self._index + 3]
        if len(rest) < 2 or rest[0].slot not in ("id", "index") or rest[1].slot is not None:
            return Match.NO
        return match_core(text, position, core(rest[1].text))[0]
