"""Sets of characters."""

import unicodedata

import pytest

from grammars import charset, unicode_tables
from tests.grammars import unicode_tables as scan


def test_categories_are_those_of_the_unicode_database():
    if unicodedata.unidata_version != unicode_tables.VERSION:
        pytest.skip(f"Python knows Unicode {unicodedata.unidata_version}")
    found = scan.runs()
    assert sorted(found) == sorted(unicode_tables.CATEGORIES)
    for name, ranges in found.items():
        assert charset.unicode_property(name) == tuple(ranges), name


def test_properties():
    letters = charset.unicode_property("L")
    assert letters == charset.unicode_property("gc=Letter")
    assert charset.union(letters, charset.complement(letters)) == charset.UNIVERSE
    assert all(charset.contains(letters, ord(c)) for c in "aZßλж中")
    assert not any(charset.contains(letters, ord(c)) for c in "0_ -€")
    assert charset.unicode_property("LC") == charset.union(
        *(charset.unicode_property(c) for c in ("Lu", "Ll", "Lt"))
    )
    assert charset.unicode_property("ASCII") == ((0, 0x7F),)
    assert charset.unicode_property("Script=Greek") is None
    assert charset.unicode_property("Cs") == charset.EMPTY
    assert charset.unicode_property("X") is None


def test_surrogates_are_no_characters():
    assert charset.single(0xD800) == charset.EMPTY
    assert charset.single(0xE000) == ((0xE000, 0xE000),)
