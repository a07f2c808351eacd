"""The texts of a user's own grammar as part of a larger one: raw, or inside a JSON string."""

from __future__ import annotations

from . import json_text, lark_parser, nodes, patterns, regular, texts
from .automaton import Automaton
from .nodes import EPSILON, Chars, Choice, Dfa, Literal, Node, Repeat, Rule, Sequence, Token


def written_text(syntax: str, definition: str, end: str | None = None) -> Node:
    """The texts of a grammar ("regex" or "lark") as a JSON string with its quotes; with `end`, as
    they are, followed by `end`.

    A grammar without recursion becomes one token; in the others every character is a lexeme of
    its own, so that greed changes nothing. Raises UnsupportedPattern, LarkSyntaxError.
    """
    recursive = False
    if syntax == "regex":
        text: Node = _regex(definition, end)
    else:
        text, recursive = lark_parser.parse(definition)
    text = _Speller(json=end is None, apart=recursive).spell(text)
    if end is not None:
        parts = nodes.sequence(text, Literal(end))
    else:
        parts = nodes.sequence(Literal('"'), text, Literal('"'))
    return parts if recursive else Token(parts)


def _regex(pattern: str, end: str | None) -> Node:
    """Free of `end`, which would otherwise be read as part of an open pattern's text."""
    found = patterns.pattern(pattern, whole=True)
    if end is not None:
        return Dfa(regular.intersect([found.automaton, texts.without((end,))]))
    return Dfa(found.automaton) if found.node is None else found.node


class _Speller:
    """Copies a node over characters, rules included."""

    def __init__(self, *, json: bool, apart: bool) -> None:
        self._json = json
        self._apart = apart
        self._rules: dict[int, Rule] = {}

    def spell(self, node: Node) -> Node:
        match node:
            case Rule(hint, body):
                if id(node) not in self._rules:
                    self._rules[id(node)] = copy = Rule(hint)
                    copy.body = self.spell(body)
                return self._rules[id(node)]
            case Sequence(items):
                return nodes.sequence(*map(self.spell, items))
            case Choice(options):
                return nodes.choice(*map(self.spell, options))
            case Repeat(body, low, high):
                return nodes.repeat(self.spell(body), low, high)
            case Literal(text) if self._apart:
                return nodes.sequence(*(self.spell(Chars(((ord(c), ord(c)),))) for c in text))
            case Dfa(states) if self._apart:
                return self._states(states)
        spelled = json_text.escape(node) if self._json else node
        return Token(spelled) if self._apart else spelled

    def _states(self, automaton: Automaton) -> Node:
        """One rule per state."""
        rules = [Rule("state") for _ in automaton.delta]
        for state, rule in enumerate(rules):
            steps = [
                nodes.sequence(self.spell(Chars(ranges)), rules[target])
                for target, ranges in automaton.edges(state).items()
            ]
            ends = [EPSILON] if automaton.accept[state] else []
            rule.body = nodes.choice(*steps, *ends)
        return rules[0]
