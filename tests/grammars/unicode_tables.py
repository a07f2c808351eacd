"""Writes grammars/unicode_tables.py from Python's Unicode database:

python -m tests.grammars.unicode_tables > grammars/unicode_tables.py
"""

import sys
import textwrap
import unicodedata
from itertools import groupby

HEAD = '''"""General categories of Unicode {version}, from tests/grammars/unicode_tables.py.

Scanning Python's database for them takes 150 ms, which a first request would pay. Numbers are in
base 36: how far a run begins behind the one before it, and by how much it is longer than one.
"""

VERSION = "{version}"

CATEGORIES = {{
'''


def runs():
    """category -> [(low, high)] in order, without surrogates, which no text contains."""
    found = {}
    points = (p for p in range(0x110000) if not 0xD800 <= p < 0xE000)
    # The key keeps a run from reaching over the surrogates.
    for (name, _), group in groupby(points, lambda p: (unicodedata.category(chr(p)), p > 0xD800)):
        members = list(group)
        found.setdefault(name, []).append((members[0], members[-1]))
    return found


def base36(number):
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    return (base36(number // 36) if number >= 36 else "") + digits[number % 36]


def encoded(ranges):
    point, out = 0, []
    for low, high in ranges:
        out.append(base36(low - point) + (f"-{base36(high - low)}" if high > low else ""))
        point = high
    return " ".join(out)


def lines():
    yield HEAD.format(version=unicodedata.unidata_version)
    for name, ranges in sorted(runs().items()):
        text = textwrap.wrap(encoded(ranges), 94, break_on_hyphens=False)
        if len(text) == 1 and len(text[0]) < 85:
            yield f'    "{name}": "{text[0]}",\n'
        else:
            yield f'    "{name}": """\n'
            yield from (f"    {line}\n" for line in text)
            yield '    """,\n'
    yield "}\n"


if __name__ == "__main__":
    sys.stdout.writelines(lines())
