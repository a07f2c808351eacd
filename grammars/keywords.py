"""The keywords of JSON Schema, each as a value set; the table of them stands at the end."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING

from msgspec.structs import replace

from . import formats, numbers, strings, unevaluated
from .documents import Place
from .errors import InvalidSchema, UnsupportedSchema
from .json_types import Json
from .numbers import NumberConstraint
from .strings import StringConstraint
from .values import (
    EVERYTHING,
    FALSE,
    NOTHING,
    TRUE,
    ArrayConstraint,
    Contains,
    Goal,
    ObjectConstraint,
    Values,
)

if TYPE_CHECKING:
    from .expand import Expander

_ANY = {
    "null": Values(null=True),
    "boolean": Values(booleans=EVERYTHING.booleans),
    "number": Values(numbers=EVERYTHING.numbers),
    "integer": Values(numbers=(numbers.WHOLE,)),
    "string": Values(strings=EVERYTHING.strings),
    "array": Values(arrays=EVERYTHING.arrays),
    "object": Values(objects=EVERYTHING.objects),
}


def expand(x: Expander, place: Place) -> Values:
    """All keywords of one schema object together."""
    schema = place.contents
    if isinstance(schema, bool):
        return EVERYTHING if schema else NOTHING
    if not isinstance(schema, dict):
        raise InvalidSchema("", "", "a schema must be an object or a boolean")
    if "$ref" in schema and x.document.dialect < 2019:
        return reference(x, place, "$ref")
    if not _UNEVALUATED.isdisjoint(schema):
        return unevaluated.expand(x, place)
    return expand_groups(x, place)


def expand_groups(x: Expander, place: Place, skip: tuple[str, ...] = ()) -> Values:
    """All keywords but those in `skip`, together."""
    result = EVERYTHING
    present = {GROUP_OF[k] for k in place.contents if k in GROUP_OF and k not in skip}
    for index in sorted(present):
        if result == NOTHING:
            break
        result = x.algebra.intersect(result, GROUPS[index][1](x, place))
    return result


def plain_type(schema: Json) -> str | None:
    """The type of a schema that says no more than that, as most schemas do."""
    name = schema.get("type") if isinstance(schema, dict) else None
    plain = isinstance(name, str) and name in _ANY and _BESIDE_TYPE.isdisjoint(schema)
    return name if plain else None


def any_of_type(name: str) -> Values:
    """The values that `plain_type` tells of."""
    return _ANY[name]


def typed(**parts: object) -> Values:
    """Everything, except that one type is constrained."""
    return replace(EVERYTHING, **parts)


# ---------------------------------------------------------------------- any type


def types(x: Expander, place: Place) -> Values:
    wanted = place.contents["type"]
    if isinstance(wanted, str) and wanted in _ANY:
        return _ANY[wanted]
    names = wanted if isinstance(wanted, list) else [wanted]
    if any(n == "any" for n in names):
        return EVERYTHING
    unknown = [n for n in names if n not in _ANY]
    if unknown:
        raise InvalidSchema("", "type", f"unknown type {unknown[0]!r}")
    return x.algebra.union(*(_ANY[n] for n in names))


def enum(x: Expander, place: Place) -> Values:
    return x.algebra.union(NOTHING, *map(x.constant_values, place.contents["enum"]))


def const(x: Expander, place: Place) -> Values:
    return x.constant_values(place.contents["const"])


def reference(x: Expander, place: Place, keyword: str) -> Values:
    ref = place.contents[keyword]
    target = x.document.resolve(place, ref, dynamic=keyword == "$dynamicRef")
    if not isinstance(target.contents, (dict, bool)):
        raise InvalidSchema("", keyword, f"{ref!r} is not a schema")
    return x.values(x.goal_at(target))


def static_ref(x: Expander, place: Place) -> Values:
    return reference(x, place, "$ref")


def dynamic_ref(x: Expander, place: Place) -> Values:
    return reference(x, place, "$dynamicRef")


def recursive_ref(x: Expander, place: Place) -> Values:
    raise UnsupportedSchema("", "$recursiveRef", "only the $dynamicRef of 2020-12 is resolved")


# ---------------------------------------------------------------------- scalars


def number(x: Expander, place: Place) -> Values:
    schema = place.contents
    low, high = schema.get("minimum"), schema.get("maximum")
    low_open, high_open = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    parts = []
    if low is not None:
        parts.append(NumberConstraint(low=numbers.exact(low), low_open=low_open is True))
    if high is not None:
        parts.append(NumberConstraint(high=numbers.exact(high), high_open=high_open is True))
    if low_open is not None and not isinstance(low_open, bool):
        parts.append(NumberConstraint(low=numbers.exact(low_open), low_open=True))
    if high_open is not None and not isinstance(high_open, bool):
        parts.append(NumberConstraint(high=numbers.exact(high_open), high_open=True))
    step = schema.get("multipleOf")
    if step is not None:
        parts.append(NumberConstraint(step=abs(Fraction(numbers.exact(step)))))
    result = EVERYTHING
    for part in parts:
        result = x.algebra.intersect(result, typed(numbers=(part,)))
    return result


def string(x: Expander, place: Place) -> Values:
    schema = place.contents
    low, high = _count(schema, "minLength", 0), _count(schema, "maxLength", None)
    if high is not None and (low or 0) > high:
        return typed(strings=())
    found: StringConstraint | None = StringConstraint(low or 0, high)
    names = []
    if "pattern" in schema:
        x.budget.check("pattern_length", len(schema["pattern"]), "pattern")
        names.append("p:" + schema["pattern"])
    if "format" in schema:
        name = schema["format"]
        if name in formats.UNSUPPORTED:
            raise UnsupportedSchema("", "format", formats.UNSUPPORTED[name])
        if name in formats.FORMATS:
            names.append("f:" + name)
        else:
            x.ignore_format(schema, name)
    for name in names:
        found = found and strings.intersect(found, strings.matching(name))
    return typed(strings=(found,) if found else ())


def _count(schema: Json, keyword: str, default: int | None) -> int | None:
    value = schema.get(keyword, default)
    return value if value is None else int(value)


# ---------------------------------------------------------------------- arrays


def array(x: Expander, place: Place) -> Values:
    schema = place.contents
    tuple_form = isinstance(schema.get("items"), list)
    first = schema.get("items", []) if tuple_form else schema.get("prefixItems", [])
    rest = schema.get("additionalItems", True) if tuple_form else schema.get("items", True)
    prefix = tuple(x.goal(place, s) for s in first)
    low, high = _count(schema, "minItems", 0) or 0, _count(schema, "maxItems", None)
    contains: tuple[Contains, ...] = ()
    if "contains" in schema:
        least = _count(schema, "minContains", 1)
        most = _count(schema, "maxContains", None)
        contains = (Contains(0, x.goal(place, schema["contains"]), least or 0, most),)
    unique = schema.get("uniqueItems") is True
    if high is not None and low > high:
        return typed(arrays=())
    c = ArrayConstraint(prefix, x.goal(place, rest), low, high, contains, unique)
    return typed(arrays=() if x.algebra.array_is_empty(c) else (c,))


# ---------------------------------------------------------------------- objects


def object_(x: Expander, place: Place) -> Values:
    schema = place.contents
    props = tuple((n, x.goal(place, s)) for n, s in schema.get("properties", {}).items())
    every = patterned(x, place)
    extra = x.goal(place, schema.get("additionalProperties", True))
    if extra != TRUE:
        patterned_names = ("p:" + p for p in schema.get("patternProperties", {}))
        others = strings.outside(patterned_names, frozenset(n for n, _ in props))
        every += ((others, extra),)
    if "propertyNames" in schema:
        every += bad_names(x, x.goal(place, schema["propertyNames"]))
    required = schema.get("required")
    names = [n for n in required if isinstance(n, str)] if isinstance(required, list) else []
    props += tuple((n, TRUE) for n in names if n not in schema.get("properties", {}))
    low, high = _count(schema, "minProperties", 0) or 0, _count(schema, "maxProperties", None)
    c = ObjectConstraint(tuple(dict(props).items()), frozenset(names), every, (), low, high)
    if any(g == FALSE and n in c.required for n, g in c.props) or (
        high is not None and max(low, len(c.required)) > high
    ):
        return typed(objects=())
    return typed(objects=(c,))


def patterned(x: Expander, place: Place) -> tuple[tuple[StringConstraint, Goal], ...]:
    out = []
    for source, schema in place.contents.get("patternProperties", {}).items():
        x.budget.check("pattern_length", len(source), "patternProperties")
        out.append((strings.matching("p:" + source), x.goal(place, schema)))
    return tuple(out)


def bad_names(x: Expander, goal: Goal) -> tuple[tuple[StringConstraint, Goal], ...]:
    """propertyNames: a name outside the schema's strings makes its property impossible."""
    outside = x.values(x.negate(goal)).strings
    return tuple((names, FALSE) for names in outside)


