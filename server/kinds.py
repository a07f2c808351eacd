"""What a setting may be: how its text is read, and the words that say what is allowed."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from msgspec import Struct

from engine.memory import total_memory
from engine.settings import ALL_LAYERS, AUTO_LAYERS, KVType, LoraAdapter, SplitMode

SMALLEST = 1e-6
"""Stands for "more than 0"."""
LORA_NAME = re.compile(r"[A-Za-z0-9_-]{2,}")
"""Two characters at least: one is the letter of a drive."""

SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?B?|B?|%)", re.IGNORECASE)


class Kind(Struct, frozen=True):
    """How a value is read from text, and the words that say what is allowed."""

    allowed: str
    parse: Callable[[str], Any]
    """Raises ValueError for a value that is not allowed."""
    metavar: str = ""
    choices: tuple[str, ...] = ()


def integer(low: int, high: int | None = None) -> Kind:
    """A whole number from `low` to `high`."""
    allowed = f"a whole number from {low} to {high}" if high else f"a whole number, {low} or more"

    def parse(text: str) -> int:
        value = int(text)
        if value < low or (high is not None and value > high):
            raise ValueError
        return value

    return Kind(allowed, parse, "N")


def number(low: float, high: float = math.inf) -> Kind:
    """A finite number from `low` to `high`."""

    def parse(text: str) -> float:
        value = float(text)
        if not math.isfinite(value) or not low <= value <= high:
            raise ValueError
        return value

    words = f"a number, {low:g} or more" if high == math.inf else f"a number, {low:g} to {high:g}"
    return Kind(words, parse, "X")


def choice(values: dict[str, Any]) -> Kind:
    """One of the names in `values`."""

    def parse(text: str) -> Any:
        if text not in values:
            raise ValueError
        return values[text]

    return Kind("one of " + ", ".join(values), parse, choices=tuple(values))


def names(literal: Any) -> Kind:
    """One of the strings of a `Literal` type."""
    return choice({name: name for name in get_args(literal)})


def parse_text(text: str) -> str:
    """Any text but nothing."""
    if not text.strip():
        raise ValueError
    return text


def parse_path(text: str) -> Path:
    """A path with `~` resolved."""
    return Path(parse_text(text)).expanduser()


def parse_switch(text: str) -> bool:
    """on and off in the usual spellings."""
    words = {"on": True, "true": True, "1": True, "yes": True}
    words |= {"off": False, "false": False, "0": False, "no": False}
    if text.lower() not in words:
        raise ValueError
    return words[text.lower()]


def parse_layers(text: str) -> int:
    """`all`, `auto` or how many."""
    named = {"all": ALL_LAYERS, "auto": AUTO_LAYERS}
    count = named[text] if text in named else int(text)
    if count < 0 and text not in named:
        raise ValueError
    return count


def parse_shares(text: str) -> tuple[float, ...]:
    """Shares between commas, not all of them 0."""
    shares = tuple(float(part) for part in text.split(","))
    if not all(math.isfinite(share) and share >= 0 for share in shares) or not any(shares):
        raise ValueError
    return shares


def parse_lora(text: str) -> LoraAdapter:
    """`path`, `path=scale` or either after `name:`. An `=` that no number follows, and a `:`
    that more than a plain word stands before, belong to the path."""
    word, colon, rest = text.partition(":")
    name = word if colon and LORA_NAME.fullmatch(word) else ""
    if name:
        text = rest
    path, _, tail = text.rpartition("=")
    try:
        scale = float(tail) if path else None
    except ValueError:
        scale = None
    if scale is None:
        return LoraAdapter(parse_path(text), name=name)
    if not math.isfinite(scale):
        raise ValueError
    return LoraAdapter(parse_path(path), scale, name)


def parse_duration(text: str) -> float:
    """Seconds, or a number with a unit; −1 and `forever` are inf."""
    if text in ("-1", "forever"):
        return math.inf
    number, unit = text.rstrip("smh"), text[len(text.rstrip("smh")) :]
    seconds = float(number) * {"": 1, "s": 1, "m": 60, "h": 3600}.get(unit, math.nan)
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError
    return seconds


def parse_size(text: str) -> int:
    """Bytes: a number with a unit, or a share of the machine's memory."""
    match = SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError
    amount, unit = float(match[1]), match[2].upper()
    if unit == "%":
        total = total_memory()
        if total is None or not 0 < amount <= 100:
            raise ValueError
        return int(total * amount / 100)
    scale = 1024 if "I" in unit else 1000
    return int(amount * scale ** " KMGT".index(unit.rstrip("B")[:1] or " "))


TEXT = Kind("some text", parse_text, "TEXT")
PATH = Kind("a path", parse_path, "PATH")
SWITCH = Kind("on or off", parse_switch)
MEASURED = choice({"on": True, "off": False, "auto": None})
LOG_LEVEL = choice({level: level for level in ("debug", "info", "warning", "error")})
LOG_FORMAT = choice({"text": "text", "json": "json"})
LAYERS = Kind("a number of layers, all or auto", parse_layers, "N|all|auto")
SHARES = Kind("numbers of 0 or more, such as 3,1", parse_shares, "X,X,…")
LORA = Kind("a path, path=scale, or name:path=scale", parse_lora, "[NAME:]PATH[=SCALE]")
COUNT = integer(1)
DURATION = Kind("seconds, a time such as 5m, or -1 for ever", parse_duration, "TIME")
BYTES = Kind("a size such as 12GB, or a share of the memory such as 80%", parse_size, "SIZE")
KV_TYPE = names(KVType)
SPLIT_MODE = names(SplitMode)
