"""Fields that a body has and its type does not, also those deep inside."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import msgspec
from msgspec import Raw, Struct
from msgspec import inspect as types

MAX_FOUND = 64
"""Most unknown fields of one body that are looked for."""

_object = msgspec.json.Decoder(dict[str, Raw])
_list = msgspec.json.Decoder(list[dict[str, Raw]])


class Shape(Struct, frozen=True):
    """The fields that the objects at one place may have."""

    names: frozenset[str]
    inner: dict[str, Shape]
    """Of fields that hold objects, or lists of them."""


def shape_of(type: types.Type) -> Shape | None:
    """None for what holds no objects with fields of their own. Types must not be recursive."""
    match type:
        case types.Metadata(extra={"shape": described}):
            return shape_of(types.type_info(described))
        case types.UnionType():
            return _merged([shape for each in type.types if (shape := shape_of(each))])
        case types.ListType():
            return shape_of(type.item_type)
        case types.StructType():
            inner = {field.encode_name: shape_of(field.type) for field in type.fields}
            tags = [type.tag_field] if type.tag_field else []
            known = {name: shape for name, shape in inner.items() if shape is not None}
            return Shape(frozenset([*inner, *tags]), known)
    return None


def _merged(shapes: list[Shape]) -> Shape | None:
    """What any of the objects of a union may have."""
    if not shapes:
        return None
    names = frozenset[str]().union(*(shape.names for shape in shapes))
    return Shape(names, {name: each for shape in shapes for name, each in shape.inner.items()})


class UnknownFields:
    """Finds those of one type of body; built once."""

    def __init__(self, type: type[Struct]) -> None:
        shape = shape_of(types.type_info(type))
        assert shape is not None
        self._shape = shape

    def __call__(self, body: bytes) -> list[str]:
        """Their paths, such as `messages[0].mood`. `body` has been decoded as the type before."""
        return list(islice(_unknown(_object.decode(body), self._shape, ""), MAX_FOUND))


def _unknown(fields: dict[str, Raw], shape: Shape, path: str) -> Iterator[str]:
    prefix = f"{path}." if path else ""
    if not fields.keys() <= shape.names:
        yield from (prefix + name for name in fields if name not in shape.names)
    for name, inner in shape.inner.items():
        if (value := fields.get(name)) is not None:
            yield from _inside(value, inner, prefix + name)


def _inside(value: Raw, shape: Shape, path: str) -> Iterator[str]:
    match memoryview(value)[0]:
        case 0x7B:  # {
            yield from _unknown(_object.decode(value), shape, path)
        case 0x5B:  # [
            for index, item in enumerate(_objects(value)):
                yield from _unknown(item, shape, f"{path}[{index}]")


def _objects(value: Raw) -> list[dict[str, Raw]]:
    """Of a list that is one of objects."""
    try:
        return _list.decode(value)
    except msgspec.ValidationError:
        return []
