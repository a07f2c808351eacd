"""Nodes as Lark text for llguidance, whose lexer is greedy and whose parser is Earley's.

A `Token` becomes one terminal, so JSON's own tokens are the lexemes: none of them can be extended
by what may follow it, which is why greed changes nothing. Other literals and character sets are
lexemes of their own. A `Rule` inside of a token is a terminal, elsewhere a rule.
"""

from __future__ import annotations

import json
from functools import lru_cache

from . import unroll
from .charset import CharSet
from .errors import LimitExceeded
from .except_text import ExceptPrinter
from .gbnf import identifier
from .json_text import quote as json_quote
from .nodes import Chars, Choice, Dfa, Except, Literal, Node, Repeat, Rule, Sequence, Token


def print_lark(root: Node, max_bytes: int = 1_000_000) -> str:
    """The text of the grammar; its start rule is `start`."""
    return _Printer(max_bytes).run(root)


class _Printer:
    def __init__(self, max_bytes: int) -> None:
        self.lines: list[str] = []
        self.names: dict[tuple[int, bool], str] = {}
        self.taken: set[str] = {"start"}
        self.counts: dict[str, int] = {}
        self.queue: list[tuple[str, Node, bool]] = []
        self.tokens: dict[str, str] = {}
        self.known: dict[int, str] = {}
        self.keep: list[Node] = []  # so that no id is used twice
        self.automata: dict[tuple[int, bool], Node] = {}
        self.size, self.max_bytes = 0, max_bytes
        named = lambda rule: self.name(rule, True)  # noqa: E731
        self.excepts = ExceptPrinter(_json_character, named, self.named_text)

    def run(self, root: Node) -> str:
        self.emit("start", self.rule(root, 0))
        while self.queue:
            name, body, terminal = self.queue.pop()
            text = self.term(body, 0) if terminal else self.rule(body, 0)
            self.emit(name, text)
        return "\n".join(self.lines) + "\n"

    def emit(self, name: str, text: str) -> None:
        line = f"{name}: {text}"
        self.size += len(line)
        if self.size > self.max_bytes:
            raise LimitExceeded("", "", "text_bytes", f"the grammar is over {self.max_bytes}")
        self.lines.append(line)

    def name(self, rule: Rule, terminal: bool) -> str:
        key = (id(rule), terminal)
        if key not in self.names:
            hint = identifier(rule.hint).replace("-", "_")
            self.names[key] = self.fresh(hint.upper() if terminal else hint.lower())
            self.queue.append((self.names[key], rule.body, terminal))
            self.keep.append(rule)
        return self.names[key]

    def named_text(self, text: str) -> str:
        name = self.fresh("NAME")
        self.emit(name, text)
        return name

    def fresh(self, hint: str) -> str:
        number = self.counts.get(hint, 0)
        known = hint
        while known in self.taken:
            number += 1
            known = f"{hint}_{number}"
        self.counts[hint] = number
        self.taken.add(known)
        return known

    # ------------------------------------------------------------------ rules

    def rule(self, node: Node, level: int) -> str:
        """`level`: 0 alternatives may stand bare, 1 a sequence may, 2 a single item only."""
        match node:
            case Literal(text) | Token(Literal(text)):
                return quote(text)
            case Rule():
                return self.name(node, False)
            case Sequence(items):
                text = " ".join([self.rule(i, 2) for i in items]) or '""'
                return f"({text})" if level > 1 and len(items) > 1 else text
            case Choice(options):
                text = " | ".join([self.rule(o, 1) for o in options])
                return f"({text})" if level else text
            case Token(body):
                return self.token(body)
            case Chars(ranges):
                return f"/{char_class(ranges)}/"
            case Repeat(body, low, high):
                text = self.rule(body, 2)
                return (f"({text})" if isinstance(body, Repeat) else text) + _bounds(low, high)
        return self.token(node)

    def token(self, body: Node) -> str:
        key = id(body)
        if key not in self.known:
            text = self.term(body, 0)
            if text not in self.tokens:
                self.tokens[text] = self.fresh("T")
                self.emit(self.tokens[text], text)
            self.known[key] = self.tokens[text]
            self.keep.append(body)
        return self.known[key]

    # ------------------------------------------------------------------ terminals

    def term(self, node: Node, level: int) -> str:
        return _slashes(*self.part(node, level))

    def part(self, node: Node, level: int) -> tuple[str, bool]:
        """Text at a level as in `rule`, and whether it is the inside of a regular expression."""
        match node:
            case Literal(text):
                escaped = "".join([_escape(c) for c in text])
                return (f"(?:{escaped})" if level > 1 and len(text) != 1 else escaped), True
            case Chars(ranges):
                return char_class(ranges), True
            case Rule():
                return self.name(node, True), False
            case Sequence(items):
                return self.joined([self.part(i, 2) for i in items], "", " ", level > 1)
            case Choice(options):
                return self.joined([self.part(o, 1) for o in options], "|", " | ", level > 0)
            case Repeat(body, low, high):
                text, regex = self.part(body, 2)
                if isinstance(body, Repeat):
                    text = f"(?:{text})" if regex else f"({text})"
                return text + _bounds(low, high), regex
            case Token(body):
                return self.part(body, level)
            case Dfa(automaton, escaped):
                key = (id(automaton), escaped)
                if key not in self.automata:
                    self.automata[key] = unroll.regular(automaton, escaped)
                return self.part(self.automata[key], level)
            case Except(texts):
                return self.excepts.text(texts), False
        raise TypeError(f"{type(node).__name__} inside a token")

    @staticmethod
    def joined(
        parts: list[tuple[str, bool]], tight: str, loose: str, group: bool
    ) -> tuple[str, bool]:
        if all(regex for _, regex in parts):
            text = tight.join([text for text, _ in parts])
            return (f"(?:{text})" if group else text), True
        text = loose.join([_slashes(*part) for part in parts])
        return (f"({text})" if group else text), False


def _slashes(text: str, regex: bool) -> str:
    if not regex:
        return text
    return f"/{text}/" if text else '""'


_SPECIAL = "\\.+*?()|[]{}^$#&-~/"


@lru_cache(maxsize=4096)
def _escape(char: str) -> str:
    if char in _SPECIAL:
        return "\\" + char
    return (
        char if char == " " or (char.isprintable() and ord(char) > 32) else f"\\x{{{ord(char):X}}}"
    )


@lru_cache(maxsize=4096)
def _json_character(char: str) -> str:
    return quote(json_quote(char)[1:-1])


@lru_cache(maxsize=4096)
def char_class(ranges: CharSet) -> str:
    parts = []
    for low, high in ranges:
        parts.append(_escape(chr(low)))
        if high > low:
            parts.append(("-" if high > low + 1 else "") + _escape(chr(high)))
    return f"[{''.join(parts)}]"


@lru_cache(maxsize=4096)
def quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _bounds(low: int, high: int | None) -> str:
    simple = {(0, 1): "?", (0, None): "*", (1, None): "+"}
    if (low, high) in simple:
        return simple[low, high]
    if high is None:
        return f"{{{low},}}"
    return f"{{{low}}}" if low == high else f"{{{low},{high}}}"
