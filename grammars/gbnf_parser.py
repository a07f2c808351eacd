"""GBNF text to nodes, with line and column in every error."""

from __future__ import annotations

from dataclasses import dataclass, field

from . import charset, nodes
from .charset import CharSet
from .errors import GBNFSyntaxError
from .nodes import Chars, Choice, Node, Repeat, Rule, Sequence, Token

_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "[": "[", "]": "]", "-": "-"}
_HEX = {"x": 2, "u": 4, "U": 8}
MAX_REPEAT = 100_000
MAX_NESTING = 60
MAX_CHARACTERS = 1_000_000


def parse(text: str) -> Node:
    """The root of the grammar. A grammar without recursion becomes a single token; in the others
    every character is a lexeme of its own, so that greed cannot tell the two forms apart."""
    if len(text) > MAX_CHARACTERS:
        raise GBNFSyntaxError(1, 1, f"a grammar of over {MAX_CHARACTERS} characters")
    parser = _Parser(text)
    parser.rules()
    for name, (rule, offset) in parser.used.items():
        if name not in parser.defined:
            raise parser.error(f"rule {name!r} is not defined", offset)
        del rule
    if "root" not in parser.defined:
        raise parser.error("there is no rule named root", 0)
    recursive = _check_recursion(parser)
    root = parser.used["root"][0]
    return root if recursive else Token(root)


