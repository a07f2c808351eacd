"""How JSON spells strings: nodes over characters become nodes over JSON text.

A character of an unrestricted string may take any spelling that is well formed (surrogates only
in pairs). Where the characters are restricted there is one spelling each: itself, the short
escape, or \\u00XX for the other control characters.
"""

from functools import lru_cache
from json.encoder import encode_basestring

from . import charset, nodes
from .charset import CharSet
from .errors import UnsupportedSchema
from .memo import memo
from .nodes import Chars, Choice, Dfa, Literal, Node, Repeat, Rule, Sequence, Token

_SPECIAL: CharSet = ((0, 0x1F), (0x22, 0x22), (0x5C, 0x5C))
RAW = charset.complement(_SPECIAL)
_SHORT = {8: "b", 9: "t", 10: "n", 12: "f", 13: "r", 0x22: '"', 0x5C: "\\"}
_HEX = charset.of("0123456789abcdefABCDEF")


def _any_character() -> Node:
    hexa = Chars(_HEX)
    plain = nodes.sequence(Chars(charset.of("0123456789abcABCefEF")), nodes.repeat(hexa, 3, 3))
    below = nodes.sequence(
        Chars(charset.of("dD")), Chars(charset.of("01234567")), nodes.repeat(hexa, 2, 2)
    )
    pair = nodes.sequence(
        Chars(charset.of("dD")),
        Chars(charset.of("89abAB")),
        nodes.repeat(hexa, 2, 2),
        Literal("\\u"),
        Chars(charset.of("dD")),
        Chars(charset.of("cdefCDEF")),
        nodes.repeat(hexa, 2, 2),
    )
    unicode = nodes.sequence(Literal("u"), nodes.choice(plain, below, pair))
    escape = nodes.choice(Chars(charset.of('"\\/bfnrt')), unicode)
    return nodes.choice(Chars(RAW), nodes.sequence(Literal("\\"), escape))


CHARACTER = Rule("char", _any_character(), True)
STRING = Rule(
    "string",
    Token(nodes.sequence(Literal('"'), nodes.repeat(CHARACTER, 0, None), Literal('"'))),
    True,
)


@lru_cache(maxsize=8192)
def quote(text: str) -> str:
    """The one spelling of a string that a grammar uses for a known text."""
    if not text.isascii() and any(0xD800 <= ord(c) < 0xE000 for c in text):
        raise UnsupportedSchema("", "", "a lone surrogate, which no text can contain")
    return encode_basestring(text)


def quoted(body: Node) -> Node:
    """The JSON strings whose content is in `body`, as one token."""
    return Token(nodes.sequence(Literal('"'), escape(body), Literal('"')))


@memo(lambda _, ranges: 500 + 256 * len(ranges), 4_000_000)
def escape_set(ranges: CharSet) -> Node:
    """One character of a set, as JSON text inside quotes."""
    if ranges == charset.UNIVERSE:
        return CHARACTER
    options: list[Node] = []
    raw = charset.intersect(ranges, RAW)
    if raw:
        options.append(Chars(raw))
    marked = charset.intersect(ranges, _SPECIAL)
    if marked == _SPECIAL:
        return Choice((*options, _ALL_SPECIAL))
    options.extend(_special(tuple(p for low, high in marked for p in range(low, high + 1))))
    return nodes.choice(*options)


def _special(special: tuple[int, ...]) -> list[Node]:
    """The escapes of characters that cannot stand for themselves."""
    options: list[Node] = []
    short = "".join(_SHORT[p] for p in special if p in _SHORT)
    if short:
        options.append(nodes.sequence(Literal("\\"), Chars(charset.of(short))))
    for high in "01":
        low = [f"{p % 16:x}" for p in special if p not in _SHORT and p // 16 == int(high)]
        digits = "".join(low) + "".join(low).upper()
        if digits:
            options.append(nodes.sequence(Literal("\\u00" + high), Chars(charset.of(digits))))
    return options


_ALL_SPECIAL = Rule("escape", nodes.choice(*_special((*range(32), 0x22, 0x5C))), True)


@memo(lambda _, ranges: 500 + 256 * len(ranges), 4_000_000)
def shared_set(ranges: CharSet) -> Node:
    """`escape_set`, as a rule where its text is long."""
    node = escape_set(ranges)
    return node if isinstance(node, Rule) or len(ranges) <= 2 else Rule("c", node, True)


@memo(lambda _, ranges: 500 + 256 * len(ranges), 4_000_000)
def plain_set(ranges: CharSet) -> Node:
    """A character of the set as itself, as a rule where its text is long."""
    return Chars(ranges) if len(ranges) <= 4 else Rule("c", Chars(ranges), True)


def escape(node: Node) -> Node:
    """Respell a node over characters as JSON text; the node has no `Rule` and no `Token`."""
    match node:
        case Literal(text):
            return Literal(quote(text)[1:-1])
        case Chars(ranges):
            return escape_set(ranges)
        case Sequence(items):
            return nodes.sequence(*(escape(i) for i in items))
        case Choice(options):
            return nodes.choice(*(escape(o) for o in options))
        case Repeat(body, low, high):
            return nodes.repeat(escape(body), low, high)
        case Dfa(automaton, _):
            return Dfa(automaton, True)
    raise TypeError(f"{type(node).__name__} cannot stand inside a string")
