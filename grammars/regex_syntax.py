"""ECMA-262 regular expressions (Unicode mode, with the usual leniencies) to a syntax tree.

Leniencies of Annex B that schemas in the wild need: `\\-` and other escaped punctuation, a
literal `{`, `}` or `]`, and `-` beside a class escape inside brackets.
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import lru_cache

from msgspec import Struct

from . import charset
from .charset import CharSet
from .errors import UnsupportedPattern
from .memo import memo


class Set(Struct, frozen=True, gc=False):
    ranges: CharSet


class Concat(Struct, frozen=True, gc=False):
    items: tuple[Regex, ...]


class Either(Struct, frozen=True, gc=False):
    options: tuple[Regex, ...]


class Loop(Struct, frozen=True, gc=False):
    body: Regex
    min: int
    max: int | None


class Anchor(Struct, frozen=True, gc=False):
    """`kind` is one of ^ $ b B."""

    kind: str


class Look(Struct, frozen=True, gc=False):
    body: Regex
    ahead: bool
    negative: bool


Regex = Set | Concat | Either | Loop | Anchor | Look

DOT = charset.complement(charset.LINE_ENDS)
MAX_COUNT = 100_000
MAX_NESTING = 60
_CONTROL = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13}
_ANY = Set(DOT)
_QUANTIFIERS = frozenset("*+?{")
_LOOKS = {
    "(?=": (True, False), "(?!": (True, True), "(?<=": (False, False), "(?<!": (False, True)
}  # fmt: skip
_SHORT_BOUNDS: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_BRACKET = re.compile(r"\[(?:\\.|[^\]\\])*\]", re.DOTALL)
_CLASSES = {"d": charset.DIGIT, "w": charset.WORD, "s": charset.SPACE}


def parse(pattern: str) -> Regex:
    """Raises UnsupportedPattern with the offset of what is wrong or not regular."""
    parser = _Parser(pattern)
    tree = parser.alternatives()
    if parser.at < len(pattern):
        raise parser.error("unmatched ')'")
    return tree


class _Parser:
    def __init__(self, text: str) -> None:
        self.text, self.at, self.depth = text, 0, -1

    def error(self, reason: str) -> UnsupportedPattern:
        return UnsupportedPattern(self.text, self.at, reason)

    def peek(self, count: int = 1) -> str:
        return self.text[self.at : self.at + count]

    def take(self, literal: str) -> bool:
        if self.text.startswith(literal, self.at):
            self.at += len(literal)
            return True
        return False

    def alternatives(self) -> Regex:
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise self.error(f"groups nested over {MAX_NESTING} deep")
        options = [self.concatenation()]
        while self.take("|"):
            options.append(self.concatenation())
        self.depth -= 1
        return options[0] if len(options) == 1 else Either(tuple(options))

    def concatenation(self) -> Regex:
        items: list[Regex] = []
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            items.append(self.quantified())
        return items[0] if len(items) == 1 else Concat(tuple(items))

    def quantified(self) -> Regex:
        start = self.at
        atom = self.atom()
        bounds = self.quantifier()
        if bounds is None:
            return atom
        if isinstance(atom, Anchor) or (isinstance(atom, Look) and not atom.ahead):
            self.at = start
            raise self.error("an assertion cannot be repeated")
        self.take("?")  # laziness does not change the language
        again = self.at
        if self.quantifier() is not None:
            self.at = again
            raise self.error("nothing to repeat")
        low, high = bounds
        if high is not None and high < low:
            raise self.error("repetition bounds out of order")
        return Loop(atom, low, high)

    def quantifier(self) -> tuple[int, int | None] | None:
        char = self.text[self.at : self.at + 1]
        if char not in _QUANTIFIERS:
            return None
        if char != "{":
            self.at += 1
            return _SHORT_BOUNDS[char]
        end = self.text.find("}", self.at)
        low, comma, high = self.text[self.at + 1 : end].partition(",") if end > 0 else ("", "", "")
        if not (low.isascii() and low.isdigit()):
            return None
        if high and not (high.isascii() and high.isdigit()):
            return None
        if max(int(low), int(high or 0)) > MAX_COUNT:
            raise self.error(f"repetition over {MAX_COUNT}")
        self.at = end + 1
        return int(low), int(high) if high else (None if comma else int(low))

    def atom(self) -> Regex:
        char = self.text[self.at]
        if char in "*+?":
            raise self.error("nothing to repeat")
        if char == "(":
            return self.group()
        if char == "[":
            return Set(self.bracket())
        if char == "\\":
            return self.escape()
        self.at += 1
        if char in "^$":
            return Anchor(char)
        return _ANY if char == "." else Set(charset.single(ord(char)))

    def group(self) -> Regex:
        start = self.at
        if self.take("(?:"):
            return self.body()
        for opening, (ahead, negative) in _LOOKS.items():
            if self.take(opening):
                return Look(self.body(), ahead, negative)
        if self.take("(?<"):
            end = self.text.find(">", self.at)
            if end < 0 or not self.text[self.at : end].isidentifier():
                raise self.error("bad group name")
            self.at = end + 1
            return self.body()
        if self.peek(2) == "(?":
            self.at = start
            raise self.error("unknown group syntax")
        self.at += 1
        return self.body()

    def body(self) -> Regex:
        tree = self.alternatives()
        if not self.take(")"):
            raise self.error("missing ')'")
        return tree

    def escape(self) -> Regex:
        after = self.text[self.at + 1 : self.at + 2]
        if after in ("b", "B"):
            self.at += 2
            return Anchor(after)
        if after.isdigit() and after != "0":
            raise self.error("a back-reference is not regular")
        if after == "k":
            raise self.error("a back-reference is not regular")
        return Set(self.class_escape())

    def class_escape(self) -> CharSet:
        """At a backslash: a class (\\d, \\p{..}) or a single character."""
        self.at += 1
        if self.at >= len(self.text):
            raise self.error("pattern ends in a backslash")
        char = self.text[self.at]
        self.at += 1
        if char.lower() in _CLASSES:
            ranges = _CLASSES[char.lower()]
            return ranges if char.islower() else charset.complement(ranges)
        if char in "pP":
            return self.unicode_property(char == "P")
        point = self.escaped_point(char)
        return charset.single(point)

    def escaped_point(self, char: str) -> int:
        if char in _CONTROL:
            return _CONTROL[char]
        if char == "0" and not self.peek().isdigit():
            return 0
        if char == "c" and self.peek().isascii() and self.peek().isalpha():
            self.at += 1
            return ord(self.text[self.at - 1]) % 32
        if char == "x":
            return self.hex_digits(2)
        if char == "u":
            return self.unicode_escape()
        if char.isalnum():
            self.at -= 2
            raise self.error(f"unknown escape \\{char}")
        return ord(char)

    def hex_digits(self, count: int) -> int:
        digits = self.peek(count)
        if len(digits) < count or any(d not in "0123456789abcdefABCDEF" for d in digits):
            raise self.error("bad hexadecimal escape")
        self.at += count
        return int(digits, 16)

    def unicode_escape(self) -> int:
        if self.take("{"):
            end = self.text.find("}", self.at)
            width = end - self.at
            if not 1 <= width <= 8:
                raise self.error("bad hexadecimal escape")
            point = self.hex_digits(width)
            self.at += 1
            if point > 0x10FFFF:
                raise self.error("code point out of range")
            return point
        point = self.hex_digits(4)
        if 0xD800 <= point < 0xDC00 and self.peek(2) == "\\u":
            back = self.at
            self.at += 2
            low = self.hex_digits(4) if self.peek() != "{" else 0
            if 0xDC00 <= low < 0xE000:
                return 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00)
            self.at = back
        return point

    def unicode_property(self, negated: bool) -> CharSet:
        end = self.text.find("}", self.at)
        if self.peek() != "{" or end < 0:
            raise self.error("bad property escape")
        name = self.text[self.at + 1 : end]
        ranges = charset.unicode_property(name)
        if ranges is None:
            raise self.error(f"unsupported Unicode property {name!r}")
        self.at = end + 1
        return _complement(ranges) if negated else ranges

    def bracket(self) -> CharSet:
        whole = _BRACKET.match(self.text, self.at)
        if whole is not None and len(whole[0]) < 1_000:
            with suppress(UnsupportedPattern):  # it is raised below, with its place
                ranges = _class(whole[0])
                self.at = whole.end()
                return ranges
        return self.brackets()

    def brackets(self) -> CharSet:
        self.at += 1
        negated = self.take("^")
        sets: list[CharSet] = []
        while not self.take("]"):
            if self.at >= len(self.text):
                raise self.error("missing ']'")
            low = self.bracket_atom()
            if self.peek() == "-" and self.peek(2) != "-]" and len(self.peek(2)) == 2:
                back = self.at
                self.at += 1
                high = self.bracket_atom()
                if _single(low) and _single(high):
                    if high[0][0] < low[0][0]:
                        self.at = back
                        raise self.error("character range out of order")
                    low = charset.intersect(((low[0][0], high[0][0]),), charset.UNIVERSE)
                else:
                    low = charset.union(low, charset.of("-"), high)
            sets.append(low)
        ranges = charset.union(*sets)
        return charset.complement(ranges) if negated else ranges

    def bracket_atom(self) -> CharSet:
        char = self.peek()
        if char == "\\":
            if self.peek(2) == "\\b":
                self.at += 2
                return ((8, 8),)
            if self.peek(2) == "\\-":
                self.at += 2
                return charset.of("-")
            return self.class_escape()
        self.at += 1
        return charset.single(ord(char))


@memo(lambda ranges, text: 100 + len(text) + 128 * len(ranges), 4_000_000)
def _class(text: str) -> CharSet:
    """The set of a bracket expression; patterns repeat theirs a lot."""
    return _Parser(text).brackets()


@lru_cache(maxsize=64)
def _complement(ranges: CharSet) -> CharSet:
    return charset.complement(ranges)


def _single(ranges: CharSet) -> bool:
    return len(ranges) == 1 and ranges[0][0] == ranges[0][1]
