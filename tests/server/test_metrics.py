"""/metrics, /v1/engine and the log: what one sees of a server, and what one must not see."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from engine.errors import StepFailed
from engine.measure import Timings
from engine.probe import ProbeResult
from engine.settings import ModelSettings
from server.api.engine_info import settings_with_origin
from server.app import create_app
from server.config import ServerConfig
from server.logs import JsonLines
from server.models import Models
from tests.server.asgi import Client
from tests.server.conftest import MODEL
from tests.server.fakes import FakeEngine, failure

pytestmark = pytest.mark.anyio
SECRET = "my secret plan"


async def samples(client: Client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample of a scrape by name and labels."""
    response = await client.get("/metrics")
    assert response.status == 200
    assert response.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.body.decode())
        for sample in family.samples
    }


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return f"ingle_{name}", frozenset(labels.items())


async def test_requests_are_counted_by_route_status_and_model(
    client: Client, engine: FakeEngine
) -> None:
    model = "fake-model"
    await client.chat()
    await client.chat(stream=True)
    await client.chat(temperature=9)
    engine.script = failure(StepFailed("lost"))
    await client.chat()
    await client.get("/nowhere/at/all")
    found = await samples(client)
    route = "/v1/chat/completions"
    assert found[key("requests_total", route=route, status="200", model=model)] == 2
    assert found[key("requests_total", route=route, status="400", model="")] == 1
    assert found[key("requests_total", route=route, status="500", model=model)] == 1
    assert found[key("requests_total", route="other", status="404", model="")] == 1
    assert found[key("time_to_first_token_seconds_count", model=model)] == 2
    assert found[key("time_to_first_token_seconds_sum", model=model)] == 1.5
    assert found[key("request_queue_time_seconds_sum", model=model)] == 0.5
    assert found[key("request_decode_time_seconds_sum", model=model)] == 4
    assert found[key("e2e_request_latency_seconds_count", model=model)] == 3


async def test_engines_are_read_when_they_are_asked(client: Client, engine: FakeEngine) -> None:
    engine.counters.generated_tokens = 7
    engine.counters.drafted(9, 5)
    engine.counters.step(10.0, 0.004, n_decode=0, n_prompt=16)
    engine.counters.step(10.01, 0.3, n_decode=2, n_prompt=0)
    found = await samples(client)
    model = "fake-model"
    assert found[key("generation_tokens_total", model=model)] == 7
    assert found[key("prompt_tokens_total", model=model)] == 16
    assert found[key("spec_decode_num_draft_tokens_total", model=model)] == 9
    assert found[key("spec_decode_num_accepted_tokens_total", model=model)] == 5
    assert found[key("step_duration_seconds_bucket", model=model, le="0.005")] == 1
    assert found[key("step_duration_seconds_bucket", model=model, le="+Inf")] == 2
    assert found[key("inter_token_latency_seconds_count", model=model)] == 2
    assert found[key("prefix_cache_hits_total", model=model, level="memory")] == 10
    assert found[key("prefix_cache_queries_total", model=model)] == 100
    assert found[key("kv_cache_usage_ratio", model=model)] == 0.25
    assert found[key("model_state", model=model, state="ready")] == 1
    assert found[key("model_state", model=model, state="failed")] == 0
    assert found[key("worker_restarts")] == 0


async def test_no_label_comes_from_a_client(client: Client) -> None:
    await client.chat(user=SECRET, messages=[{"role": "user", "content": SECRET}])
    await client.post("/v1/chat/completions", {"model": SECRET, "messages": []})
    await client.get(f"/v1/models/{SECRET.replace(' ', '-')}")
    text = (await client.get("/metrics")).body.decode()
    assert "secret" not in text
    assert 'route="/v1/models/{name:path}"' in text


