"""Sets of Unicode code points as sorted, disjoint, non-adjacent inclusive ranges.

The universe is the Unicode scalar values: surrogates are no characters of a JSON text.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain

from .unicode_tables import CATEGORIES

CharSet = tuple[tuple[int, int], ...]

EMPTY: CharSet = ()
UNIVERSE: CharSet = ((0, 0xD7FF), (0xE000, 0x10FFFF))
DIGIT: CharSet = ((0x30, 0x39),)
WORD: CharSet = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
LINE_ENDS: CharSet = ((0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029))
# ECMA-262 WhiteSpace and LineTerminator.
SPACE: CharSet = (
    (0x09, 0x0D),
    (0x20, 0x20),
    (0xA0, 0xA0),
    (0x1680, 0x1680),
    (0x2000, 0x200A),
    (0x2028, 0x2029),
    (0x202F, 0x202F),
    (0x205F, 0x205F),
    (0x3000, 0x3000),
    (0xFEFF, 0xFEFF),
)


def normalize(ranges: Iterable[tuple[int, int]]) -> CharSet:
    """Sort and merge; ranges may overlap. Surrogates are kept: cut them with `intersect`."""
    out: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if out and low <= out[-1][1] + 1:
            if high > out[-1][1]:
                out[-1] = (out[-1][0], high)
        else:
            out.append((low, high))
    return tuple(out)


def single(point: int) -> CharSet:
    """One code point; nothing where that is a surrogate."""
    return EMPTY if 0xD800 <= point < 0xE000 else ((point, point),)


def of(text: str) -> CharSet:
    return normalize((ord(c), ord(c)) for c in text)


def union(*sets: CharSet) -> CharSet:
    return normalize(chain.from_iterable(sets))


def intersect(a: CharSet, b: CharSet) -> CharSet:
    out, i, j = [], 0, 0
    while i < len(a) and j < len(b):
        (low, high), (other_low, other_high) = a[i], b[j]
        if other_low > low:
            low = other_low
        if high < other_high:
            i += 1
        else:
            j += 1
            high = other_high
        if low <= high:
            out.append((low, high))
    return tuple(out)


def complement(a: CharSet) -> CharSet:
    out, start = [], 0
    for low, high in a:
        if low > start:
            out.append((start, low - 1))
        start = high + 1
    if start <= 0x10FFFF:
        out.append((start, 0x10FFFF))
    return intersect(tuple(out), UNIVERSE)


def contains(a: CharSet, point: int) -> bool:
    return any(low <= point <= high for low, high in a)


def partition(sets: Sequence[CharSet]) -> tuple[list[CharSet], list[list[int]]]:
    """Split the universe so that each set is a union of the parts.

    Returns the parts that lie in at least one set, and for each set the indices of its parts.
    """
    events: dict[int, list[int]] = {}
    for index, ranges in enumerate(sets):
        for low, high in ranges:
            events.setdefault(low, []).append(index)
            events.setdefault(high + 1, []).append(~index)
    parts: dict[frozenset[int], list[tuple[int, int]]] = {}
    active: set[int] = set()
    previous = 0
    for point in sorted(events):
        if active and point > previous:
            parts.setdefault(frozenset(active), []).append((previous, point - 1))
        for index in events[point]:
            if index >= 0:
                active.add(index)
            else:
                active.discard(~index)
        previous = point
    members: list[list[int]] = [[] for _ in sets]
    for number, key in enumerate(parts):
        for index in key:
            members[index].append(number)
    return [normalize(r) for r in parts.values()], members


@lru_cache(maxsize=32)
def _category(name: str) -> CharSet:
    """The code points of a general category."""
    ranges, point = [], 0
    for run in CATEGORIES[name].split():
        gap, _, more = run.partition("-")
        low = point + int(gap, 36)
        point = low + int(more or "0", 36)
        ranges.append((low, point))
    return tuple(ranges)


_LONG_NAMES = {
    "Letter": "L", "Cased_Letter": "LC", "Uppercase_Letter": "Lu", "Lowercase_Letter": "Ll",
    "Titlecase_Letter": "Lt", "Modifier_Letter": "Lm", "Other_Letter": "Lo", "Mark": "M",
    "Combining_Mark": "M", "Nonspacing_Mark": "Mn", "Spacing_Mark": "Mc", "Enclosing_Mark": "Me",
    "Number": "N", "Decimal_Number": "Nd", "digit": "Nd", "Letter_Number": "Nl",
    "Other_Number": "No", "Punctuation": "P", "punct": "P", "Connector_Punctuation": "Pc",
    "Dash_Punctuation": "Pd", "Open_Punctuation": "Ps", "Close_Punctuation": "Pe",
    "Initial_Punctuation": "Pi", "Final_Punctuation": "Pf", "Other_Punctuation": "Po",
    "Symbol": "S", "Math_Symbol": "Sm", "Currency_Symbol": "Sc", "Modifier_Symbol": "Sk",
    "Other_Symbol": "So", "Separator": "Z", "Space_Separator": "Zs", "Line_Separator": "Zl",
    "Paragraph_Separator": "Zp", "Other": "C", "Control": "Cc", "cntrl": "Cc", "Format": "Cf",
    "Private_Use": "Co", "Unassigned": "Cn",
}  # fmt: skip


@lru_cache(maxsize=256)
def unicode_property(name: str) -> CharSet | None:
    """The set that `\\p{name}` stands for: general categories, Any, ASCII; None if unknown."""
    key, _, value = name.partition("=")
    if value and key not in ("General_Category", "gc"):
        return None
    short = value or key
    if short == "Any":
        return UNIVERSE
    if short == "ASCII":
        return ((0, 0x7F),)
    short = _LONG_NAMES.get(short, short)
    if short == "LC":
        return union(*map(_category, ("Lu", "Ll", "Lt")))
    if short in ("Cs", "Surrogate"):
        return EMPTY
    if short in CATEGORIES:
        return _category(short)
    if len(short) == 1 and any(c[0] == short for c in CATEGORIES):
        return union(*(_category(c) for c in CATEGORIES if c[0] == short))
    return None
