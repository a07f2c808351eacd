"""What all requests of this API have in common: their body, the model's name, how long it stays."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import TypeVar

from msgspec import Struct
from starlette.requests import Request

from server.checks import missing
from server.decode import JsonBody
from server.errors import InvalidRequest, quote
from server.models import LATEST, Models, ServedModel
from server.protocol.ollama import KeepAlive

T = TypeVar("T", bound=Struct)

BROWSER_HEADERS = {"origin", "sec-fetch-site"}
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


class Body(JsonBody[T]):
    """JSON, whatever its type is said to be."""

    def check_media(self, request: Request) -> None:
        """Only browsers, who tell where a request comes from, must say that it is JSON: curl does
        not, in all of Ollama's examples."""
        if not BROWSER_HEADERS.isdisjoint(request.headers):
            super().check_media(request)


def find(models: Models, name: str | None) -> ServedModel:
    """The model of a name, which must be there. Raises InvalidRequest, ModelNotFound."""
    if not name:
        raise missing(("body", "model"))
    return models.get(name)


def tagged(name: str) -> str:
    """As Ollama lists it: names have a tag."""
    return name if ":" in name.rpartition("/")[2] else name + LATEST


def seconds_of(keep_alive: KeepAlive) -> float | None:
    """How long a model stays after its last request; negative is forever. Raises InvalidRequest."""
    if keep_alive is None or keep_alive == "":
        return None
    seconds = _duration(keep_alive) if isinstance(keep_alive, str) else float(keep_alive)
    if seconds is None or math.isnan(seconds):
        raise InvalidRequest(
            f"keep_alive must be seconds or a duration such as 10m, but is {quote(keep_alive)}",
            loc=("body", "keep_alive"),
        )
    return math.inf if seconds < 0 else seconds


def _duration(text: str) -> float | None:
    """Go's notation, such as 1h30m; a bare number is seconds."""
    negative = text.startswith("-")
    text = text.removeprefix("-")
    parts = _PART.findall(text)
    if "".join(number + unit for number, unit in parts) == text and parts:
        seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    elif re.fullmatch(r"\d+(\.\d+)?", text):
        seconds = float(text)
    else:
        return None
    return -seconds if negative else seconds


def timestamp(moment: datetime | None = None) -> str:
    """RFC 3339; now, where nothing is given."""
    return (moment or datetime.now(UTC)).isoformat().replace("+00:00", "Z")


def nanoseconds(seconds: float) -> int:
    """Ollama's unit."""
    return round(seconds * 1e9)
