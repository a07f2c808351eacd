"""Lark text to nodes: the grammars that custom tools come with.

Taken is what says which texts belong to the language: rules, terminals, strings, ranges, regular
expressions (with ECMA-262's syntax), groups, `[…]`, `?`, `*`, `+`, `~`, aliases, priorities,
`%import common.…` and `%ignore`. What Lark does to its parse tree, and which terminal its lexer
would prefer, changes nothing: every text that some reading of the grammar matches is allowed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from . import charset, nodes, patterns
from .errors import LarkSyntaxError
from .nodes import EPSILON, Chars, Dfa, Node, Rule

MAX_CHARACTERS = 200_000
MAX_NESTING = 60
MAX_REPEAT = 10_000

COMMON = {
    "CR": r"\r",
    "LF": r"\n",
    "NEWLINE": r"(\r?\n)+",
    "WS": r"[ \t\f\r\n]+",
    "WS_INLINE": r"[ \t]+",
    "DIGIT": r"[0-9]",
    "HEXDIGIT": r"[0-9a-fA-F]",
    "INT": r"[0-9]+",
    "SIGNED_INT": r"[+-]?[0-9]+",
    "DECIMAL": r"[0-9]+\.[0-9]*|\.[0-9]+",
    "FLOAT": r"[0-9]+[eE][+-]?[0-9]+|([0-9]+\.[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?",
    "SIGNED_FLOAT": r"[+-]?([0-9]+[eE][+-]?[0-9]+|([0-9]+\.[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?)",
    "NUMBER": r"([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?",
    "SIGNED_NUMBER": r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?",
    "ESCAPED_STRING": r'"([^"\\\n]|\\[^\n])*"',
    "LCASE_LETTER": r"[a-z]",
    "UCASE_LETTER": r"[A-Z]",
    "LETTER": r"[A-Za-z]",
    "WORD": r"[A-Za-z]+",
    "CNAME": r"[A-Za-z_][A-Za-z_0-9]*",
}
"""What Lark's own `common` module defines."""

_SPACE = re.compile(r"(?:[ \t]|//[^\n]*|(?:^|(?<=\s))#[^\n]*)+")
_NEXT_LINE = re.compile(r"(?:[ \t\r\n]|//[^\n]*|(?:^|(?<=\s))#[^\n]*)*")
_NAME = re.compile(r"[?!]?(_*[A-Za-z][A-Za-z_0-9]*)")
_PRIORITY = re.compile(r"\.-?[0-9]+")
_STRING = re.compile(r'"((?:[^"\\\n]|\\.)*)"(i?)')
_REGEX = re.compile(r"/((?:[^/\\\n]|\\.)+)/([a-z]*)")
_ALIAS = re.compile(r"->[ \t]*\w+")
_COUNT = re.compile(r"~[ \t]*([0-9]+)(?:[ \t]*\.\.[ \t]*([0-9]+))?")
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "0": "\0"}
_DOT = re.compile(r"(\\.|\[(?:[^\]\\]|\\.)*\])|\.", re.DOTALL)


def parse(text: str) -> tuple[Node, bool]:
    """The rule `start` over characters, and whether it is recursive. Raises LarkSyntaxError."""
    if len(text) > MAX_CHARACTERS:
        raise LarkSyntaxError(1, 1, f"a grammar of over {MAX_CHARACTERS} characters")
    parser = _Parser(text)
    parser.statements()
    return parser.result(), _is_recursive(parser)