def _dependent(x: Expander, place: Place, keyword: str) -> Values:
    """For each name: it is absent, or what depends on it holds."""
    result = EVERYTHING
    for name, wanted in place.contents[keyword].items():
        if isinstance(wanted, list):
            then = typed(objects=(requiring(wanted),))
        else:
            then = x.values(x.goal(place, wanted))
        present = x.algebra.intersect(Values(objects=(requiring([name]),)), then)
        absent = typed(objects=(ObjectConstraint(props=((name, FALSE),)),))
        result = x.algebra.intersect(result, x.algebra.union(absent, present))
    return result


def dependent_required(x: Expander, place: Place) -> Values:
    return _dependent(x, place, "dependentRequired")


def dependent_schemas(x: Expander, place: Place) -> Values:
    return _dependent(x, place, "dependentSchemas")


def dependencies(x: Expander, place: Place) -> Values:
    return _dependent(x, place, "dependencies")


def requiring(names: list[str]) -> ObjectConstraint:
    return ObjectConstraint(props=tuple((n, TRUE) for n in names), required=frozenset(names))


# ---------------------------------------------------------------------- combinators


def _branches(x: Expander, place: Place, keyword: str) -> list[Values]:
    return [x.values(x.goal(place, s)) for s in place.contents[keyword]]


