"""Read one JSON value as it arrives and hand on what is certain of it, mending what models do.

Linear: each character is looked at once. Mended: raw control characters in strings, a backslash
that escapes nothing, True/False/None, a word without quotes, a trailing comma. Anything else is a
failure where it stands.
"""

import json
import re

_PLAIN = re.compile(r'[^"\\\x00-\x1f]+')
_SPACE = re.compile(r"[ \t\r\n]+")
_WORD = re.compile(r"[A-Za-z]+")
_DIGITS = re.compile(r"[-+0-9.eE]+")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?")
_WORDS = {
    "true": "true",
    "false": "false",
    "null": "null",
    "True": "true",
    "False": "false",
    "None": "null",
}
_HEX = frozenset("0123456789abcdefABCDEF")
_LONGEST_TOKEN = 400  # of a number or a word


class JsonValue:
    """One value. `read` it until `done` or `failed`; what was handed on stays valid JSON so far."""

    __slots__ = ("_closers", "_comma", "_escape", "_out", "_token", "_want", "done", "failed")

    def __init__(self) -> None:
        self.done = False
        self.failed = False
        self._closers: list[str] = []
        self._want = "value"  # value, first, key, colon, next, string, name, number, word
        self._comma = ""  # a comma, kept back until something follows it
        self._escape = ""
        self._token = ""
        self._out: list[str] = []

    def read(self, text: str, position: int, final: bool = False) -> tuple[int, str]:
        """Consume `text` from `position`; returns where it stopped and what is now certain."""
        size = len(text)
        while position < size and not (self.done or self.failed):
            position = self._step(text, position)
        if final and not (self.done or self.failed) and self._token:
            self._end_token()
        out = "".join(self._out)
        self._out.clear()
        return position, out

    def closing(self) -> str:
        """What makes the text handed on so far a whole value; for one that has failed."""
        missing = {"colon": ": null", "value": "null", "number": "null", "word": "null"}
        gap = missing.get(self._want, "")
        if self._want in ("number", "word") and self._closers and self._closers[-1] == "]":
            gap = self._comma + gap
        return gap + "".join(reversed(self._closers))

    def _step(self, text: str, position: int) -> int:
        want = self._want
        if want in ("string", "name"):
            return self._in_string(text, position)
        if want in ("number", "word"):
            return self._in_token(text, position)
        space = _SPACE.match(text, position)
        if space:
            if self._comma:
                self._comma += space.group()
            else:
                self._out.append(space.group())
            return space.end()
        return self._structure(text[position], position)

    def _structure(self, char: str, position: int) -> int:
        want = self._want
        if char in "]}" and want in ("first", "next", "key") and self._closers:
            return self._close(char, position)
        if want == "next":
            return self._after_value(char, position)
        if want == "colon":
            return self._colon(char, position)
        if want == "key" or (want == "first" and self._closers[-1] == "}"):
            if char != '"':
                return self._fail(position)
            self._emit(char, "name")
            return position + 1
        return self._begin_value(char, position)

    def _after_value(self, char: str, position: int) -> int:
        if char != "," or self._comma:
            return self._fail(position)
        self._comma = ","
        self._want = "key" if self._closers[-1] == "}" else "first"
        return position + 1

    def _colon(self, char: str, position: int) -> int:
        if char != ":":
            return self._fail(position)
        self._emit(char, "value")
        return position + 1

    def _begin_value(self, char: str, position: int) -> int:
        if char == '"':
            self._emit(char, "string")
        elif char in "{[":
            self._emit(char, "first")
            self._closers.append("}" if char == "{" else "]")
        elif char.isascii() and (char.isdigit() or char == "-"):
            self._want = "number"
            return position
        elif char.isascii() and char.isalpha():
            self._want = "word"
            return position
        else:
            return self._fail(position)
        return position + 1

    def _close(self, char: str, position: int) -> int:
        if char != self._closers[-1]:
            return self._fail(position)
        self._comma = ""
        self._closers.pop()
        self._emit(char, "next")
        self.done = not self._closers
        return position + 1

    def _emit(self, text: str, want: str) -> None:
        if self._comma:
            self._out.append(self._comma)
            self._comma = ""
        self._out.append(text)
        self._want = want

    def _fail(self, position: int) -> int:
        self.failed = True
        return position

    def _in_string(self, text: str, position: int) -> int:
        if self._escape:
            return self._in_escape(text[position], position)
        plain = _PLAIN.match(text, position)
        if plain:
            self._out.append(plain.group())
            return plain.end()
        char = text[position]
        if char == '"':
            self._out.append(char)
            self._want = "colon" if self._want == "name" else "next"
            self.done = not self._closers
        elif char == "\\":
            self._escape = char
        else:
            self._out.append(
                {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char, f"\\u{ord(char):04x}")
            )
        return position + 1

    def _in_escape(self, char: str, position: int) -> int:
        escape = self._escape + char
        if len(escape) == 2:
            if char == "u":
                self._escape = escape
                return position + 1
            self._escape = ""
            if char in '"\\/bfnrt':
                self._out.append(escape)
                return position + 1
            self._out.append("" if char == "'" else "\\\\")
            return position
        if char not in _HEX:
            self._out.append("\\" + self._escape)
            self._escape = ""
            return position
        self._escape = escape
        if len(escape) == 6:
            self._out.append(escape)
            self._escape = ""
        return position + 1

    def _in_token(self, text: str, position: int) -> int:
        pattern = _DIGITS if self._want == "number" else _WORD
        match = pattern.match(text, position)
        if match and len(self._token) + len(match.group()) <= _LONGEST_TOKEN:
            self._token += match.group()
            return match.end()
        self._end_token()
        return position

    def _end_token(self) -> None:
        token = self._token
        if self._want == "number":
            value = token if _NUMBER.fullmatch(token) else ""
        else:
            value = _WORDS.get(token) or json.dumps(token)  # a string without its quotes
        if not value:
            self.failed = True
            return
        self._token = ""
        self._emit(value, "next")
        self.done = not self._closers
