"""How log lines look: text for people, or one JSON object each (`--log-format json`)."""

from __future__ import annotations

import logging
import time
from typing import Any

import msgspec

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class JsonLines(logging.Formatter):
    """`time` (UTC), `level`, `logger`, `message`; a request's line has its fields instead."""

    def format(self, record: logging.LogRecord) -> str:
        """One object in one line."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields = getattr(record, "fields", None)
        line: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage() if fields is None else "request",
            **(fields or {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


def set_up(level: str, form: str) -> None:
    """The root logger, on stderr; `level` as `debug`, `form` text or json."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else logging.Formatter(TEXT))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    if level != "debug":
        for name in ("uvicorn", "asyncio"):
            logging.getLogger(name).setLevel(logging.WARNING)
