"""A schema document: its dialect, where its references lead, and how a place in it is called."""

from __future__ import annotations

from functools import lru_cache
from itertools import chain
from typing import Any
from urllib.parse import unquote

from msgspec import Struct

from . import metaschema
from .errors import InvalidSchema, UnsupportedSchema
from .json_types import Json
from .limits import Budget

DIALECTS = {
    "https://json-schema.org/draft/2020-12/schema": 2020,
    "https://json-schema.org/draft/2019-09/schema": 2019,
    "http://json-schema.org/draft-07/schema": 7,
    "http://json-schema.org/draft-06/schema": 6,
    "http://json-schema.org/draft-04/schema": 4,
    "http://json-schema.org/schema": 2020,
}
_IDENTIFYING = frozenset(
    ("$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveRef", "$recursiveAnchor")
)
_LEADING = _IDENTIFYING | {"$ref", "$id", "id"}
_HOLDERS, _NAMED = frozenset((dict, list)), frozenset((str,))


class Place(Struct, frozen=True):
    """A schema and what its references are relative to (None: the document's root alone)."""

    contents: Json
    resolver: Any = None

    @property
    def key(self) -> tuple[object, ...]:
        if self.resolver is None:
            return (id(self.contents),)
        scope = tuple(uri for uri, _ in self.resolver.dynamic_scope())
        return (id(self.contents), self.resolver._base_uri, scope)


class Document:
    """`dialect` is the draft: 4, 6, 7, 2019 or 2020; schemas without $schema are read as 2020."""

    def __init__(self, schema: Json, budget: Budget) -> None:
        self.schema = schema
        plain = _survey(schema, budget)
        self.dialect = _dialect(schema)
        self.declared = isinstance(schema, dict) and isinstance(schema.get("$schema"), str)
        self.resolver = None if plain else self._make_resolver()
        self.checked: set[int] = set()  # ids of the schemas whose shape is known to be right
        self._parents: dict[int, tuple[int, str | int]] = {}

    def root(self) -> Place:
        return Place(self.schema, self.resolver)

    def child(self, parent: Place, contents: Json) -> Place:
        """A subschema of `parent`; its own $id changes what its references are relative to."""
        resolver = parent.resolver
        if resolver is not None and isinstance(contents, dict):
            name = "id" if self.dialect == 4 else "$id"
            beside_ref = "$ref" in contents and isinstance(contents.get(name), str)
            if beside_ref and not self.declared:
                raise UnsupportedSchema("", name, "beside $ref its sense depends on the $schema")
            if isinstance(contents.get(name), str) and not (beside_ref and self.dialect < 2019):
                resolver = resolver.in_subresource(self._specification().create_resource(contents))
        return Place(contents, resolver)

    def resolve(self, place: Place, ref: str, dynamic: bool = False) -> Place:
        if place.resolver is None:
            target = self._pointer(ref)
            metaschema.check(target, self.path_of, self.checked)
            return Place(target, None)
        from referencing.exceptions import Unresolvable
        from referencing.jsonschema import DynamicAnchor

        resolver = place.resolver
        try:
            found = resolver.lookup(ref)
            if not dynamic and "#" in ref and not ref.endswith("#") and "#/" not in ref:
                uri = found.resolver._base_uri
                anchor = found.resolver._registry.anchor(uri, ref.partition("#")[2]).value
                if isinstance(anchor, DynamicAnchor):
                    return self.child(Place(None, found.resolver), anchor.resource.contents)
        except (Unresolvable, ValueError, KeyError, TypeError, IndexError) as error:
            raise UnsupportedSchema("", "$ref", f"{ref!r} leads nowhere") from error
        metaschema.check(found.contents, self.path_of, self.checked)
        return Place(found.contents, _short_scope(found.resolver))

    def _pointer(self, ref: str) -> Json:
        target = self.schema
        if ref in ("#", ""):
            return target
        for part in unquote(ref[2:]).split("/"):
            part = part.replace("~1", "/").replace("~0", "~")
            if isinstance(target, dict) and part in target:
                target = target[part]
            elif isinstance(target, list) and part.isdecimal() and int(part) < len(target):
                target = target[int(part)]
            else:
                raise InvalidSchema("", "$ref", f"{ref!r} leads nowhere")
        return target

    def _specification(self) -> Any:
        from referencing import jsonschema as drafts

        return {
            4: drafts.DRAFT4, 6: drafts.DRAFT6, 7: drafts.DRAFT7, 2019: drafts.DRAFT201909
        }.get(self.dialect, drafts.DRAFT202012)  # fmt: skip

    def _make_resolver(self) -> Any:
        resource = self._specification().create_resource(self.schema)
        try:
            registry = _known_schemas().with_resource(resource.id() or "", resource).crawl()
            return registry.resolver(resource.id() or "")
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise InvalidSchema("$", "$id", "identifiers that cannot be read") from error

    def path_of(self, contents: Json) -> str:
        """JSONPath of a schema object inside the document, "$" where it is not part of it."""
        if not self._parents:
            self._parents = _parents(self.schema)
        path, place = "", id(contents)
        while place != id(self.schema) and place in self._parents:
            place, key = self._parents[place]
            path = segment(key) + path
        return "$" + path


