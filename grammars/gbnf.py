"""Nodes as GBNF text. The only place that quotes for GBNF; the parser is in `gbnf_parser`."""

import math
from collections.abc import Callable
from functools import lru_cache

from . import nodes, unroll
from .charset import CharSet
from .errors import LimitExceeded, UnsupportedSchema
from .except_text import ExceptPrinter
from .json_text import quote
from .nodes import Chars, Choice, Dfa, Except, Literal, Member, Node, Repeat, Rule, Sequence, Token

REPEAT_LIMIT = 2_000  # llama.cpp refuses larger minima and drops larger maxima
_SINGLE = (Chars, Rule, Literal)
_MARK = "\0"  # never part of a text: it is printed as an escape
GROUP_LIMIT = 40  # a repeated group with more symbols than this becomes a rule of its own


def print_gbnf(root: Node, max_bytes: int = 1_000_000) -> str:
    """The text of the grammar; its start rule is `root`."""
    return _Printer(max_bytes).run(root)


class _Printer:
    def __init__(self, max_bytes: int) -> None:
        self.lines: list[str] = []
        self.names: dict[int, str] = {}
        self.taken = {"root": 0}
        self.queue: list[Rule] = []
        self.keep: list[Rule] = []  # names go by id, so none may be used twice
        self.shared: dict[object, Rule] = {}
        self.size, self.max_bytes = 0, max_bytes
        self.excepts = ExceptPrinter(_json_character, self.name, self.named_text)
        self.recorder: _Recorder | None = None

    def run(self, root: Node) -> str:
        self.define("root", root)
        while self.queue:
            rule = self.queue.pop()
            if rule.lasting:
                self.define_lasting(rule)
            else:
                self.define(self.names[id(rule)], rule.body)
        return "\n".join(self.lines) + "\n"

    def define(self, name: str, body: Node) -> None:
        if nodes.is_never(body):
            raise UnsupportedSchema("", "", "a part that nothing satisfies")
        self.emit(name, self.text(body, 0) or '""')

    def define_lasting(self, rule: Rule) -> None:
        """Many are printed only once, so the text is kept from the second time on."""
        if not rule.printed:
            self.define(self.names[id(rule)], rule.body)
            rule.printed = True
            return
        if not rule.template:
            self.recorder = self.recorder or _Recorder(self.max_bytes)
            self.recorder.record(rule)
        names = self.names
        found = [names.get(id(r)) or self.name(r) for r in rule.refers]
        self.emit(names[id(rule)], rule.template % tuple(found))

    def emit(self, name: str, text: str) -> None:
        line = f"{name} ::= {text}"
        self.size += len(line) if line.isascii() else len(line.encode())
        if self.size > self.max_bytes:
            raise LimitExceeded("", "", "text_bytes", f"the grammar is over {self.max_bytes}")
        self.lines.append(line)

    def name(self, rule: Rule) -> str:
        known = self.names.get(id(rule))
        if known is None:
            known = self.names[id(rule)] = self.fresh(identifier(rule.hint))
            self.queue.append(rule)
            self.keep.append(rule)
        return known

    def fresh(self, hint: str) -> str:
        number, known = self.taken.get(hint, 0), hint
        while known in self.taken:
            number += 1
            known = f"{hint}-{number}"
        self.taken[hint] = number
        self.taken.setdefault(known, 0)
        return known

    def named_text(self, text: str) -> str:
        name = self.fresh("n")
        self.emit(name, text)
        return name

    def named(self, key: object, make: Callable[[], Node]) -> Rule:
        rule = self.shared.get(key)
        if rule is None:
            rule = self.shared[key] = Rule("r", make())
        return rule

    def text(self, node: Node, level: int) -> str:
        """`level`: 0 alternatives may stand bare, 1 a sequence may, 2 a single item only."""
        kind = type(node)  # asked for once: this is a third of compiling
        if kind is Rule:
            return self.names.get(id(node)) or self.name(node)  # type: ignore[arg-type]
        if kind is Token:
            return self.text(node.body, level)  # type: ignore[union-attr]
        if kind is Literal:
            return literal(node.text)  # type: ignore[union-attr]
        if kind is Sequence or kind is Member:
            text = self.sequence_text((node,) if kind is Member else node.items)  # type: ignore[union-attr]
            return f"({text})" if level > 1 and text else text
        if kind is Choice:
            text = " | ".join([self.text(o, 1) for o in node.options])  # type: ignore[union-attr]
            return f"({text})" if level else text
        if kind is Chars:
            return char_class(node.ranges)  # type: ignore[union-attr]
        if isinstance(node, Repeat):
            if node.max == 1 and type(node.body) in (Rule, Choice, Sequence):
                return self.text(node.body, 2) + "?"
            return self.repeat_text(node)
        if isinstance(node, Except):
            return self.excepts.text(node.texts)
        assert isinstance(node, Dfa)
        return self.name(unroll.right_linear(node.automaton, node.escaped))

    def sequence_text(self, items: tuple[Node, ...]) -> str:
        """Neighbouring literals become one."""
        parts: list[str] = []
        characters: str | None = None  # of the literals since the last part
        names = self.names
        for item in items:
            kind = type(item)
            if kind is Token:
                item = item.body  # type: ignore[union-attr]
                kind = type(item)
            if kind is Literal:
                own = item.text  # type: ignore[union-attr]
                characters = own if characters is None else characters + own
                continue
            if isinstance(item, Member):
                text = names.get(id(item.value)) or self.name(item.value)
                key = ", " + item.key if item.comma else item.key
                if item.required:
                    characters = key if characters is None else characters + key
                else:
                    text = f"({literal(key)} {text})?"
            elif kind is Rule:
                text = names.get(id(item)) or self.name(item)  # type: ignore[arg-type]
            elif kind is Repeat and item.max == 1 and type(item.body) is Sequence:  # type: ignore[union-attr]
                text = f"({self.sequence_text(item.body.items)})?"  # type: ignore[union-attr]
            else:
                text = self.text(item, 1)
            if characters is not None:
                parts.append(literal(characters))
                characters = None
            if text:
                parts.append(text)
        if characters is not None:
            parts.append(literal(characters))
        return " ".join(parts)

    def repeat_text(self, node: Repeat) -> str:
        body, low, high = node.body, node.min, node.max
        if max(low, high or 0) > REPEAT_LIMIT:
            return self.text(_factor(self.atom(body), low, high), 2)
        if type(body) not in _SINGLE and (high is None or high > 1):
            weight = _weight(body)
            if weight > GROUP_LIMIT or (weight > 1 and max(low, high or 0) > 4):
                body = self.atom(body)
        while isinstance(body, Token):
            body = body.body
        text = self.text(body, 2)
        if isinstance(body, Repeat) or (isinstance(body, Literal) and len(body.text) > 1):
            text = f"({text})"
        return text + bounds(node)

    def atom(self, body: Node) -> Node:
        """What the engine counts as one symbol, so that bounds do not multiply."""
        if isinstance(body, (Chars, Rule)):
            return body
        return self.named(("atom", id(body), body), lambda: body)


