"""What every request goes through: id, gate, clock, one line in the log, errors in one shape.

Plain ASGI: nothing is added to a stream's chunks but one function call.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.errors import EngineError, EngineUnavailable
from engine.request import RequestDone, RequestFailed
from server.access_log import write_line
from server.connection import ClientDisconnected
from server.dialects import encoded_error
from server.errors import fate_of, problem
from server.metrics import Metrics
from server.security import Gate
from server.tracing import Tracing

log = logging.getLogger("ingle.access")

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
CLIENT_CLOSED = 499
"""Never sent; nginx's number for the log, where the client hung up first."""


class RequestLog(Struct):
    """What the log line says beside the route: endpoints add to `fields`."""

    id: str
    started: float
    log_prompts: bool = False
    status: int | None = None
    requested: str | None = None
    """The model's name in the body."""
    fields: dict[str, Any] = {}
    done: RequestDone | None = None
    """How the generation ended, if there was one."""

    def body(self, data: bytes) -> None:
        """What the client sent: logged only where that was asked for."""
        if self.log_prompts:
            self.fields["body"] = data.decode("utf-8", "replace")

    def outcome(self, event: RequestDone | RequestFailed) -> None:
        """How the generation ended."""
        if isinstance(event, RequestDone):
            self.done, usage, timings = event, event.usage, event.timings
            first = timings.queued + timings.prefill
            self.fields |= {
                "completion": usage.completion_tokens,
                "cached": usage.cached_tokens,
                "queue_ms": round(timings.queued * 1000),
                "first_token_ms": round(first * 1000),
                "decode_ms": round(timings.decode * 1000),
                "finish": ",".join(event.finish_reasons),
            }
        else:
            self.failed(event.error)

    def failed(self, error: Exception) -> None:
        """Why there is no answer; what nobody foresaw is logged with its traceback."""
        fate = fate_of(error)
        self.fields["error"] = fate.code
        if fate.status == 500 and not isinstance(error, EngineError):
            log.error("%s failed", self.id, exc_info=error)


class Envelope:
    """The outermost application."""

    def __init__(
        self,
        app: ASGIApp,
        gate: Gate,
        *,
        metrics: Metrics | None = None,
        tracing: Tracing | None = None,
        log_prompts: bool = False,
    ) -> None:
        self._app = app
        self._gate = gate
        self._metrics = metrics
        self._tracing = tracing
        self._log_prompts = log_prompts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        record = RequestLog(_request_id(headers), time.perf_counter(), self._log_prompts)
        scope["request_log"] = record

        async def send_stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                _stamp(message, record, self._gate.cors(headers))
            await send(message)

        try:
            answer = self._gate.admit(scope["method"], scope["path"], headers)
            await (answer or self._app)(scope, receive, send_stamped)
        except ClientDisconnected:
            record.status = CLIENT_CLOSED
        except asyncio.CancelledError:
            # uvicorn's: the time to finish is over, and the answer has not begun.
            if record.status is not None:
                raise
            await self._fail(EngineUnavailable("draining"), scope, receive, send_stamped)
        except Exception as error:  # noqa: BLE001 - every error has an answer
            await self._fail(error, scope, receive, send_stamped)
        finally:
            seconds = time.perf_counter() - record.started
            write_line(scope, record, seconds)
            if self._metrics is not None:
                self._metrics.observe(scope, record, seconds)
            if self._tracing is not None:
                self._tracing.observe(scope, record, seconds)

    async def _fail(self, error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
        record: RequestLog = scope["request_log"]
        if record.status is not None:
            log.exception("%s failed after its answer had begun", record.id)
            raise error
        fate = fate_of(error)
        record.fields["error"] = fate.code
        if fate.status == 500:
            log.error("%s failed", record.id, exc_info=error)
        await error_response(error, scope)(scope, receive, send)


def error_response(error: Exception, scope: Scope) -> Response:
    """The answer to the request of `scope`, which failed with `error`."""
    answer = problem(error)
    body = encoded_error(error, scope["path"], scope["request_log"].id)
    return Response(body, answer.status, headers=answer.headers, media_type="application/json")


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if REQUEST_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"


def _stamp(message: Message, record: RequestLog, cors: Mapping[str, str]) -> None:
    headers = MutableHeaders(raw=message.setdefault("headers", []))
    headers.update(cors)
    headers["x-request-id"] = headers["request-id"] = record.id
    headers["openai-processing-ms"] = str(round((time.perf_counter() - record.started) * 1000))
