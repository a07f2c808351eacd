"""Schemas to value sets, lazily: the table of literals and what each stands for."""

from __future__ import annotations

import json

from . import keywords, numbers, strings
from .algebra import Algebra
from .documents import Document, Place
from .errors import UnsupportedPattern, UnsupportedSchema
from .json_types import Json
from .limits import Budget, Limits
from .values import (
    EVERYTHING,
    FALSE,
    FALSE_LITERAL,
    NOTHING,
    TRUE,
    ArrayConstraint,
    Goal,
    ObjectConstraint,
    Values,
)

LOOK_AHEAD = 10  # literals being expanded at once beyond which none is opened just to look
Entry = Place | Goal | Values | tuple[Json]


class Expander:
    """One compilation's schemas. A literal n > 0 is `table[n]`: a place in a schema, a JSON value
    (`const`) or a goal; -n is its negation. Number 1 is the schema `true`."""

    def __init__(self, schema: Json, limits: Limits) -> None:
        self.budget = Budget(limits)
        self.document = Document(schema, self.budget)
        self.algebra = Algebra(self)
        self._ignored: dict[tuple[int, str], Json] = {}
        self._table: list[Entry] = [TRUE, TRUE]
        self._numbers: dict[object, int] = {}
        self._values: dict[Goal, Values] = {TRUE: EVERYTHING, FALSE: NOTHING}
        self._plain: dict[str, Goal] = {}
        self._active: set[int] = set()
        self._nesting = 0
        self._never: dict[Goal, int] = {}
        self._texts: dict[Goal, frozenset[str] | None] = {}

    def ignore_format(self, schema: Json, name: str) -> None:
        self._ignored[id(schema), name] = schema

    def ignored(self) -> tuple[str, ...]:
        """The formats that are annotations: "path.format: name"."""
        path = self.document.path_of
        return tuple(f"{path(s)}.format: {name}" for (_, name), s in self._ignored.items())

    # ------------------------------------------------------------------ goals

    def goal(self, parent: Place, contents: Json) -> Goal:
        """The goal of a subschema of `parent`."""
        if contents is True or contents == {}:
            return TRUE
        if contents is False:
            return FALSE
        plain = keywords.plain_type(contents)
        if plain is not None:
            if plain not in self._plain:
                self._plain[plain] = self.known(keywords.any_of_type(plain))
            return self._plain[plain]
        return self.goal_at(self.document.child(parent, contents))

    def goal_at(self, place: Place) -> Goal:
        return frozenset((self._number(place.key, place),))

    def constant(self, value: Json) -> Goal:
        text = json.dumps(value, sort_keys=True)
        return frozenset((self._number(("const", text), (value,)),))

    def known(self, values: Values) -> Goal:
        """A goal for values in normal form."""
        return frozenset((self._number(("values", values), values),))

    def negate(self, goal: Goal) -> Goal:
        if goal == TRUE:
            return FALSE
        if goal == FALSE:
            return TRUE
        if len(goal) == 1:
            return frozenset((-next(iter(goal)),))
        return frozenset((-self._number(goal, goal),))

    def either(self, a: Goal, b: Goal) -> Goal:
        if TRUE in (a, b):
            return TRUE
        if a in (FALSE, b):
            return b
        if b == FALSE:
            return a
        return self.negate(self.negate(a) | self.negate(b))

    def _number(self, key: object, entry: Entry) -> int:
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._table)
            self._table.append(entry)
            self.budget.check("schema_nodes", number)
        return number

    # ------------------------------------------------------------------ value sets

    def values(self, goal: Goal) -> Values:
        """The normal form of a goal."""
        known = self._values.get(goal)
        if known is None:
            self.budget.check_time()
            if len(goal) == 1:
                return self._literal(*goal)
            known = EVERYTHING
            for literal in sorted(goal, key=abs):
                known = self.algebra.intersect(known, self._literal(literal))
            self._values[goal] = known
        return known

    def _literal(self, literal: int) -> Values:
        if literal == FALSE_LITERAL:
            return NOTHING
        goal = frozenset((literal,))
        known = self._values.get(goal)
        if known is not None:
            return known
        entry = self._table[abs(literal)]
        self._nesting += 1
        try:
            known = self._negated(-literal) if literal < 0 else self._opened(literal, entry)
        except UnsupportedSchema as error:
            error.locate(self._path(entry), "not" if literal < 0 else "")
            raise
        except UnsupportedPattern as error:
            raise UnsupportedSchema(self._path(entry), "pattern", str(error)) from error
        self._nesting -= 1
        self._values[goal] = known
        return known

    def _negated(self, literal: int) -> Values:
        return self.algebra.complement(self._literal(literal))

    def _opened(self, literal: int, entry: Entry) -> Values:
        self.budget.check("schema_depth", len(self._active), "$ref")
        if literal in self._active:
            reason = "a reference that is its own meaning"
            raise UnsupportedSchema(self._path(entry), "$ref", reason)
        self._active.add(literal)
        known = self._expanded(entry)
        self._active.discard(literal)
        return known

    def _expanded(self, entry: Entry) -> Values:
        if isinstance(entry, Place):
            return keywords.expand(self, entry)
        if isinstance(entry, frozenset):
            return self.values(entry)
        if isinstance(entry, Values):
            return entry
        return self.constant_values(entry[0])

    def path(self, goal: Goal) -> str:
        """Where the goal stands in the schema, "" if nowhere."""
        places = (self._table[abs(n)] for n in sorted(goal, key=abs))
        return next((p for e in places if (p := self._path(e))), "")

    def _path(self, entry: object) -> str:
        return self.document.path_of(entry.contents) if isinstance(entry, Place) else ""

    def constant_values(self, value: Json) -> Values:
        if value is None:
            return Values(null=True)
        if isinstance(value, bool):
            return Values(booleans=frozenset((value,)))
        if isinstance(value, (int, float)):
            return Values(numbers=(numbers.NumberConstraint(values=(numbers.exact(value),)),))
        if isinstance(value, str):
            return Values(strings=(strings.StringConstraint(values=(value,)),))
        if isinstance(value, list):
            items = tuple(self.constant(v) for v in value)
            return Values(arrays=(ArrayConstraint(items, FALSE, len(items), len(items)),))
        props = tuple((name, self.constant(v)) for name, v in value.items())
        return Values(
            objects=(
                ObjectConstraint(
                    props,
                    frozenset(value),
                    ((strings.StringConstraint(excluded=frozenset(value)), FALSE),),
                ),
            )
        )

    def texts(self, goal: Goal) -> frozenset[str] | None:
        if goal in self._texts:
            return self._texts[goal]
        if self._nesting > LOOK_AHEAD:
            return None
        found = None
        if self._active.isdisjoint(map(abs, goal)):
            values = self.values(goal)
            finite = all(c.values is not None for c in values.strings)
            if finite and Values(strings=values.strings) == values:
                found = frozenset(t for c in values.strings for t in c.values or ())
        self._texts[goal] = found
        return found

    def is_never(self, goal: Goal, depth: int = 3) -> bool:
        """False where `depth` levels do not tell."""
        if goal == TRUE:
            return False
        if goal == FALSE:
            return True
        seen = self._never.get(goal)
        if seen is not None and (seen < 0 or seen >= depth):
            return seen < 0
        if depth == 0 or self._nesting > LOOK_AHEAD or not self._active.isdisjoint(map(abs, goal)):
            return False
        values = self.values(goal)
        if _surely_some(values):
            self._never[goal] = 99
            return False
        self._never[goal] = depth  # while it is being looked at it counts as possible
        shallow = _Shallow(self, depth - 1)
        never = Algebra(shallow).is_empty(values)
        self._never[goal] = -1 if never else depth
        return never


def _surely_some(values: Values) -> bool:
    """Whether a glance shows that there are values."""
    if values.null or values.booleans:
        return True
    for text in values.strings:
        if text.values or text == strings.ANY:
            return True
    for number in values.numbers:
        if number.values or number in (numbers.ANY, numbers.WHOLE):
            return True
    for array in values.arrays:
        if not array.low and not array.contains:
            return True
    return any(not (c.required or c.low or c.some) for c in values.objects)


class _Shallow:
    """The expander with fewer levels left to look into."""

    def __init__(self, expander: Expander, depth: int) -> None:
        self.budget, self.expander, self.depth = expander.budget, expander, depth

    def negate(self, goal: Goal) -> Goal:
        return self.expander.negate(goal)

    def texts(self, goal: Goal) -> frozenset[str] | None:
        return self.expander.texts(goal)

    def is_never(self, goal: Goal, depth: int = 3) -> bool:
        return self.expander.is_never(goal, min(depth, self.depth))