def _parents(schema: Json) -> dict[int, tuple[int, str | int]]:
    """id of an object or array -> id of what holds it, and where; the first of several places."""
    found: dict[int, tuple[int, str | int]] = {}
    stack = [schema] if isinstance(schema, (dict, list)) else []
    while stack:
        holder = stack.pop()
        pairs = holder.items() if isinstance(holder, dict) else enumerate(holder)
        for key, value in pairs:
            if isinstance(value, (dict, list)) and id(value) not in found:
                found[id(value)] = (id(holder), key)
                stack.append(value)
    return found


def segment(key: str | int) -> str:
    """One step of a JSONPath."""
    if isinstance(key, int):
        return f"[{key}]"
    return f".{key}" if key.replace("$", "_").replace("-", "_").isidentifier() else f"[{key!r}]"


def _short_scope(resolver: Any) -> Any:
    """Drop repeated resources from the dynamic scope: the outermost decides, so scopes are few."""
    from rpds import List

    seen: list[str] = []
    for uri in [uri for uri, _ in resolver.dynamic_scope()][::-1]:
        if uri not in seen:
            seen.append(uri)
    return type(resolver)(resolver._base_uri, resolver._registry, List(seen[::-1]))


@lru_cache(maxsize=1)
def _known_schemas() -> Any:
    """The meta-schemas, which a schema may refer to."""
    from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]

    return REGISTRY


def _dialect(schema: Json) -> int:
    name = schema.get("$schema") if isinstance(schema, dict) else None
    if not isinstance(name, str):
        return 2020
    if "json-schema.org/draft-03" in name:
        raise UnsupportedSchema("$", "$schema", "draft 3 means other things by the same keywords")
    name = name.rstrip("#").replace(
        "https://json-schema.org/draft-", "http://json-schema.org/draft-"
    )
    return DIALECTS.get(name, 2020)


def _survey(schema: Json, budget: Budget) -> bool:
    """Check size and depth; whether all references are pointers into this document."""
    count, plain, depth = 1, True, 0
    level = [schema] if isinstance(schema, (dict, list)) else []
    while level:
        budget.check("schema_depth", depth)
        objects = [value for value in level if isinstance(value, dict)]
        plain = _all_plain(objects, depth) and plain
        below: list[Json] = []
        for value in level:
            count += len(value)
            children = value.values() if isinstance(value, dict) else value
            below += [child for child in children if type(child) in _HOLDERS]
        budget.check("schema_nodes", count)
        level, depth = below, depth + 1
    return plain


def _all_plain(objects: list[dict[Any, Json]], depth: int) -> bool:
    """Whether nothing but pointers into the document says where it leads, at one depth."""
    names = set(chain.from_iterable(objects))
    if not (_NAMED.issuperset(map(type, names)) or all(isinstance(n, str) for n in names)):
        raise InvalidSchema("$", "", "a key that is not a string")
    return _LEADING.isdisjoint(names) or all(_plain(each, depth) for each in objects)


def _plain(schema: dict[str, Json], depth: int) -> bool:
    if _LEADING.isdisjoint(schema):
        return True
    ref = schema.get("$ref", "#")
    named = depth and any(isinstance(schema.get(name), str) for name in ("$id", "id"))
    return (
        not named
        and _IDENTIFYING.isdisjoint(schema)
        and (not isinstance(ref, str) or ref == "#" or ref.startswith("#/"))
    )