async def test_engine_page(client: Client, engine: FakeEngine) -> None:
    timings = Timings(256, 0.002, 0.1, 0.1, 0.01, 0.01)
    engine.settings = replace(MODEL.settings, threads=3, flash_attention=False, context=512)
    engine.probed = ProbeResult(
        flash_attention=False, threads=3, ubatch_size=512, timings={"off": timings}
    )
    body = (await client.get("/v1/engine")).json()["models"]["fake-model"]
    assert body["state"] == "ready"
    assert body["settings"]["threads"] == {"value": 3, "origin": "measured"}
    assert body["settings"]["flash_attention"] == {"value": False, "origin": "measured"}
    assert body["measured"]["tokens_per_second"] == {"off": 100}
    assert body["measured"]["prompt_tokens_per_second"] == {"off": 500}
    assert body["now"]["slots"][0]["tokens"] == 12
    assert body["now"]["cache"]["hit_tokens"]["slot"] == 30


def test_origins() -> None:
    asked = ModelSettings(path=Path("x"), threads=4, parallel=2)
    used = replace(asked, flash_attention=True, ubatch_size=256)
    probed = ProbeResult(flash_attention=True, threads=2, ubatch_size=256)
    origins = {
        name: setting.origin for name, setting in settings_with_origin(asked, used, probed).items()
    }
    assert origins["threads"] == origins["parallel"] == "chosen"
    assert origins["flash_attention"] == "measured"
    assert origins["max_queue"] == "default"
    assert {*ModelSettings.__struct_fields__} - origins.keys() == {"path", "lora"}
    busy = settings_with_origin(asked, used, replace(probed, busy=True))
    assert busy["flash_attention"].origin == "default"


class Lines(logging.Handler):
    """The access log as JSON."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonLines())
        self.lines: list[str] = []
        self.messages: list[str] = []
        """The same lines as text."""

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))
        self.messages.append(record.getMessage())


@pytest.fixture
async def lines() -> AsyncIterator[Lines]:
    handler, log = Lines(), logging.getLogger("ingle.access")
    level = log.level
    log.addHandler(handler)
    log.setLevel("INFO")
    yield handler
    log.removeHandler(handler)
    log.setLevel(level)


async def test_json_line(client: Client, lines: Lines) -> None:
    messages = [{"role": "user", "content": SECRET}]
    await client.chat(messages=messages, user=SECRET)
    line = json.loads(lines.lines[-1])
    assert line["logger"] == "ingle.access"
    assert (line["method"], line["path"], line["status"]) == ("POST", "/v1/chat/completions", 200)
    assert (line["model"], line["completion"]) == ("fake-model", 5)
    assert (line["queue_ms"], line["first_token_ms"], line["decode_ms"]) == (250, 750, 2000)
    assert line["request_id"].startswith("req_")
    assert "secret" not in lines.lines[-1]
    await client.chat(messages=messages, temperature=9)
    assert json.loads(lines.lines[-1])["status"] == 400
    assert " 127.0.0.1 id=" in lines.messages[-1]
    await client.get("/v1/models", host="9.9.9.9 id=x")
    assert " '9.9.9.9 id=x' id=" in lines.messages[-1], "a proxy's header is no address"
    assert not any("secret" in each for each in lines.lines)


async def test_prompts_are_logged_where_that_is_asked(engine: FakeEngine, lines: Lines) -> None:
    config = ServerConfig(models=(MODEL,), log_prompts=True)
    models = Models(config.models, lambda model, progress: engine)  # type: ignore[arg-type,return-value]
    app = create_app(config, models)
    async with app.router.lifespan_context(app):
        await models.wait_loaded()
        await Client(app).post("/v1/chat/completions", b'{"a":\n1}')
        assert 'body={"a":\\n1}' in lines.messages[-1], "one line, whatever is in it"
        await Client(app).chat(messages=[{"role": "user", "content": SECRET}])
    body = json.loads(json.loads(lines.lines[-1])["body"])
    assert body["messages"][0]["content"] == SECRET


def test_other_lines_as_json() -> None:
    record = logging.LogRecord("ingle.x", logging.WARNING, "", 1, "a\n%s", ("b",), None)
    line = json.loads(JsonLines().format(record))
    assert (line["level"], line["logger"], line["message"]) == ("warning", "ingle.x", "a\nb")
    try:
        raise ValueError("why")
    except ValueError as error:
        record.exc_info = (ValueError, error, error.__traceback__)
    assert "why" in json.loads(JsonLines().format(record))["exception"]
