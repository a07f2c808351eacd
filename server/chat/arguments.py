"""Readers of a call's arguments in each style; all hand on fragments of one JSON object."""

import json
import re
from typing import Protocol

from server.chat.deltas import Collector
from server.chat.fragments import HeldFragments, ObjectFragments
from server.chat.json_stream import JsonValue
from server.chat.literals import KeyedArguments, PythonArguments
from server.chat.scan import Markers, Match, Status, match_core, skip_space
from server.chat.schema import ToolSchemas, argument_json, literal
from server.chat.syntax import CallSyntax, core

_KEY = re.compile(r"[^\s<>\"'=:,(){}\[\]/|]+")
_STRING = frozenset({"string"})
_LONGEST_KEY = 256


class ArgumentsReader(Protocol):
    """`release` lets fragments go: before, they are kept (the call is not announced yet)."""

    def read(self, text: str, position: int, final: bool) -> tuple[int, Status]: ...

    def release(self) -> None: ...


def arguments_reader(
    syntax: CallSyntax, name: str, tools: ToolSchemas, collector: Collector
) -> ArgumentsReader:
    if syntax.style == "parameters":
        return ParameterArguments(syntax, name, tools, collector)
    if syntax.style == "python":
        return PythonArguments(name, tools, collector, syntax.escapes)
    if syntax.style == "keyed":
        return KeyedArguments(syntax.quote, collector)
    return JsonArguments(collector, syntax.encoded)


class JsonArguments(HeldFragments):
    """One JSON object, or a JSON string that holds one."""

    def __init__(self, collector: Collector, encoded: bool) -> None:
        super().__init__(collector)
        self._value = JsonValue()
        self._whole: list[str] | None = [] if encoded else None
        self._started = False

    def read(self, text: str, position: int, final: bool) -> tuple[int, Status]:
        if not self._started:
            position = skip_space(text, position)
            if position >= len(text):
                return position, Status.MORE
            self._started = True
            if text[position] != "{":
                self._whole = []  # decoded when it is complete
        position, out = self._value.read(text, position, final)
        if self._whole is None:
            self._emit(out)
        else:
            self._whole.append(out)
        if self._value.failed:
            if self._whole is None:
                self._emit(self._value.closing())  # what has been handed on must be JSON
            return position, Status.FAILED
        if not self._value.done:
            return position, Status.MORE
        if self._whole is not None:
            self._emit(_decoded("".join(self._whole)))
        return position, Status.DONE


def _decoded(text: str) -> str:
    """JSON that is no object: what a string holds, {} for null, itself otherwise."""
    value = json.loads(text)
    if value is None or value == "":
        return "{}"
    if isinstance(value, str):
        is_literal, inner = literal(value)
        return json.dumps(inner, ensure_ascii=False) if is_literal and inner != value else value
    return text


class ParameterArguments(ObjectFragments):
    """Arguments one by one between markers; a string's text is handed on as it arrives."""

    def __init__(
        self, syntax: CallSyntax, name: str, tools: ToolSchemas, collector: Collector
    ) -> None:
        super().__init__(collector)
        assert syntax.parameters is not None
        self._syntax = syntax.parameters
        self._name = name
        self._tools = tools
        self._open = core(self._syntax.open)
        self._want = "open"  # open, key, after_key, lead, value
        self._argument = ""
        self._types: frozenset[str] | None = None
        self._quoted: bool | None = None
        self._closes = Markers([self._syntax.close.strip(), self._syntax.close_json.strip()])
        close = self._syntax.close
        self._tail = close[: len(close) - len(close.lstrip())]  # belongs to the marker
        self._value: list[str] = []
        self._streams = False
        self._space = ""

    def read(self, text: str, position: int, final: bool) -> tuple[int, Status]:
        steps = {
            "open": self._read_open,
            "key": self._read_key,
            "after_key": self._read_after_key,
            "lead": self._read_lead,
            "value": self._read_value,
        }
        while True:
            position, status = steps[self._want](text, position, final)
            if status is not None:
                return position, status

    def _read_open(self, text: str, position: int, final: bool) -> tuple[int, Status | None]:
        position = skip_space(text, position)
        if position >= len(text):
            return position, Status.MORE
        for separator in dict.fromkeys((core(self._syntax.separator), "")):
            found, end = match_core(text, position, separator + self._open)
            if found is Match.FULL:
                self._want = "key"
                return end, None
            if found is Match.PARTIAL and not final:
                return position, Status.MORE
        self._end()
        return position, Status.DONE

    def _read_key(self, text: str, position: int, final: bool) -> tuple[int, Status | None]:
        position = skip_space(text, position)
        match = _KEY.match(text, position)
        if match is None and position >= len(text):
            return position, Status.MORE
        if match is None or match.end() - position > _LONGEST_KEY:
            self._end()
            return position, Status.FAILED
        if match.end() == len(text):
            return position, Status.MORE
        self._argument = match.group()
        self._want = "after_key"
        return match.end(), None

    def _read_after_key(self, text: str, position: int, final: bool) -> tuple[int, Status | None]:
        position = skip_space(text, position)
        as_text, end = match_core(text, position, core(self._syntax.after_key))
        others = [match_core(text, position, core(j)) for j in self._syntax.after_key_json]
        found = [as_text, *(match for match, _ in others)]
        if Match.FULL not in found:
            if Match.PARTIAL in found:
                return position, Status.MORE
            self._end()
            return position, Status.FAILED
        is_text = as_text is Match.FULL
        json_end = next((stop for match, stop in others if match is Match.FULL), end)
        self._quoted = is_text if self._syntax.typed else None
        self._types = self._tools.types(self._name, self._argument)
        self._streams = bool(self._quoted) or (self._quoted is None and self._types == _STRING)
        self._key(self._argument)
        if self._streams:
            self._emit('"')
        self._want = "lead"
        return end if is_text else json_end, None

    def _read_lead(self, text: str, position: int, final: bool) -> tuple[int, Status | None]:
        """The whitespace that belongs to the marker, and not to the value."""
        shown = self._syntax.after_key
        lead = shown[len(shown.rstrip()) :]
        rest = text[position : position + len(lead)]
        if len(rest) < len(lead) and lead.startswith(rest) and not final:
            return position, Status.MORE
        self._want = "value"
        return position + (len(lead) if rest == lead else 0), None

    def _read_value(self, text: str, position: int, final: bool) -> tuple[int, Status | None]:
        found = self._closes.search(text, position)
        stop = found.start() if found else self._closes.safe_end(text, position)
        if final and not found:
            stop = len(text)
        self._append(text[position:stop])
        if not found:
            return stop, Status.MORE
        self._close()
        self._want = "open"
        return found.end(), None

    def _append(self, piece: str) -> None:
        if not self._streams:
            self._value.append(piece)
            return
        body = piece.rstrip()
        if body:
            self._emit(json.dumps(self._space + body, ensure_ascii=False)[1:-1])
            self._space = piece[len(body) :]
        else:
            self._space += piece

    def _close(self) -> None:
        tail = self._tail
        if self._streams:
            space = self._space.removesuffix(tail) if tail else self._space
            self._emit(json.dumps(space, ensure_ascii=False)[1:-1] + '"')
        else:
            whole = "".join(self._value)
            whole = whole.removesuffix(tail) if tail else whole
            self._emit(argument_json(whole, self._types, self._quoted))
        self._value.clear()
        self._space = ""
