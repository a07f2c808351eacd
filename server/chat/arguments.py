"""Readers of a call's arguments in each style; all hand on fragments of one JSON object."""

import json
import re
from typing import Any, Protocol

from server.chat.deltas import Collector
from server.chat.json_stream import JsonValue
from server.chat.scan import Markers, Match, Status, match_core, skip_space
from server.chat.schema import ToolSchemas, argument_json, literal
from server.chat.syntax import CallSyntax, core

_KEY = re.compile(r"[^\s<>\"'=:,(){}\[\]/|]+")
_KEYWORD = re.compile(r"\s*([\w.\-]+)\s*=\s*(.*)", re.DOTALL)
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


class _Held:
    """Fragments, kept until the call is announced."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._held: list[str] | None = []

    def release(self) -> None:
        held, self._held = self._held, None
        if held:
            self._collector.arguments("".join(held))

    def _emit(self, fragment: str) -> None:
        if self._held is None:
            self._collector.arguments(fragment)
        else:
            self._held.append(fragment)


class JsonArguments(_Held):
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


class _Object(_Held):
    """Writes a JSON object key by key."""

    def __init__(self, collector: Collector) -> None:
        super().__init__(collector)
        self._count = 0

    def _key(self, key: str) -> None:
        lead = ", " if self._count else "{"
        self._count += 1
        self._emit(f"{lead}{json.dumps(key, ensure_ascii=False)}: ")

    def _end(self) -> None:
        self._emit("}" if self._count else "{}")


class ParameterArguments(_Object):
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


class PythonArguments(_Object):
    """key=literal, … up to the closing parenthesis (which is left to the caller).

    Where the template does not escape strings, a quote ends one only before , ) ] } or :.
    """

    def __init__(self, name: str, tools: ToolSchemas, collector: Collector, escapes: bool) -> None:
        super().__init__(collector)
        self._keys = tools.keys(name)
        self._escapes = escapes
        self._part: list[str] = []
        self._quote = ""
        self._escaped = False
        self._depth = 0

    def read(self, text: str, position: int, final: bool) -> tuple[int, Status]:
        start = position
        while position < len(text):
            char = text[position]
            if self._quote:
                may_end = char == self._quote and not self._escapes and not final
                if may_end and skip_space(text, position + 1) >= len(text):
                    break  # what follows decides
                self._in_quotes(text, position)
            elif char in "\"'":
                self._quote = char
            elif char in "([{":
                self._depth += 1
            elif char in ",)" and self._depth == 0:
                self._part.append(text[start:position])
                if not self._argument():
                    self._end()
                    return position, Status.FAILED
                if char == ")":
                    self._end()
                    return position, Status.DONE
                start = position + 1
            elif char in ")]}":
                self._depth -= 1
            position += 1
        self._part.append(text[start:position])
        return position, Status.MORE

    def _in_quotes(self, text: str, position: int) -> None:
        char = text[position]
        if self._escaped:
            self._escaped = False
        elif char == "\\" and self._escapes:
            self._escaped = True
        elif char == self._quote:
            following = text[skip_space(text, position + 1) :][:1]
            if self._escapes or following in ("", *",)]}:"):
                self._quote = ""

    def _argument(self) -> bool:
        part = "".join(self._part)
        self._part.clear()
        if not part.strip():
            return True
        match = _KEYWORD.fullmatch(part)
        if match:
            key, value = match.group(1), match.group(2)
        elif self._count < len(self._keys):
            key, value = self._keys[self._count], part
        else:
            return False
        self._key(key)
        self._emit(json.dumps(self._value(value.strip()), ensure_ascii=False))
        return True

    def _value(self, text: str) -> Any:
        if text[:1] in ("'", '"') and text[-1:] == text[:1] and len(text) > 1:
            if not self._escapes:
                return text[1:-1]
            is_literal, value = literal(f"({text})")
            return value if is_literal else text[1:-1]
        return literal(text)[1]


class KeyedArguments(_Object):
    """key:value, … up to the closing brace (left to the caller); strings between `quote` marks."""

    def __init__(self, quote: str, collector: Collector) -> None:
        super().__init__(collector)
        self._quote = quote
        self._marks = Markers([quote, *"{}[],"])
        self._part: list[str] = []
        self._quoted = False
        self._depth = 0

    def read(self, text: str, position: int, final: bool) -> tuple[int, Status]:
        while True:
            found = self._marks.search(text, position)
            if found is None:
                stop = len(text) if final else self._marks.safe_end(text, position)
                self._part.append(text[position:stop])
                return stop, Status.MORE
            mark = found.group()
            self._part.append(text[position : found.start()])
            if mark == self._quote:
                self._quoted = not self._quoted
            elif not self._quoted and self._depth == 0 and mark in ",}":
                if not self._argument():
                    self._end()
                    return found.start(), Status.FAILED
                if mark == "}":
                    self._end()
                    return found.start(), Status.DONE
                position = found.end()
                continue
            elif not self._quoted:
                self._depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(mark, 0)
            self._part.append(mark)
            position = found.end()

    def _argument(self) -> bool:
        part = "".join(self._part).strip()
        self._part.clear()
        if not part:
            return True
        parsed = _Keyed(part, self._quote)
        key = parsed.key()
        if not key or not parsed.take(":"):
            return False
        self._key(key)
        is_json, value = literal(parsed.rest())
        self._emit(json.dumps(value if is_json else parsed.value(), ensure_ascii=False))
        return True


class _Keyed:
    """Parses one `key:value` of the keyed style."""

    def __init__(self, text: str, quote: str) -> None:
        self._text = text
        self._quote = quote
        self._at = 0

    def take(self, mark: str) -> bool:
        self._at = skip_space(self._text, self._at)
        if not self._text.startswith(mark, self._at):
            return False
        self._at += len(mark)
        return True

    def rest(self) -> str:
        return self._text[self._at :]

    def key(self) -> str:
        if self.take(self._quote):
            return self._quoted()
        end = self._text.find(":", self._at)
        key = self._text[self._at : end].strip() if end >= 0 else ""
        self._at = end if end >= 0 else len(self._text)
        return key.strip("\"'")

    def _quoted(self) -> str:
        end = self._text.find(self._quote, self._at)
        end = len(self._text) if end < 0 else end
        found = self._text[self._at : end]
        self._at = end + len(self._quote)
        return found

    def value(self, depth: int = 0) -> Any:
        if depth > 64:
            self._at = len(self._text)
            return None
        if self.take(self._quote):
            return self._quoted()
        if self.take("{"):
            return self._object(depth)
        if self.take("["):
            return self._list(depth)
        start = self._at
        while self._at < len(self._text) and self._text[self._at] not in ",]}":
            self._at += 1
        word = self._text[start : self._at].strip()
        return literal(word)[1]

    def _object(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while self._at < len(self._text) and not self.take("}"):
            key = self.key()
            if not self.take(":"):
                break
            found[key] = self.value(depth + 1)
            self.take(",")
        return found

    def _list(self, depth: int) -> list[Any]:
        found: list[Any] = []
        while self._at < len(self._text) and not self.take("]"):
            start = self._at
            found.append(self.value(depth + 1))
            if not self.take(",") and self._at == start:
                break
        return found
