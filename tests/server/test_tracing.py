"""Spans of OpenTelemetry: one a generation, with the conventions' names and without a prompt."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from engine.errors import StepFailed
from server.app import create_app
from server.config import ServerConfig
from server.models import Models
from server.tracing import Tracing, exporter_names, open_tracing
from tests.server.asgi import Client, chat_body
from tests.server.fakes import FakeEngine, failure

pytestmark = pytest.mark.anyio
SECRET = "my secret plan"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
async def client(
    config: ServerConfig, engine: FakeEngine, exporter: InMemorySpanExporter
) -> AsyncIterator[Client]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    models = Models(config.models, lambda model, progress: engine)  # type: ignore[arg-type,return-value]
    app = create_app(config, models, tracing=Tracing(provider, provider.shutdown))
    async with app.router.lifespan_context(app):
        await models.wait_loaded()
        yield Client(app)


def only(exporter: InMemorySpanExporter) -> ReadableSpan:
    (span,) = exporter.get_finished_spans()
    exporter.clear()
    return span


@pytest.mark.parametrize("stream", [False, True])
async def test_a_chat_is_a_span(
    client: Client, exporter: InMemorySpanExporter, stream: bool
) -> None:
    answer = await client.chat(model="alias", stream=stream)
    span = only(exporter)
    assert span.name == "chat alias"
    assert span.kind is SpanKind.SERVER
    assert span.parent is None
    assert dict(span.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "ingle",
        "gen_ai.request.model": "alias",
        "gen_ai.response.model": "fake-model",
        "gen_ai.usage.input_tokens": len("<user>Hi<assistant>"),
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 0.75,
        "http.response.status_code": 200,
        "http.request.header.x-request-id": (answer.headers["x-request-id"],),
        "server.address": "127.0.0.1",
        "server.port": 8080,
    }
    assert span.status.status_code is StatusCode.UNSET
    assert span.start_time is not None and span.end_time is not None
    assert 0 <= span.end_time - span.start_time < 10e9


async def test_the_callers_trace_goes_on(client: Client, exporter: InMemorySpanExporter) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    await client.post("/v1/chat/completions", chat_body(), headers=headers)
    span = only(exporter)
    assert span.context is not None and span.parent is not None
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == PARENT
    await client.post("/v1/chat/completions", chat_body(), headers={"traceparent": "00-x-y-z"})
    assert only(exporter).parent is None


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/v1/completions", {"prompt": "Hi"}, "text_completion fake-model"),
        ("/api/generate", {"model": "alias", "prompt": "Hi"}, "text_completion alias"),
        ("/api/chat", chat_body(), "chat fake-model"),
        ("/v1/messages", chat_body(max_tokens=9), "chat fake-model"),
        ("/v1/responses", {"model": "alias", "input": "Hi", "store": False}, "chat alias"),
    ],
)
async def test_doors(
    client: Client, exporter: InMemorySpanExporter, path: str, body: object, name: str
) -> None:
    await client.post(path, body)
    span = only(exporter)
    assert span.name == name
    assert (span.attributes or {})["gen_ai.usage.output_tokens"] == 5


async def test_errors(client: Client, engine: FakeEngine, exporter: InMemorySpanExporter) -> None:
    await client.chat(temperature=9)
    span = only(exporter)
    assert (span.attributes or {})["error.type"] == "invalid_value"
    assert span.status.status_code is StatusCode.UNSET
    engine.script = failure(StepFailed("lost"))
    for stream in (False, True):
        await client.chat(stream=stream)
        span = only(exporter)
        assert (span.attributes or {})["error.type"] == "step_failed"
        assert span.status.status_code is StatusCode.ERROR


async def test_no_span_of_what_generates_nothing(
    client: Client, exporter: InMemorySpanExporter
) -> None:
    await client.get("/v1/models")
    await client.get("/v1/chat/completions")
    await client.post(
        "/v1/chat/completions", chat_body(), headers={"origin": "http://evil.example"}
    )
    assert exporter.get_finished_spans() == ()


async def test_no_prompt_in_a_span(client: Client, exporter: InMemorySpanExporter) -> None:
    await client.chat(messages=[{"role": "user", "content": SECRET}], user=SECRET)
    await client.chat(messages=[{"role": SECRET, "content": SECRET}])
    spans = exporter.get_finished_spans()
    assert len(spans) == 2
    assert not any("secret" in span.to_json() for span in spans)


def test_nothing_is_imported_unasked() -> None:
    code = "import server.app, server.tracing as t, sys; t.open_tracing({})"
    names = "[name for name in sys.modules if name.startswith('opentelemetry')]"
    subprocess.run([sys.executable, "-c", f"{code}; assert not {names}, {names}"], check=True)


def test_what_the_variables_ask_for() -> None:
    assert exporter_names({}) == ["otlp_proto_http"]
    assert exporter_names({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}) == ["otlp_proto_grpc"]
    assert exporter_names({"OTEL_TRACES_EXPORTER": "none"}) == []
    assert exporter_names({"OTEL_TRACES_EXPORTER": "console, otlp"}) == [
        "console",
        "otlp_proto_http",
    ]
    off = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}
    assert open_tracing(off) is None


def test_an_exporter_that_is_not_there_is_named(caplog: pytest.LogCaptureFixture) -> None:
    tracing = open_tracing({"OTEL_TRACES_EXPORTER": "nowhere"})
    assert tracing is not None
    assert "nowhere" in caplog.text
    tracing.close()
