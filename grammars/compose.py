"""Building blocks for grammars that mix text and JSON, as tool calls do.

Literals and tokens are lexemes to llguidance: at one place no literal may be a proper beginning of
another unless what follows the shorter one cannot continue the longer one.
"""

from __future__ import annotations

from . import nodes, regular, strings, texts
from .compiler import DEFAULT_LIMITS, regex_node, schema_node
from .documents import Place
from .errors import UnsupportedSchema
from .expand import Expander
from .json_types import Json
from .limits import Limits
from .nodes import Dfa, Literal, Node, Token
from .values import NOTHING, Values

sequence = nodes.sequence
choice = nodes.choice
repeat = nodes.repeat
optional = nodes.optional


def literal(text: str) -> Node:
    return Literal(text)


def json_schema(schema: Json, limits: Limits = DEFAULT_LIMITS) -> Node:
    """The JSON texts of the schema's values. Raises UnsupportedSchema."""
    return schema_node(schema, limits)[0]


def regex(pattern: str) -> Node:
    """Texts that match an ECMA-262 pattern as a whole. Raises UnsupportedPattern."""
    return regex_node(pattern)


def text_until(*markers: str) -> Node:
    """Any text up to and including the first of the markers."""
    return Token(Dfa(texts.until(markers)))


def text_without(*markers: str) -> Node:
    """Any text in which no marker occurs; fit to end a grammar, as it takes all it can."""
    return Token(Dfa(texts.without(markers)))


def raw_string(
    schema: Json, end: str, unlike: str | None = None, limits: Limits = DEFAULT_LIMITS
) -> Node:
    """The strings of a schema as they are, not as JSON, followed by `end`.

    None of them contains `unlike`, by default `end`. Raises UnsupportedSchema where the schema
    allows anything but strings.
    """
    return raw_string_node(schema, end, unlike, limits)[0]


def raw_string_node(
    schema: Json, end: str, unlike: str | None = None, limits: Limits = DEFAULT_LIMITS
) -> tuple[Node, tuple[str, ...]]:
    """See `raw_string`; also what was ignored in the schema, as `compiler.schema_node` has it."""
    expander = Expander(schema, limits)
    values = expander.values(expander.goal_at(Place(schema, expander.document.resolver)))
    if Values(strings=values.strings) != values or values == NOTHING:
        raise UnsupportedSchema("$", "type", "only strings can be written raw")
    clean = texts.without((unlike or end,))
    body = clean
    if strings.ANY not in values.strings:
        parts = [regular.intersect([strings.to_automaton(c), clean]) for c in values.strings]
        body = regular.union(parts)
    if body.is_empty():
        raise UnsupportedSchema("$", "", f"no value is free of {unlike or end!r}")
    return Token(nodes.sequence(Dfa(body), Literal(end))), expander.ignored()


def takes_only_strings(schema: Json, limits: Limits = DEFAULT_LIMITS) -> bool:
    """Whether `raw_string` can print the values of a schema."""
    expander = Expander(schema, limits)
    values = expander.values(expander.goal_at(Place(schema, expander.document.resolver)))
    return values != NOTHING and Values(strings=values.strings) == values