def all_of(x: Expander, place: Place) -> Values:
    result = EVERYTHING
    for branch in _branches(x, place, "allOf"):
        result = x.algebra.intersect(result, branch)
    return result


def any_of(x: Expander, place: Place) -> Values:
    return x.algebra.union(NOTHING, *_branches(x, place, "anyOf"))


def one_of(x: Expander, place: Place) -> Values:
    """Each branch without what the others accept; disjoint ones stay as they are."""
    branches = _branches(x, place, "oneOf")
    parts = []
    for index, branch in enumerate(branches):
        for other_index, other in enumerate(branches):
            if other_index != index:
                branch = x.algebra.subtract(branch, other)
        parts.append(branch)
    return x.algebra.union(NOTHING, *parts)


def not_(x: Expander, place: Place) -> Values:
    return x.values(x.negate(x.goal(place, place.contents["not"])))


def conditional(x: Expander, place: Place) -> Values:
    schema = place.contents
    test = x.goal(place, schema["if"])
    then = x.goal(place, schema.get("then", True))
    otherwise = x.goal(place, schema.get("else", True))
    if then == otherwise == TRUE:
        return EVERYTHING
    yes = x.algebra.intersect(x.values(test), x.values(then))
    no = x.algebra.intersect(x.values(x.negate(test)), x.values(otherwise))
    return x.algebra.union(NOTHING, yes, no)


Group = tuple[tuple[str, ...], Callable[["Expander", Place], Values]]
GROUPS: tuple[Group, ...] = (
    (("type",), types),
    (("enum",), enum),
    (("const",), const),
    (("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), number),
    (("minLength", "maxLength", "pattern", "format"), string),
    (
        ("items", "prefixItems", "additionalItems", "contains", "minItems", "maxItems",
         "uniqueItems"),
        array,
    ),
    (
        ("properties", "patternProperties", "additionalProperties", "propertyNames", "required",
         "minProperties", "maxProperties"),
        object_,
    ),
    (("$ref",), static_ref),
    (("$dynamicRef",), dynamic_ref),
    (("$recursiveRef",), recursive_ref),
    (("allOf",), all_of),
    (("anyOf",), any_of),
    (("oneOf",), one_of),
    (("not",), not_),
    (("if",), conditional),
    (("dependentRequired",), dependent_required),
    (("dependentSchemas",), dependent_schemas),
    (("dependencies",), dependencies),
)  # fmt: skip
GROUP_OF = {keyword: index for index, (names, _) in enumerate(GROUPS) for keyword in names}
_UNEVALUATED = frozenset(unevaluated.KEYWORDS)
_BESIDE_TYPE = (GROUP_OF.keys() | _UNEVALUATED) - {"type"}
