"""Formats: what is accepted is valid, what is common is accepted."""

# ruff: noqa: E501 - rows of tables

import pytest

import grammars
from grammars import formats
from tests.grammars.support import DONE, Judges, dumps

TABLE = {
    "date": (["2024-02-29", "1999-12-31", "2000-02-29"], ["2023-02-29", "1900-02-29", "2024-04-31", "24-1-1", "0000-01-02", "0000-02-29"]),
    "time": (["12:00:00Z", "23:59:60Z", "01:02:03.5+02:30"], ["24:00:00Z", "12:00:00", "22:59:60Z"]),
    "date-time": (["2024-02-29T12:00:00Z", "1985-04-12t23:20:50.52z"], ["2024-02-30T12:00:00Z", "2024-01-01"]),
    "duration": (["P4Y", "PT36H", "P1DT12H", "P2W"], ["P", "PT", "P1D2H", "P1Y2D", "P2S", "P1Y2W"]),
    "email": (["a.b@example.com", '"a b"@x.org', "a@[127.0.0.1]"], ["a", ".a@x.org", "a@", "a..b@x.org"]),
    "idn-email": (["실례@실례.테스트", "a@b.org"], ["a", "@b"]),
    "hostname": (["example.com", "a-b.c1", "x"], ["-a.b", "a_b", "a.", "", "a" * 64, "ab--c", "a" * 63 + ".b" * 96]),
    "idn-hostname": (["실례.테스트", "example.com"], ["〮실례", "-x", "a..b"]),
    "ipv4": (["127.0.0.1", "255.255.255.255"], ["256.0.0.1", "01.2.3.4", "1.2.3"]),
    "ipv6": (["::1", "2001:db8::8a2e:370:7334", "::ffff:1.2.3.4", "1:2:3:4:5:6:7:8", "1::"],
             [":::", "12345::", "1:2:3:4:5:6:7:8:9", "::1::2", "1:2:3:4:5:6:7", "::ffff:256.1.1.1"]),
    "uri": (["http://a.b/c?d=e#f", "urn:a:b", "mailto:x@y"], ["//a.b", "a b:c", "http://a b", "http://a/%zz", "abc"]),
    "uri-reference": (["/a/b", "#x", "", "http://x"], ["\\\\x", "a b", "%1"]),
    "iri": (["http://ƒøø.ßår/?∂=π"], ["/abc", "http:// x"]),
    "iri-reference": (["//ƒøø/ß", "#ƒ"], ["\\a"]),
    "uri-template": (["http://x/{a}/{b:1}", "{+v*}"], ["{", "{}", "{a:0}", "a b"]),
    "uuid": (["2eb8aa08-aa98-11ea-b4aa-73b441d16380"], ["2eb8aa08aa9811eab4aa73b441d16380", "x"]),
    "json-pointer": (["", "/a~0b/~1", "/"], ["a", "/~", "/~2"]),
    "relative-json-pointer": (["0", "1/a", "2#"], ["01", "-1", "/a", "0##"]),
    "regex": (["^a+(b|c)*$", "[a-z]\\d{2}", "(?:x)?", "(?=a)b"], ["(", "a)", "[a", "*", "a\\"]),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(formats.FORMATS))
def test_format(name):
    yes, no = TABLE[name]
    judges = Judges(grammars.compile({"type": "string", "format": name}))
    for text in yes:
        assert judges.judge(dumps(text)) == DONE, text
    for text in no:
        assert judges.judge(dumps(text)) != DONE, text


def test_a_format_goes_with_lengths_and_patterns():
    schema = {"type": "string", "format": "ipv4", "pattern": "^1.*9$", "maxLength": 8}
    judges = Judges(grammars.compile(schema))
    assert judges.judge('"10.0.0.9"') == DONE
    assert judges.judge('"10.0.10.9"') != DONE
    assert judges.judge('"20.0.0.9"') != DONE


def test_an_unknown_format_is_an_annotation_and_is_told():
    schema = {"type": "object", "properties": {"a": {"type": "string", "format": "colour"}}}
    assert grammars.compile(schema).ignored == ("$.properties.a.format: colour",)


@pytest.mark.parametrize("text", [{"format": "uri"}, {"pattern": "^([ab]*a[ab])?%[0-9]$"}])
def test_texts_that_are_kept_are_what_was_printed_first(text):
    unique = {"items": {"type": "string", "pattern": "%$"}, "uniqueItems": True}
    schema = {"items": {"type": "string", **text}, "properties": {"a": unique}}
    assert len({grammars.compile_schema(schema) for _ in range(3)}) == 1
