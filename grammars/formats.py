"""The formats of JSON Schema as regular expressions (ECMA-262 syntax, matching the whole text).

Where a format has rules beyond its grammar, the expression is the largest simple part of the
language that keeps them: what it accepts is always valid. So host names have no punycode labels
(their validity is not regular) and stay under 254 characters by the number and size of labels,
leap seconds are written in UTC, and regular expressions nest groups three deep.
"""

from functools import lru_cache

from . import patterns
from .patterns import Pattern

_ALNUM, _LDH = "[A-Za-z0-9]", "[A-Za-z0-9-]"


def _label(longest: int) -> str:
    """An LDH label of up to `longest` characters without "--" in the third and fourth place."""
    a, h = _ALNUM, _LDH
    return f"{a}(?:{h}?{a}|{h}{h}{a}|{h}(?:{a}{h}|-{a}){h}{{0,{longest - 5}}}{a})?"


def _dotted(label: str, most: int) -> str:
    return rf"{label}(?:\.{label}){{0,{most - 1}}}"


_HOSTNAME = "(?:" + "|".join(_dotted(_label(n), most) for n, most in ((63, 3), (30, 8))) + ")"

# Year 0 is left out: the dates of most languages, and so most validators, begin with year 1.
_YEAR = "(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"
_LEAP_YEAR = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_DATE = (
    f"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|"
    "(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))|"
    f"{_LEAP_YEAR}-02-29)"
)
_TIME = (
    r"(?:(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]+)?"
    r"(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])|23:59:60(?:\.[0-9]+)?(?:[Zz]|[+-]00:00))"
)
_DURATION_TIME = "T(?:[0-9]+H(?:[0-9]+M(?:[0-9]+S)?)?|[0-9]+M(?:[0-9]+S)?|[0-9]+S)"
_DURATION_DATE = "(?:[0-9]+D|[0-9]+M(?:[0-9]+D)?|[0-9]+Y(?:[0-9]+M(?:[0-9]+D)?)?)"
_DURATION = f"P(?:[0-9]+W|{_DURATION_DATE}(?:{_DURATION_TIME})?|{_DURATION_TIME})"

_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"{_OCTET}(?:\.{_OCTET}){{3}}"
_H16 = "[0-9A-Fa-f]{1,4}"
_LS32 = f"(?:{_H16}:{_H16}|{_IPV4})"
_GROUPS_OF_16 = [f"(?:{_H16}:){{6}}", f"::(?:{_H16}:){{5}}"] + [
    f"(?:(?:{_H16}:){{0,{before}}}{_H16})?::"
    + (f"(?:{_H16}:){{{4 - before}}}" if before < 4 else "")
    for before in range(5)
]
_IPV6 = (
    f"(?:(?:{'|'.join(_GROUPS_OF_16)}){_LS32}|"
    f"(?:(?:{_H16}:){{0,5}}{_H16})?::{_H16}|(?:(?:{_H16}:){{0,6}}{_H16})?::)"
)

_UCS = (
    "\\u00a0-\\ud7ff\\uf900-\\ufdcf\\ufdf0-\\uffef"
    + "".join(f"\\u{{{plane:x}0000}}-\\u{{{plane:x}fffd}}" for plane in range(1, 14))
    + "\\u{e1000}-\\u{efffd}"
)
_PRIVATE = "\\ue000-\\uf8ff\\u{f0000}-\\u{ffffd}\\u{100000}-\\u{10fffd}"
_UNRESERVED, _SUB = "A-Za-z0-9._~\\-", "!$&'()*+,;="
_PERCENT = "%[0-9A-Fa-f]{2}"
_SCHEME = "[A-Za-z][A-Za-z0-9+.-]*"


def _uri(extra: str, private: str, absolute: bool) -> str:
    """RFC 3986, or RFC 3987 with `extra` characters; `absolute` wants a scheme."""
    name = f"(?:[{_UNRESERVED}{extra}{_SUB}]|{_PERCENT})"
    pchar = f"(?:[{_UNRESERVED}{extra}{_SUB}:@]|{_PERCENT})"
    future = f"[Vv][0-9A-Fa-f]+\\.[{_UNRESERVED}{_SUB}:]+"
    host = f"(?:\\[(?:{_IPV6}|{future})\\]|{name}*)"
    user = f"(?:(?:[{_UNRESERVED}{extra}{_SUB}:]|{_PERCENT})*@)?"
    authority = f"//{user}{host}(?::[0-9]*)?(?:/{pchar}*)*"
    rooted = f"/(?:{pchar}+(?:/{pchar}*)*)?"
    rootless = f"{pchar}+(?:/{pchar}*)*"
    no_colon = f"(?:[{_UNRESERVED}{extra}{_SUB}@]|{_PERCENT})+(?:/{pchar}*)*"
    query = f"(?:[{_UNRESERVED}{extra}{private}{_SUB}:@/?]|{_PERCENT})*"
    fragment = f"(?:[{_UNRESERVED}{extra}{_SUB}:@/?]|{_PERCENT})*"
    rest = f"(?:\\?{query})?(?:#{fragment})?"
    if absolute:
        return f"{_SCHEME}:(?:{authority}|{rooted}|{rootless})?{rest}"
    return (
        f"(?:(?:{_SCHEME}:)?(?:{authority}|{rooted})|{_SCHEME}:(?:{rootless})?|{no_colon})?{rest}"
    )


