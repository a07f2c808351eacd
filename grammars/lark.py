"""Nodes as Lark text for llguidance, whose lexer is greedy and whose parser is Earley's.

A `Token` becomes one terminal, so JSON's own tokens are the lexemes: none of them can be extended
by what may follow it, which is why greed changes nothing. Other literals and character sets are
lexemes of their own. A `Rule` inside of a token is a terminal, elsewhere a rule.
"""

from __future__ import annotations

import json

from . import unroll
from .charset import CharSet
from .errors import LimitExceeded
from .gbnf import identifier
from .nodes import Chars, Choice, Dfa, Literal, Node, Repeat, Rule, Sequence, Token, is_epsilon


def print_lark(root: Node, max_bytes: int = 4_000_000) -> str:
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
        self.automata: dict[tuple[int, bool], Node] = {}
        self.size, self.max_bytes = 0, max_bytes

    def run(self, root: Node) -> str:
        self.emit("start", self.rule_choice(root))
        while self.queue:
            name, body, terminal = self.queue.pop()
            text = self.term(body, 0) if terminal else self.rule_choice(body)
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
        return self.names[key]

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

    def rule_choice(self, node: Node) -> str:
        if isinstance(node, Choice):
            return " | ".join(self.rule_sequence(o) for o in node.options)
        return self.rule_sequence(node)

    def rule_sequence(self, node: Node) -> str:
        items = node.items if isinstance(node, Sequence) else (node,)
        return " ".join(self.rule_item(i) for i in items) or '""'

    def rule_item(self, node: Node) -> str:
        match node:
            case Literal(text):
                return quote(text)
            case Chars(ranges):
                return f"/{char_class(ranges)}/"
            case Rule():
                return self.name(node, False)
            case Token(Literal(text)):
                return quote(text)
            case Token(body):
                return self.token(body)
            case Dfa():
                return self.token(node)
            case Repeat(body, low, high):
                text = self.rule_item(body)
                return f"({text}){_bounds(low, high)}" if isinstance(body, Repeat) else (
                    text + _bounds(low, high)
                )
        return '""' if is_epsilon(node) else f"({self.rule_choice(node)})"

    def token(self, body: Node) -> str:
        text = self.term(body, 0)
        if text not in self.tokens:
            self.tokens[text] = self.fresh("T")
            self.emit(self.tokens[text], text)
        return self.tokens[text]

    # ------------------------------------------------------------------ terminals

    def term(self, node: Node, level: int) -> str:
        """`level`: 0 alternatives may stand bare, 1 sequences may, 2 one item."""
        regex = regex_text(node, 0)
        if regex is not None:
            return f"/{regex}/" if regex else '""'
        match node:
            case Rule():
                return self.name(node, True)
            case Token(body):
                return self.term(body, level)
            case Dfa(automaton, escaped):
                key = (id(automaton), escaped)
                if key not in self.automata:
                    self.automata[key] = unroll.regular(automaton, escaped)
                return self.term(self.automata[key], level)
            case Repeat(body, low, high):
                return self.term(body, 2) + _bounds(low, high)
            case Sequence(items):
                text = " ".join(self.term(i, 1 if len(items) == 1 else 2) for i in items)
                return f"({text})" if level > 1 else text
            case Choice(options):
                text = " | ".join(self.term(o, 1) for o in options)
                return f"({text})" if level else text
        raise TypeError(f"{type(node).__name__} inside a token")


def regex_text(node: Node, level: int) -> str | None:
    """A regular expression in Rust's syntax, or None where a rule or automaton is involved."""
    match node:
        case Literal(text):
            escaped = "".join(_escape(c, _SPECIAL) for c in text)
            return f"(?:{escaped})" if level > 1 and len(text) != 1 else escaped
        case Chars(ranges):
            return char_class(ranges)
        case Token(body):
            return regex_text(body, level)
        case Repeat(body, low, high):
            inner = regex_text(body, 2)
            if inner is None:
                return None
            if isinstance(body, Repeat):
                inner = f"(?:{inner})"
            return inner + _bounds(low, high)
        case Sequence(items) | Choice(items):
            bare = isinstance(node, Choice)
            parts = [regex_text(i, 0 if bare else 1) for i in items]
            if any(p is None for p in parts):
                return None
            text = ("|" if bare else "").join(p for p in parts if p is not None)
            return f"(?:{text})" if level > (0 if bare else 1) else text
    return None


_SPECIAL = "\\.+*?()|[]{}^$#&-~/"


def _escape(char: str, special: str) -> str:
    if char in special:
        return "\\" + char
    return char if char == " " or (char.isprintable() and ord(char) > 32) else f"\\x{{{ord(char):X}}}"


def char_class(ranges: CharSet) -> str:
    parts = []
    for low, high in ranges:
        parts.append(_escape(chr(low), _SPECIAL))
        if high > low:
            parts.append(("-" if high > low + 1 else "") + _escape(chr(high), _SPECIAL))
    return f"[{''.join(parts)}]"


def quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _bounds(low: int, high: int | None) -> str:
    simple = {(0, 1): "?", (0, None): "*", (1, None): "+"}
    if (low, high) in simple:
        return simple[low, high]
    if high is None:
        return f"{{{low},}}"
    return f"{{{low}}}" if low == high else f"{{{low},{high}}}"
