"""Constraints in, every printed form of their grammar out."""

from __future__ import annotations

from msgspec import Struct

from . import gbnf_parser, metaschema, patterns
from .build import Builder
from .errors import LimitExceeded, UnsupportedPattern, UnsupportedSchema
from .expand import Expander
from .gbnf import print_gbnf
from .json_types import Json
from .lark import print_lark
from .limits import Limits
from .nodes import Dfa, Node, Token

DEFAULT_LIMITS = Limits()


class Compiled(Struct, frozen=True):
    """One grammar: `gbnf` for people and llama.cpp, `lark` for llguidance, the same language.

    `ignored` names the formats that are annotations by the specification: "path.format: name".
    """

    gbnf: str
    lark: str
    ignored: tuple[str, ...] = ()


def schema_node(schema: Json, limits: Limits = DEFAULT_LIMITS) -> tuple[Node, tuple[str, ...]]:
    """The grammar of a schema as a node, and what was ignored in it."""
    node, expander = _expanded(schema, limits)
    return node, expander.ignored()


def _expanded(schema: Json, limits: Limits) -> tuple[Node, Expander]:
    """The grammar as a node, and who knows what was ignored: to name places takes a while."""
    try:
        expander = Expander(schema, limits)
        document = expander.document
        metaschema.check(schema, document.path_of, document.checked)
        node = Builder(expander).grammar(expander.goal_at(document.root()))
    except UnsupportedSchema as error:
        error.locate("$")
        raise
    except RecursionError:
        raise LimitExceeded("$", "", "schema_depth", "references nest too deep") from None
    return node, expander


def compile(schema: Json, limits: Limits = DEFAULT_LIMITS) -> Compiled:
    """The grammar of the JSON texts of a schema's values, in one canonical spelling each.

    Raises UnsupportedSchema with path, keyword and reason; its kinds InvalidSchema and
    LimitExceeded where the schema is none, or is too much.
    """
    return compile_node(*schema_node(schema, limits), limits)


def compile_node(
    node: Node, ignored: tuple[str, ...] = (), limits: Limits = DEFAULT_LIMITS
) -> Compiled:
    """Print a node that `grammars.compose` built."""
    try:
        return Compiled(
            print_gbnf(node, limits.text_bytes), print_lark(node, limits.text_bytes), ignored
        )
    except UnsupportedSchema as error:
        error.locate("$")
        raise


def compile_schema(schema: Json) -> str:
    """The GBNF alone of a schema; see `compile`."""
    return print_gbnf(_expanded(schema, DEFAULT_LIMITS)[0], DEFAULT_LIMITS.text_bytes)


def compile_json_object() -> Compiled:
    """Any JSON object."""
    return compile({"type": "object"})


def compile_regex(pattern: str) -> Compiled:
    """Texts that match an ECMA-262 pattern as a whole.

    Raises UnsupportedPattern, or LimitExceeded where its automaton takes too much.
    """
    return compile_node(regex_node(pattern))


def regex_node(pattern: str) -> Node:
    """See `compile_regex`."""
    if len(pattern) > DEFAULT_LIMITS.pattern_length:
        reason = f"a pattern of over {DEFAULT_LIMITS.pattern_length} characters"
        raise UnsupportedPattern(pattern[:40], 0, reason)
    found = patterns.pattern(pattern, whole=True)
    return Token(Dfa(found.automaton) if found.node is None else found.node)


def compile_gbnf(text: str) -> Compiled:
    """A user's own grammar, checked. Raises GBNFSyntaxError with line and column."""
    return Compiled(text, print_lark(gbnf_parser.parse(text)))