_ATEXT = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~\\-]"
_QUOTED = r'"(?:[ !#-\[\]-~]|\\[ -~])*"'
_MAIL_LITERAL = rf"\[(?:{_IPV4}|IPv6:{_IPV6})\]"
# Letters that IDNA 2008 permits everywhere, written left to right, without context rules.
_LETTERS = (
    "\\u00df-\\u00f6\\u00f8-\\u00ff\\u03ac-\\u03ce\\u0430-\\u045f"
    "\\u3041-\\u3096\\u30a1-\\u30fa\\u4e00-\\u9fff\\uac00-\\ud7a3"
)
_U_LABEL = f"[{_LETTERS}][a-z0-9{_LETTERS}]{{0,9}}"
_IDN_LABEL = f"(?:{_U_LABEL}|{_label(63)})"
_IDN_HOSTNAME = f"{_IDN_LABEL}(?:[.\\u3002\\uff0e\\uff61]{_IDN_LABEL}){{0,2}}"
_U_ATEXT = _ATEXT[:-1] + "\\u0080-\\u{10ffff}]"
_U_QUOTED = _QUOTED.replace("]-~]", "]-~\\u0080-\\u{10ffff}]")
_POINTER = "(?:/(?:[^/~]|~[01])*)*"

_VARIABLE = "(?:[A-Za-z0-9_]|%[0-9A-Fa-f]{2})"
_VARSPEC = rf"{_VARIABLE}(?:\.?{_VARIABLE})*(?:\*|:[1-9][0-9]{{0,3}})?"
_TEMPLATE = (
    f"(?:[!#$&'()*+,./0-9:;=?@A-Z\\[\\]_a-z~\\-{_UCS}{_PRIVATE}]|{_PERCENT}|"
    rf"\{{[+#./;?&]?{_VARSPEC}(?:,{_VARSPEC})*\}})*"
)


def _expressions(depth: int) -> str:
    """Regular expressions in ECMA-262 syntax with groups nested `depth` deep."""
    escape = r"\\(?:[dDwWsSfnrtv0^$\\.*+?()\[\]{}|/]|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4})"
    plain = r"[^\\^$.*+?()\[\]{}|\x00-\x1f]"
    member = rf"(?:[^\\\]\[^\-\x00-\x1f]|a-z|A-Z|0-9|{escape})"
    atom = rf"(?:{plain}|\.|{escape}|\[\^?{member}*\]"
    if depth:
        atom += rf"|\((?:\?:)?{_expressions(depth - 1)}\)"
        looks = rf"\(\?<?[=!]{_expressions(depth - 1)}\)|"
    else:
        looks = ""
    term = rf"(?:{looks}{atom})(?:(?:[*+?]|\{{[0-9]{{1,2}},?\}})\??)?|[$^])"
    return rf"{term}*(?:\|{term}*)*"


FORMATS: dict[str, str] = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}[Tt]{_TIME}",
    "duration": _DURATION,
    "email": rf"(?:{_ATEXT}+(?:\.{_ATEXT}+)*|{_QUOTED})@(?:{_HOSTNAME}|{_MAIL_LITERAL})",
    "idn-email": (
        rf"(?:{_U_ATEXT}+(?:\.{_U_ATEXT}+)*|{_U_QUOTED})@(?:{_IDN_HOSTNAME}|{_MAIL_LITERAL})"
    ),
    "hostname": _HOSTNAME,
    "idn-hostname": _IDN_HOSTNAME,
    "ipv4": _IPV4,
    "ipv6": _IPV6,
    "uri": _uri("", "", True),
    "uri-reference": _uri("", "", False),
    "iri": _uri(_UCS, _PRIVATE, True),
    "iri-reference": _uri(_UCS, _PRIVATE, False),
    "uri-template": _TEMPLATE,
    "uuid": "[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}",
    "json-pointer": _POINTER,
    "relative-json-pointer": f"(?:0|[1-9][0-9]*)(?:#|{_POINTER})",
    "regex": rf"{_expressions(1)}|\(\?<[A-Za-z_][A-Za-z0-9_]*>{_expressions(0)}\){_expressions(0)}",
}
UNSUPPORTED: dict[str, str] = {}


@lru_cache(maxsize=64)
def pattern(name: str) -> Pattern:
    return patterns.pattern(FORMATS[name], whole=True)
