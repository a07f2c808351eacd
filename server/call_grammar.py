"""A `CallPlan` → grammar nodes: calls as this model writes them, arguments by their schemas."""

from __future__ import annotations

from msgspec import Struct

import grammars
from grammars import GrammarError, Node
from server.call_arguments import Arguments, literals
from server.chat.plan import CallPlan
from server.errors import UnusableTool, quote

_ID_PATTERN = "[A-Za-z0-9]{9}"


class CallNodes(Struct, frozen=True):
    """Calls from their first marker on; free text up to a call with the rest of it.

    `ignored` names the formats that are annotations, by function: "name path.format: format".
    """

    forced: Node
    triggered: Node
    ignored: tuple[str, ...]


def call_nodes(plan: CallPlan) -> CallNodes:
    """Raises UnusableTool."""
    arguments = [Arguments(plan, function) for function in plan.functions]
    calls = grammars.choice(*(_call(each) for each in arguments))
    after_open = calls
    if plan.parallel:
        following = grammars.sequence(grammars.literal(plan.call_close + plan.next_open), calls)
        after_open = grammars.sequence(calls, grammars.repeat(following, 0, None))
    after_open = grammars.sequence(after_open, *literals(plan.call_close, plan.section_close))
    forced = triggered = grammars.sequence(*literals(plan.first_open), after_open)
    if plan.triggers:
        # The first trigger is how a call usually opens; the others are banned from free text.
        opened = grammars.text_until(plan.triggers[0])
        triggered = grammars.sequence(opened, *literals(plan.trigger_rests[0]), after_open)
    ignored = dict.fromkeys(place for each in arguments for place in each.ignored)
    return CallNodes(forced, triggered, tuple(ignored))


def _call(arguments: Arguments) -> Node:
    nodes: list[Node] = []
    for piece in arguments.function.pieces:
        match piece.slot:
            case None:
                nodes += literals(piece.text)
            case "id":
                nodes.append(grammars.regex(_ID_PATTERN))
            case "index":
                nodes.append(grammars.regex("[0-9]{1,3}"))
            case _:
                nodes.append(_usable(arguments))
    return grammars.sequence(*nodes)


def _usable(arguments: Arguments) -> Node:
    try:
        return arguments.node()
    except GrammarError as error:
        name = arguments.function.name
        refused = UnusableTool(
            f"the schema of {quote(name)} cannot be enforced: {error}", loc=("body", "tools")
        )
        refused.tool = name
        raise refused from None
