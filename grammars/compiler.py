"""Schema in, every printed form of its grammar out."""

from __future__ import annotations

from dataclasses import dataclass

from .build import Builder
from .documents import Json
from .errors import UnsupportedSchema
from .expand import Expander
from .gbnf import print_gbnf
from .limits import Limits
from .nodes import Node

DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Compiled:
    """One grammar: `gbnf` for people and llama.cpp, `lark` for llguidance, the same language.

    `ignored` names what was understood as an annotation, as "path.format: name".
    """

    gbnf: str
    lark: str
    ignored: tuple[str, ...] = ()


def schema_node(schema: Json, limits: Limits = DEFAULT_LIMITS) -> tuple[Node, tuple[str, ...]]:
    try:
        expander = Expander(schema, limits)
        goal = expander.goal_at(expander.document.root())
        node = Builder(expander).grammar(goal)
    except UnsupportedSchema as error:
        error.locate("$")
        raise
    return node, tuple(expander.ignored)


def compile_schema(schema: Json) -> str:
    node, _ = schema_node(schema)
    return print_gbnf(node)
