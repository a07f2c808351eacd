"""One OpenTelemetry span a generation, where that is installed and set up; never a prompt.

Names: the semantic conventions for generative AI. A span is made when its request has ended, with
the time of its beginning, so that tokens and running requests pay nothing for it.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.types import Scope

from server.threads import in_daemon_thread

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider
    from opentelemetry.util.types import AttributeValue

    from server.middleware import RequestLog

log = logging.getLogger("ingle.tracing")

OPERATIONS = {
    **dict.fromkeys(("/chat/completions", "/responses", "/messages", "/api/chat"), "chat"),
    **dict.fromkeys(("/completions", "/api/generate"), "text_completion"),
    **dict.fromkeys(("/embeddings", "/api/embed", "/api/embeddings"), "embeddings"),
}
"""Path without `/v1` → gen_ai.operation.name."""
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
EXPORTERS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
FLUSH_SECONDS = 5.0
MISSING = "%s asks for traces, but %s is not installed: pip install '.[otel]'"


class Tracing:
    """`observe` once a request, `close` once."""

    def __init__(self, provider: TracerProvider, close: Callable[[], None] = lambda: None) -> None:
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind, Status, StatusCode

        self._tracer = provider.get_tracer("ingle")
        self._extract, self._kind = extract, SpanKind.SERVER
        self._failed = Status(StatusCode.ERROR)
        self.close = close
        """Sends what is left; may take as long as the collector does."""

    def observe(self, scope: Scope, record: RequestLog, seconds: float) -> None:
        """A request has ended, however it did; the gate's refusals reached no route."""
        operation = OPERATIONS.get(scope["path"].removeprefix("/v1"))
        if operation is None or scope["method"] != "POST" or "endpoint" not in scope:
            return
        found = attributes(scope, record, operation)
        model = found.get("gen_ai.request.model", "")
        end = time.time_ns()
        span = self._tracer.start_span(
            f"{operation} {model}".rstrip(),
            context=self._extract(Headers(scope=scope)),
            kind=self._kind,
            attributes=found,
            start_time=end - int(seconds * 1e9),
        )
        # A client's mistake is no error of the server's.
        if "error.type" in found and not 400 <= (record.status or 0) < 500:
            span.set_status(self._failed)
        span.end(end)


def attributes(scope: Scope, record: RequestLog, operation: str) -> dict[str, AttributeValue]:
    """What is known of one request."""
    fields, done = record.fields, record.done
    found: dict[str, AttributeValue | None] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "ingle",
        "gen_ai.request.model": record.requested or fields.get("model"),
        "gen_ai.response.model": fields.get("model"),
        "gen_ai.usage.input_tokens": fields.get("prompt"),
        "http.response.status_code": record.status,
        "http.request.header.x-request-id": (record.id,),
    }
    if scope.get("server"):
        found["server.address"], found["server.port"] = scope["server"]
    if done is not None:
        found |= {
            "gen_ai.usage.output_tokens": done.usage.completion_tokens,
            "gen_ai.usage.cache_read.input_tokens": done.usage.cached_tokens,
            "gen_ai.response.finish_reasons": tuple(map(str, done.finish_reasons)),
            "gen_ai.response.time_to_first_chunk": done.timings.queued + done.timings.prefill,
        }
    if "error" in fields or record.status is None or record.status >= 400:
        found["error.type"] = str(fields.get("error") or record.status or "unknown")
    return {name: value for name, value in found.items() if value is not None}


def open_tracing(environ: Mapping[str, str]) -> Tracing | None:
    """What OpenTelemetry's own variables ask for; None where nobody does."""
    asking = next((name for name in (*ENDPOINTS, "OTEL_TRACES_EXPORTER") if environ.get(name)), "")
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if not asking and "opentelemetry.trace" not in sys.modules:
        return None  # nobody can have set it up
    try:
        from opentelemetry import trace
    except ImportError:
        log.warning(MISSING, asking, "OpenTelemetry")
        return None
    present = trace.get_tracer_provider()
    if not isinstance(present, trace.ProxyTracerProvider):
        return Tracing(present)
    names = exporter_names(environ) if asking else []
    return _exporting(names, asking) if names else None


def exporter_names(environ: Mapping[str, str]) -> list[str]:
    """As the packages that bring them call them."""
    asked = environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    protocol = next((environ[name] for name in PROTOCOLS if environ.get(name)), "http/protobuf")
    names = [name.strip() for name in asked.split(",")]
    found = [EXPORTERS.get(protocol, protocol) if name == "otlp" else name for name in names]
    return [name for name in found if name not in ("", "none")]


async def flushed(tracing: Tracing) -> None:
    """Sends what is left, if the collector takes it soon."""
    with suppress(TimeoutError):
        await asyncio.wait_for(in_daemon_thread(tracing.close, "traces"), FLUSH_SECONDS)


def _exporting(names: list[str], asking: str) -> Tracing | None:
    found = {entry.name: entry for entry in entry_points(group="opentelemetry_traces_exporter")}
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning(MISSING, asking, "OpenTelemetry's SDK")
        return None
    resource = Resource.create()
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "ingle"}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    for name in names:
        if name not in found:
            log.warning(MISSING, asking, f"the exporter {name}")
            continue
        provider.add_span_processor(BatchSpanProcessor(found[name].load()()))
    return Tracing(provider, provider.shutdown)