class _Recorder(_Printer):
    """Prints the bodies of lasting rules, the rules they refer to standing for their names."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self.found: list[Rule] = []

    def record(self, rule: Rule) -> None:
        self.found.clear()
        text = self.text(rule.body, 0) or '""'
        rule.refers = tuple(self.found)  # first, as another thread may see the template at once
        rule.template = text.replace("%", "%%").replace(_MARK, "%s")

    def name(self, rule: Rule) -> str:
        self.found.append(rule)
        return _MARK

    def named(self, key: object, make: Callable[[], Node]) -> Rule:
        return Rule("r", make(), True)

    def named_text(self, text: str) -> str:
        raise AssertionError("excluded names are no part of a lasting rule")


def _weight(node: Node) -> int:
    """The number of symbols that a repetition multiplies."""
    match node:
        case Sequence(items) | Choice(items):
            return 1 + sum([_weight(i) - 1 for i in items if type(i) not in _SINGLE])
        case Repeat(body, low, high):
            return _weight(body) * max(1, low, high or 1) + 1
        case Token(body):
            return _weight(body)
        case Member():
            return 1 if node.required else 2
    return 1


def _factor(body: Node, low: int, high: int | None) -> Node:
    """body{low,high} from repetitions that stay under the engine's limit."""
    step = max(2, math.isqrt(max(low, high or 0)))
    block = Rule("block", nodes.repeat(body, step, step))
    fixed = nodes.sequence(
        nodes.repeat(block, low // step, low // step),
        nodes.repeat(body, low % step, low % step),
    )
    if high is None:
        return nodes.sequence(fixed, nodes.repeat(body, 0, None))
    spare = high - low
    blocks = max(0, spare - step + 1) // step
    tail = nodes.repeat(body, 0, spare - blocks * step)
    return nodes.sequence(fixed, nodes.repeat(block, 0, blocks), tail)


_SHORT_BOUNDS: dict[tuple[int, int | None], str] = {(0, 1): "?", (0, None): "*", (1, None): "+"}


def bounds(node: Repeat) -> str:
    """The quantifier, which GBNF and Lark write alike."""
    low, high = node.min, node.max
    short = _SHORT_BOUNDS.get((low, high))
    if short is not None:
        return short
    if high is None:
        return f"{{{low},}}"
    return f"{{{low}}}" if low == high else f"{{{low},{high}}}"


@lru_cache(maxsize=4096)
def identifier(hint: str) -> str:
    """A rule name: ASCII letters, digits and dashes, starting with a letter."""
    name = "".join(c if c.isascii() and c.isalnum() else "-" for c in hint).strip("-")[:40]
    return name if name and name[0].isalpha() else f"r-{name}" if name else "r"


_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\"}


def _escape(char: str, special: str) -> str:
    point = ord(char)
    if char in _ESCAPES:
        return _ESCAPES[char]
    if point < 0x20 or 0x7F <= point < 0xA0 or char in special:
        return f"\\x{point:02X}"
    if not char.isprintable():
        return f"\\u{point:04X}" if point < 0x10000 else f"\\U{point:08X}"
    return char


@lru_cache(maxsize=4096)
def _json_character(char: str) -> str:
    return literal(quote(char)[1:-1])


@lru_cache(maxsize=4096)
def literal(text: str) -> str:
    if text.isascii() and text.isprintable():
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    else:
        escaped = "".join(['\\"' if c == '"' else _escape(c, "") for c in text])
    return f'"{escaped}"'


@lru_cache(maxsize=4096)
def char_class(ranges: CharSet) -> str:
    parts = []
    for low, high in ranges:
        first = chr(low)
        parts.append(first if first.isalnum() else _escape(first, "[]^-"))
        if high > low:
            if high > low + 1:
                parts.append("-")
            last = chr(high)
            parts.append(last if last.isalnum() else _escape(last, "[]^-"))
    return f"[{''.join(parts)}]"
