"""Readers of arguments written as literals: Python keywords, and objects without quoted keys."""

import json
import re
from typing import Any

from server.chat.deltas import Collector
from server.chat.fragments import ObjectFragments
from server.chat.scan import Markers, Status, skip_space
from server.chat.schema import ToolSchemas, literal

_KEYWORD = re.compile(r"\s*([\w.\-]+)\s*=\s*(.*)", re.DOTALL)


class PythonArguments(ObjectFragments):
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


class KeyedArguments(ObjectFragments):
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
