"""Nodes as Lark text for llguidance, whose lexer is greedy and whose parser is Earley's.

A `Token` becomes one terminal, so JSON's own tokens are the lexemes: none of them can be extended
by what may follow it, which is why greed changes nothing. Other literals and character sets are
lexemes of their own. A `Rule` inside of a token is a terminal, elsewhere a rule.
"""

from __future__ import annotations

from functools import lru_cache
from json.encoder import encode_basestring

from . import unroll
from .charset import CharSet
from .errors import LimitExceeded
from .except_text import ExceptPrinter
from .gbnf import bounds, identifier
from .json_text import quote as json_quote
from .nodes import Chars, Choice, Dfa, Except, Literal, Member, Node, Repeat, Rule, Sequence, Token


def print_lark(root: Node, max_bytes: int = 1_000_000) -> str:
    """The text of the grammar; its start rule is `start`."""
    return _Printer(max_bytes).run(root)


class _Printer:
    def __init__(self, max_bytes: int) -> None:
        self.lines: list[str] = []
        self.names: dict[int, str] = {}
        self.terminals: dict[int, str] = {}
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
        names = self.terminals if terminal else self.names
        known = names.get(id(rule))
        if known is None:
            hint = identifier(rule.hint).replace("-", "_")
            known = names[id(rule)] = self.fresh(hint.upper() if terminal else hint.lower())
            self.queue.append((known, rule.body, terminal))
            self.keep.append(rule)
        return known

    def named_text(self, text: str) -> str:
        name = self.fresh("N")
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
        kind = type(node)
        if kind is Rule:
            return self.names.get(id(node)) or self.name(node, False)  # type: ignore[arg-type]
        if isinstance(node, Token):
            body = node.body
            if type(body) is Literal:
                return quote(body.text)
            return self.known.get(id(body)) or self.token(body)
        if kind is Literal:
            return quote(node.text)  # type: ignore[union-attr]
        if isinstance(node, Sequence):
            items = [self.rule(i, 1 if type(i) is Member else 2) for i in node.items]
            text = " ".join(items) or '""'
            return f"({text})" if level > 1 and len(node.items) > 1 else text
        if isinstance(node, Repeat):
            text = self.rule(node.body, 2)
            return (f"({text})" if type(node.body) is Repeat else text) + bounds(node)
        if isinstance(node, Choice):
            text = " | ".join([self.rule(o, 1) for o in node.options])
            return f"({text})" if level else text
        if isinstance(node, Member):
            return self.member(node, level)
        if isinstance(node, Chars):
            return f"/{char_class(node.ranges)}/"
        return self.token(node)

    def member(self, node: Member, level: int) -> str:
        text = f"{quote(node.key)} {self.name(node.value, False)}"
        if node.comma:
            text = f'", " {text}'
        if not node.required:
            return f"({text})?"
        return f"({text})" if level > 1 else text

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
        if isinstance(node, Chars):
            return char_class(node.ranges), True
        if isinstance(node, Literal):
            escaped = "".join([_escape(c) for c in node.text])
            return (f"(?:{escaped})" if level > 1 and len(node.text) != 1 else escaped), True
        if isinstance(node, Rule):
            return self.terminals.get(id(node)) or self.name(node, True), False
        if isinstance(node, Sequence):
            return self.joined([self.part(i, 2) for i in node.items], "", " ", level > 1)
        if isinstance(node, Choice):
            return self.joined([self.part(o, 1) for o in node.options], "|", " | ", level > 0)
        if isinstance(node, Repeat):
            text, regex = self.part(node.body, 2)
            if type(node.body) is Repeat:
                text = f"(?:{text})" if regex else f"({text})"
            return text + bounds(node), regex
        if isinstance(node, Token):
            return self.part(node.body, level)
        if isinstance(node, Except):
            return self.excepts.text(node.texts), False
        assert isinstance(node, Dfa), "members stand between tokens"
        key = (id(node.automaton), node.escaped)
        if key not in self.automata:
            self.automata[key] = unroll.regular(node.automaton, node.escaped)
        return self.part(self.automata[key], level)

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
    return encode_basestring(text)
