"""One line a request: as text, or as JSON like every other line of the log then.

Prompts stand in no line unless `--log-prompts` says so.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from starlette.types import Scope

from server.addresses import is_address
from server.errors import quote

if TYPE_CHECKING:
    from server.middleware import RequestLog

log = logging.getLogger("ingle.access")


def write_line(scope: Scope, record: RequestLog, seconds: float) -> None:
    """A request has ended."""
    if not log.isEnabledFor(logging.INFO):
        return
    client = scope["client"][0] if scope.get("client") else "-"
    path = scope["path"].encode("unicode_escape").decode()
    milliseconds = round(seconds * 1000)
    fields = {
        "request_id": record.id,
        "method": scope["method"],
        "path": path,
        "status": record.status,
        "duration_ms": milliseconds,
        "client": client,
        **record.fields,
    }
    log.info(
        "%s %s %s %d ms %s id=%s%s",
        scope["method"],
        path,
        record.status,
        milliseconds,
        # Behind a proxy it is what a header said, which may look like further fields.
        client if is_address(client) else quote(client),
        record.id,
        "".join(f" {name}={_in_one_line(value)}" for name, value in record.fields.items()),
        extra={"fields": fields},
    )


def _in_one_line(value: object) -> str:
    """A body that is logged must not look like further lines of the log."""
    return str(value).replace("\r", "\\r").replace("\n", "\\n")
