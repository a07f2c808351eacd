"""The formats of JSON Schema as regular expressions (ECMA-262 syntax, whole text)."""

from functools import lru_cache

from . import regex
from .regex import Pattern

FORMATS = {"date": r"[0-9]{4}-[0-9]{2}-[0-9]{2}"}
UNSUPPORTED: dict[str, str] = {}


@lru_cache(maxsize=64)
def pattern(name: str) -> Pattern:
    return regex.pattern(FORMATS[name], whole=True)