@dataclass(slots=True)
class _Parser:
    text: str
    at: int = 0
    depth: int = -1
    used: dict[str, tuple[Rule, int]] = field(default_factory=dict)
    defined: set[str] = field(default_factory=set)
    ignored: list[Node] = field(default_factory=list)
    skip: Rule = field(default_factory=lambda: Rule("ignored"))
    """What may stand before each terminal; filled in when all of the text is read."""
    ignores: bool = False
    """Whether there is an %ignore anywhere."""
    lexical: bool = False
    """Inside a terminal's definition, where nothing is ignored."""

    def result(self) -> Node:
        for name, (_, offset) in self.used.items():
            if name in self.defined:
                continue
            if name not in COMMON:
                raise self.error(f"{name} is not defined", offset)
            raise self.error(f"{name} is not imported", offset)
        if "start" not in self.defined:
            raise self.error("there is no rule named start", 0)
        start = self.used["start"][0]
        if not self.ignored:
            return start
        self.skip.body = nodes.repeat(nodes.choice(*self.ignored), 0, None)
        return nodes.sequence(start, self.skip)

    def error(self, reason: str, offset: int | None = None) -> LarkSyntaxError:
        offset = self.at if offset is None else offset
        line = self.text.count("\n", 0, offset) + 1
        return LarkSyntaxError(line, offset - self.text.rfind("\n", 0, offset), reason)

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self.text, self.at)
        if found is not None:
            self.at = found.end()
        return found

    def peek(self) -> str:
        self.take(_SPACE)
        return self.text[self.at : self.at + 1]

    # ---------------------------------------------------------------- statements

    def statements(self) -> None:
        self.take(_NEXT_LINE)
        # Whether anything is ignored has to be known before the first rule is read.
        self.ignores = bool(re.search(r"^[ \t]*%ignore\b", self.text, re.MULTILINE))
        while self.at < len(self.text):
            if self.peek() == "%":
                self.directive()
            else:
                self.definition()
            if self.peek() not in ("", "\r", "\n"):
                raise self.error("expected the end of the line")
            self.take(_NEXT_LINE)

    def definition(self) -> None:
        offset = self.at
        name = self.name()
        self.take(_PRIORITY)
        if self.peek() != ":":
            raise self.error("expected :")
        self.at += 1
        if name in self.defined:
            raise self.error(f"{name} is defined twice", offset)
        self.defined.add(name)
        self.lexical = name.isupper()
        self.rule(name, offset).body = self.alternatives()

    def name(self) -> str:
        found = self.take(_NAME)
        if found is None:
            raise self.error("expected a name")
        return found[1]

    def rule(self, name: str, offset: int) -> Rule:
        return self.used.setdefault(name, (Rule(name), offset))[0]

    def directive(self) -> None:
        if self.take(re.compile(r"%ignore\b")):
            self.lexical = True
            self.ignored.append(self.alternatives())
        elif self.take(re.compile(r"%import[ \t]+common\b[ \t]*")):
            self.imports()
        else:
            raise self.error("of the directives only %ignore and %import common are supported")

    def imports(self) -> None:
        """`.NAME`, `.NAME -> OTHER` or `(NAME, NAME)`."""
        if self.take(re.compile(r"\.[ \t]*")):
            offset, name = self.at, self.name()
            alias = self.take(re.compile(r"[ \t]*->[ \t]*(\w+)"))
            self.define_common(name, alias[1] if alias else name, offset)
            return
        if not self.take(re.compile(r"\(")):
            raise self.error("expected a name of the module common")
        while self.peek() not in (")", ""):
            offset = self.at
            name = self.name()
            self.define_common(name, name, offset)
            if self.peek() == ",":
                self.at += 1
        self.at += 1

    def define_common(self, name: str, alias: str, offset: int) -> None:
        if name not in COMMON:
            raise self.error(f"the module common has no {name} here", offset)
        self.defined.add(alias)
        self.rule(alias, offset).body = _regular(COMMON[name])

    # ---------------------------------------------------------------- expressions

    def alternatives(self) -> Node:
        """`a | b`; the next one may stand on a line of its own."""
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise self.error(f"groups nested over {MAX_NESTING} deep")
        options = [self.sequence()]
        while self.bar():
            options.append(self.sequence())
        self.depth -= 1
        return nodes.choice(*options)

    def bar(self) -> bool:
        before = self.at
        self.take(_NEXT_LINE)
        if self.text[self.at : self.at + 1] == "|":
            self.at += 1
            self.take(_NEXT_LINE)
            return True
        self.at = before
        return False

    def sequence(self) -> Node:
        items: list[Node] = []
        while (item := self.item()) is not None:
            items.append(self.repeated(item))
        self.peek()
        self.take(_ALIAS)
        return nodes.sequence(*items)

    def repeated(self, item: Node) -> Node:
        while True:
            sign = self.peek()
            if sign == "~" and (found := self.take(_COUNT)):
                low, high = int(found[1]), int(found[2] or found[1])
                if not low <= high <= MAX_REPEAT:
                    raise self.error(f"repetitions must be in order and at most {MAX_REPEAT}")
                item = nodes.repeat(item, low, high)
            elif sign and sign in "?*+":
                self.at += 1
                low, bound = {"?": (0, 1), "*": (0, None), "+": (1, None)}[sign]
                item = nodes.repeat(item, low, bound)
            else:
                return item

    def item(self) -> Node | None:
        char = self.peek()
        if char and char in "([":
            self.at += 1
            self.take(_NEXT_LINE)
            inner = self.alternatives()
            self.take(_NEXT_LINE)
            if self.peek() != {"(": ")", "[": "]"}[char]:
                raise self.error("a group without end")
            self.at += 1
            return inner if char == "(" else nodes.optional(inner)
        if char == '"':
            return self.spaced(self.string())
        if char == "/":
            return self.spaced(self.regex())
        offset = self.at
        if found := self.take(_NAME):
            if self.text[self.at : self.at + 1] == "{":
                raise self.error("templates are not supported", offset)
            rule = self.rule(found[1], offset)
            return self.spaced(rule) if found[1].isupper() else rule
        return None

    def spaced(self, terminal: Node) -> Node:
        if self.lexical or not self.ignores:
            return terminal
        return nodes.sequence(self.skip, terminal)

    def string(self) -> Node:
        offset = self.at
        found = self.take(_STRING)
        if found is None:
            raise self.error("a string without end")
        text = _unescaped(found[1])
        if self.text.startswith("..", self.at) and (last := self.range_end()):
            end = _unescaped(last[1])
            if len(text) != 1 or len(end) != 1 or end < text:
                raise self.error("a range goes from one character up to another", offset)
            return Chars(((ord(text), ord(end)),))
        if not text:
            return EPSILON
        return nodes.sequence(*(_char(char, bool(found[2])) for char in text))

    def range_end(self) -> re.Match[str] | None:
        self.at += 2
        return self.take(_STRING)

    def regex(self) -> Node:
        offset = self.at
        found = self.take(_REGEX)
        if found is None:
            raise self.error("a regular expression without end")
        source, flags = found[1], found[2]
        if set(flags) - {"s", "u"}:
            raise self.error(
                f"the flags {flags!r} of a regular expression are not supported", offset
            )
        if "s" in flags:
            source = _DOT.sub(lambda part: part[1] or r"[\s\S]", source)
        return _regular(source)


def _regular(source: str) -> Node:
    """Raises UnsupportedPattern."""
    found = patterns.pattern(source, whole=True)
    return Dfa(found.automaton) if found.node is None else found.node


def _char(char: str, any_case: bool) -> Node:
    return Chars(charset.of("".join({char.lower(), char.upper()} if any_case else {char})))


def _unescaped(text: str) -> str:
    def meant(found: re.Match[str]) -> str:
        code = found[1]
        if len(code) > 1:
            return chr(int(code[1:], 16))
        return _CONTROLS.get(code, code)

    return _ESCAPE.sub(meant, text)


def _is_recursive(parser: _Parser) -> bool:
    return any(rule in nodes.rules(rule.body) for rule, _ in parser.used.values())
