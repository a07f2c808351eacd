"""unevaluatedProperties and unevaluatedItems.

What is evaluated depends on which subschemas hold. So a schema with these keywords is split into
branches in each of which that is settled: every anyOf member, for instance, holds or does not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from msgspec import Struct

from . import keywords, strings
from .documents import Place
from .errors import UnsupportedSchema
from .values import (
    EVERYTHING,
    FALSE,
    NOTHING,
    TRUE,
    ArrayConstraint,
    Goal,
    ObjectConstraint,
    Values,
)

if TYPE_CHECKING:
    from .expand import Expander

KEYWORDS = ("unevaluatedProperties", "unevaluatedItems")
_APPLICATORS = (
    "$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "if", "dependentSchemas", "dependencies",
)  # fmt: skip
MAX_NESTING = 40


class Seen(Struct, frozen=True):
    """What has been evaluated: property names, patterns of names, or all; the first `prefix`
    items, those that satisfy one of `contains`, or all."""

    names: frozenset[str] = frozenset()
    patterns: frozenset[str] = frozenset()
    all_properties: bool = False
    prefix: int = 0
    all_items: bool = False
    contains: frozenset[Goal] = frozenset()

    def __or__(self, other: Seen) -> Seen:
        return Seen(
            self.names | other.names,
            self.patterns | other.patterns,
            self.all_properties or other.all_properties,
            max(self.prefix, other.prefix),
            self.all_items or other.all_items,
            self.contains | other.contains,
        )


NONE = Seen()
Branches = dict[Seen, Values]


def expand(x: Expander, place: Place) -> Values:
    return x.algebra.union(NOTHING, *branches(x, place).values())


def branches(x: Expander, place: Place, depth: int = 0) -> Branches:
    """The values of a schema, by what it has then evaluated."""
    schema = place.contents
    if not isinstance(schema, dict):
        return {NONE: keywords.expand(x, place)}
    if depth > MAX_NESTING:
        raise UnsupportedSchema("", KEYWORDS[0], "references nested too deep to follow")
    if "$ref" in schema and x.document.dialect < 2019:
        return branches(x, x.document.resolve(place, schema["$ref"]), depth + 1)
    own = keywords.expand_groups(x, place, skip=(*_APPLICATORS, *KEYWORDS))
    result = {_own_seen(x, place): own}
    for part in _applied(x, place, depth):
        result = _cross(x, result, part)
    for keyword in KEYWORDS:
        if keyword in schema:
            result = _apply(x, result, x.goal(place, schema[keyword]), keyword)
    return result


def _own_seen(x: Expander, place: Place) -> Seen:
    schema = place.contents
    tuple_form = isinstance(schema.get("items"), list)
    first = schema.get("items", []) if tuple_form else schema.get("prefixItems", [])
    rest = "additionalItems" if tuple_form else "items"
    contains = []
    if "contains" in schema and x.document.dialect >= 2020:
        contains.append(x.goal(place, schema["contains"]))
    return Seen(
        frozenset(schema.get("properties", ())),
        frozenset(schema.get("patternProperties", ())),
        "additionalProperties" in schema,
        len(first),
        rest in schema,
        frozenset(contains),
    )


def _applied(x: Expander, place: Place, depth: int) -> Iterable[Branches]:
    """One set of branches for each subschema, or group of them, applied to the same value."""
    schema = place.contents

    def sub(contents: object) -> Branches:
        return branches(x, x.document.child(place, contents), depth + 1)

    for keyword in ("$ref", "$dynamicRef"):
        if keyword in schema:
            target = x.document.resolve(place, schema[keyword], keyword == "$dynamicRef")
            yield branches(x, target, depth + 1)
    for member in schema.get("allOf", ()):
        yield sub(member)
    for keyword, most in (("anyOf", None), ("oneOf", 1)):
        if keyword in schema:
            goals = [x.goal(place, s) for s in schema[keyword]]
            yield _choose(x, [sub(s) for s in schema[keyword]], goals, most)
    if "if" in schema:
        test = x.goal(place, schema["if"])
        yes = _cross(x, sub(schema["if"]), sub(schema.get("then", True)))
        no = _cross(x, {NONE: x.values(x.negate(test))}, sub(schema.get("else", True)))
        yield _join(x, yes, no)
    for keyword in ("dependentSchemas", "dependencies"):
        for name, wanted in schema.get(keyword, {}).items():
            here = Values(objects=(keywords.requiring([name]),))
            absent = keywords.typed(objects=(ObjectConstraint(props=((name, FALSE),)),))
            if isinstance(wanted, list):
                then: Branches = {NONE: keywords.typed(objects=(keywords.requiring(wanted),))}
            else:
                then = sub(wanted)
            yield _join(x, {NONE: absent}, _cross(x, then, {NONE: here}))


def _choose(x: Expander, members: list[Branches], goals: list[Goal], most: int | None) -> Branches:
    """At least one member holds, at most `most`; which ones is settled in each branch."""
    by_count: dict[int, Branches] = {0: {NONE: EVERYTHING}}
    for member, goal in zip(members, goals, strict=True):
        fails = {NONE: x.values(x.negate(goal))}
        new: dict[int, Branches] = {}
        for count, sofar in by_count.items():
            new[count] = _join(x, new.get(count, {}), _cross(x, sofar, fails))
            if most is None or count < most:
                more = 1 if most is None else count + 1
                new[more] = _join(x, new.get(more, {}), _cross(x, sofar, member))
        by_count = new
    return by_count.get(1, {})


def _join(x: Expander, a: Branches, b: Branches) -> Branches:
    out = dict(a)
    for seen, values in b.items():
        out[seen] = x.algebra.union(out[seen], values) if seen in out else values
    x.budget.check("alternatives", len(out))
    return out


def _cross(x: Expander, a: Branches, b: Branches) -> Branches:
    out: Branches = {}
    for seen, values in a.items():
        for other_seen, other in b.items():
            both = x.algebra.intersect(values, other)
            if both == NOTHING or x.algebra.is_empty(both):
                continue
            key = seen | other_seen
            out[key] = x.algebra.union(out[key], both) if key in out else both
    x.budget.check("alternatives", len(out))
    return out


def _apply(x: Expander, have: Branches, goal: Goal, keyword: str) -> Branches:
    """Constrain what is left in each branch; afterwards all is evaluated."""
    out: Branches = {}
    for seen, values in have.items():
        if keyword == "unevaluatedProperties":
            done = seen | Seen(all_properties=True)
            limit = EVERYTHING if seen.all_properties else _properties(seen, goal)
        else:
            done = seen | Seen(all_items=True)
            limit = EVERYTHING if seen.all_items else _items(x, seen, goal)
        both = x.algebra.intersect(values, limit)
        out[done] = x.algebra.union(out[done], both) if done in out else both
    return out


def _properties(seen: Seen, goal: Goal) -> Values:
    names = strings.outside(("p:" + p for p in seen.patterns), seen.names)
    return keywords.typed(objects=(ObjectConstraint(every=((names, goal),)),))


def _items(x: Expander, seen: Seen, goal: Goal) -> Values:
    for matched in sorted(seen.contains, key=sorted):
        goal = x.either(goal, matched)
    return keywords.typed(arrays=(ArrayConstraint((TRUE,) * seen.prefix, goal),))