@dataclass(slots=True)
class _Parser:
    text: str
    at: int = 0
    depth: int = -1
    used: dict[str, tuple[Rule, int]] = field(default_factory=dict)
    defined: dict[str, int] = field(default_factory=dict)

    def error(self, reason: str, offset: int | None = None) -> GBNFSyntaxError:
        offset = self.at if offset is None else offset
        line = self.text.count("\n", 0, offset) + 1
        column = offset - (self.text.rfind("\n", 0, offset) + 1) + 1
        return GBNFSyntaxError(line, column, reason)

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def space(self, newlines: bool) -> None:
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            elif char in " \t" or (newlines and char in "\r\n"):
                self.at += 1
            else:
                break

    def rules(self) -> None:
        self.space(True)
        while self.at < len(self.text):
            start = self.at
            name = self.name()
            self.space(False)
            if not self.text.startswith("::=", self.at):
                raise self.error("expected ::=")
            self.at += 3
            self.space(True)
            if name in self.defined:
                raise self.error(f"rule {name!r} is defined twice", start)
            rule = self.rule(name, start)
            rule.body = self.alternatives(False)
            self.defined[name] = start
            if self.peek() not in ("", "\r", "\n"):
                raise self.error("expected the end of the line")
            self.space(True)

    def rule(self, name: str, offset: int) -> Rule:
        if name not in self.used:
            self.used[name] = (Rule(name), offset)
        return self.used[name][0]

    def name(self) -> str:
        start = self.at
        while self.peek() and self.peek() in _NAME:
            self.at += 1
        if self.at == start:
            raise self.error("expected a rule name")
        return self.text[start : self.at]

    def alternatives(self, nested: bool) -> Node:
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise self.error(f"groups nested over {MAX_NESTING} deep")
        options = [self.sequence(nested)]
        while self.peek() == "|":
            self.at += 1
            self.space(True)
            options.append(self.sequence(nested))
        self.depth -= 1
        return nodes.choice(*options)

    def sequence(self, nested: bool) -> Node:
        items: list[Node] = []
        while True:
            char = self.peek()
            if char and char in "*+?{":
                if not items:
                    raise self.error("nothing to repeat")
                low, high = self.bounds(nested)
                items[-1] = nodes.repeat(items[-1], low, high)
                self.space(nested)
                continue
            item = self.item(char)
            if item is None:
                return nodes.sequence(*items)
            items.append(item)
            self.space(nested)

    def item(self, char: str) -> Node | None:
        if char == '"':
            return self.string()
        if char == "[":
            return self.char_class()
        if char == "(":
            self.at += 1
            self.space(True)
            inner = self.alternatives(True)
            if self.peek() != ")":
                raise self.error("expected )")
            self.at += 1
            return inner
        if char == ".":
            self.at += 1
            return Chars(charset.UNIVERSE)
        if char and char in _NAME:
            start = self.at
            return self.rule(self.name(), start)
        return None

    def string(self) -> Node:
        """Character by character, see `parse`."""
        start = self.at
        self.at += 1
        items: list[Node] = []
        while self.peek() != '"':
            if not self.peek():
                raise self.error("a string without end", start)
            items.append(self.single(self.character()))
        self.at += 1
        return nodes.sequence(*items)

    def single(self, point: int) -> Node:
        ranges = charset.intersect(((point, point),), charset.UNIVERSE)
        if not ranges:
            raise self.error("a surrogate is not a character")
        return Chars(ranges)

    def char_class(self) -> Node:
        start = self.at
        self.at += 1
        negated = self.peek() == "^"
        self.at += negated
        ranges: list[tuple[int, int]] = []
        while self.peek() != "]":
            if not self.peek():
                raise self.error("a character class without end", start)
            low = high = self.character()
            if self.peek() == "-" and self.text[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                high = self.character()
            if high < low:
                raise self.error("character range out of order")
            ranges.append((low, high))
        self.at += 1
        found: CharSet = charset.intersect(charset.normalize(ranges), charset.UNIVERSE)
        found = charset.complement(found) if negated else found
        if not found:
            raise self.error("a character class that matches nothing", start)
        return Chars(found)

    def character(self) -> int:
        char = self.peek()
        self.at += 1
        if char != "\\":
            return ord(char)
        kind = self.peek()
        self.at += 1
        if kind in _HEX:
            digits = self.text[self.at : self.at + _HEX[kind]]
            if len(digits) < _HEX[kind] or not all(d in "0123456789abcdefABCDEF" for d in digits):
                raise self.error("bad hexadecimal escape")
            self.at += len(digits)
            if int(digits, 16) > 0x10FFFF:
                raise self.error("code point out of range")
            return int(digits, 16)
        if kind not in _ESCAPES or not kind:
            self.at -= 1
            raise self.error("unknown escape")
        return ord(_ESCAPES[kind])

    def bounds(self, nested: bool) -> tuple[int, int | None]:
        char = self.peek()
        self.at += 1
        if char in "*+?":
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[char]
        self.space(nested)
        low = self.integer()
        high: int | None = low
        self.space(nested)
        if self.peek() == ",":
            self.at += 1
            self.space(nested)
            high = self.integer() if self.peek().isdigit() else None
            self.space(nested)
        if self.peek() != "}":
            raise self.error("expected }")
        self.at += 1
        if high is not None and high < low:
            raise self.error("repetition bounds out of order")
        return low, high

    def integer(self) -> int:
        start = self.at
        while self.peek() and self.peek() in "0123456789":
            self.at += 1
        digits = self.text[start : self.at]
        if not digits or int(digits[:9]) > MAX_REPEAT or len(digits) > 9:
            raise self.error(f"expected a number up to {MAX_REPEAT}", start)
        return int(digits)


def _check_recursion(parser: _Parser) -> bool:
    """Whether a rule can be reached from itself; raises where that needs no character."""
    rules = {id(rule): rule for rule, _ in parser.used.values()}
    empty = _empty_rules(rules)
    left = _cycle({key: _next_rules(rule.body, True, empty) for key, rule in rules.items()})
    if left is not None:
        name = rules[left].hint
        raise parser.error(f"rule {name!r} is left-recursive", parser.defined[name])
    every = {key: _next_rules(rule.body, False, empty) for key, rule in rules.items()}
    return _cycle(every) is not None


def _empty_rules(rules: dict[int, Rule]) -> set[int]:
    """Rules that match the empty text; one is looked at again when another turns out to."""
    users: dict[int, list[Rule]] = {}
    for rule in rules.values():
        for used in _next_rules(rule.body, False, set()):
            users.setdefault(id(used), []).append(rule)
    empty: set[int] = set()
    stack = list(rules.values())
    while stack:
        rule = stack.pop()
        if id(rule) not in empty and _nullable(rule.body, empty):
            empty.add(id(rule))
            stack.extend(users.get(id(rule), ()))
    return empty


def _cycle(edges: dict[int, list[Rule]]) -> int | None:
    """A rule that can be reached from itself: depth first, without recursion."""
    done: set[int] = set()
    for start in edges:
        path, above = [(start, iter(edges[start]))], {start}
        while path and start not in done:
            key, targets = path[-1]
            for target in targets:
                if id(target) in above:
                    return id(target)
                if id(target) not in done:
                    path.append((id(target), iter(edges[id(target)])))
                    above.add(id(target))
                    break
            else:
                done.add(key)
                above.discard(key)
                path.pop()
    return None


def _next_rules(node: Node, left: bool, empty: set[int]) -> list[Rule]:
    """Rules used in a node; with `left` only those that may come before any character."""
    match node:
        case Rule():
            return [node]
        case Choice(options):
            return [r for o in options for r in _next_rules(o, left, empty)]
        case Repeat(body, _, _):
            return _next_rules(body, left, empty)
        case Sequence(items):
            found: list[Rule] = []
            for item in items:
                found += _next_rules(item, left, empty)
                if left and not _nullable(item, empty):
                    break
            return found
    return []


def _nullable(node: Node, empty: set[int]) -> bool:
    match node:
        case Rule():
            return id(node) in empty
        case Choice(options):
            return any(_nullable(o, empty) for o in options)
        case Sequence(items):
            return all(_nullable(i, empty) for i in items)
        case Repeat(body, low, _):
            return low == 0 or _nullable(body, empty)
    return False
