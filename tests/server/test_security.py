"""Who gets in: hosts, web pages, keys; and what is said to a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.settings import ModelSettings
from server.addresses import host_name, is_loopback
from server.config import ModelConfig, ServerConfig
from server.security import Hosts, Origins
from server.startup import StartError, bind, check_exposure
from tests.server.asgi import Client, chat_body
from tests.server.fakes import FakeEngine

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
MODEL = ModelConfig(name="fake-model", settings=ModelSettings(path=Path("fake.gguf")))
PAGE = "http://localhost:3000"
EVIL = "https://evil.example"


@pytest.fixture
def config() -> ServerConfig:
    return ServerConfig(
        models=(MODEL,), allowed_hosts=("llm.lan",), allowed_origins=(PAGE, "app://*")
    )


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8080",
        "localhost",
        "LOCALHOST.:1",
        "x.localhost",
        "[::1]:80",
        "10.1.2.3",
        "llm.lan",
    ],
)
async def test_hosts_that_are_answered(client: Client, host: str) -> None:
    assert (await client.get("/health", headers={"host": host})).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "localhost.evil.example", "", "127.0.0.1.evil", "["],
)
async def test_dns_rebinding(client: Client, engine: FakeEngine, host: str) -> None:
    response = await client.post(CHAT, chat_body(), headers={"host": host})
    assert response.status == 403
    assert response.json()["error"]["code"] == "host_not_allowed"
    assert engine.requests == []


def test_names_of_this_machine_count_where_it_can_be_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "Workstation")
    assert "workstation" in Hosts.of("0.0.0.0", ())
    assert "workstation" not in Hosts.of("127.0.0.1", ())
    assert "evil.example" in Hosts.of("127.0.0.1", ("*",))


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": EVIL},
        {"origin": "null"},
        {"origin": "http://localhost:3001"},
        {"origin": "http://localhost:3000.evil.example"},
        {"origin": ""},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
@pytest.mark.parametrize("content_type", ["application/json", "text/plain"])
async def test_foreign_pages_stay_out(
    client: Client, engine: FakeEngine, headers: dict[str, str], content_type: str
) -> None:
    headers = headers | {"content-type": content_type}
    response = await client.post(CHAT, chat_body(), headers=headers)
    assert response.status == 403
    assert response.json()["error"]["code"] == "origin_not_allowed"
    assert "access-control-allow-origin" not in response.headers
    assert (await client.get("/v1/models", headers=headers)).status == 403
    assert engine.requests == []


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/nothing", "/v1/messages"])
async def test_listed_pages_may_use_and_read(client: Client, path: str) -> None:
    headers = {"origin": PAGE, "sec-fetch-site": "same-site"}
    response = await client.post(path, {}, headers=headers)
    assert response.status in (400, 404)
    assert response.headers["access-control-allow-origin"] == PAGE
    assert response.headers["vary"] == "Origin"
    assert "x-request-id" in response.headers["access-control-expose-headers"]


@pytest.mark.parametrize(
    "headers",
    [{}, {"sec-fetch-site": "none"}, {"sec-fetch-site": "same-origin"}, {"origin": "app://x"}],
)
async def test_others_are_let_in(client: Client, headers: dict[str, str]) -> None:
    assert (await client.post(CHAT, chat_body(), headers=headers)).status == 200


async def test_pages_of_the_server_itself_are_let_in(client: Client) -> None:
    for origin in ("http://llm.lan:8080", "https://llm.lan:8080"):
        headers = {"origin": origin, "host": "LLM.lan:8080"}
        assert (await client.get("/health", headers=headers)).status == 200


async def test_preflight(client: Client, engine: FakeEngine) -> None:
    asked = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
        "access-control-request-private-network": "true",
    }
    response = await client.request("OPTIONS", CHAT, headers=asked | {"origin": PAGE})
    assert response.status == 204
    assert response.headers["access-control-allow-origin"] == PAGE
    assert response.headers["access-control-allow-headers"] == "authorization,content-type"
    assert "POST" in response.headers["access-control-allow-methods"]
    assert response.headers["access-control-allow-private-network"] == "true"
    assert "access-control-allow-credentials" not in response.headers
    refused = await client.request("OPTIONS", CHAT, headers=asked | {"origin": EVIL})
    assert refused.status == 403
    assert not [name for name in refused.headers if name.startswith("access-control")]


async def test_streams_can_be_read_too(client: Client) -> None:
    response = await client.post(CHAT, chat_body(stream=True), headers={"origin": PAGE})
    assert response.headers["access-control-allow-origin"] == PAGE


class TestKeys:
    @pytest.fixture
    def config(self) -> ServerConfig:
        return ServerConfig(models=(MODEL,), allowed_origins=(PAGE,), api_keys=("ключ",))

    async def test_a_preflight_needs_no_key_and_a_listed_page_does(self, client: Client) -> None:
        asked = {"origin": PAGE, "access-control-request-method": "POST"}
        assert (await client.request("OPTIONS", CHAT, headers=asked)).status == 204
        response = await client.get("/v1/models", headers={"origin": PAGE})
        assert response.status == 401
        assert response.headers["access-control-allow-origin"] == PAGE

    async def test_a_key_beyond_latin_1(self, client: Client) -> None:
        key = "ключ".encode().decode("latin-1")
        assert (await client.get("/v1/models", headers={"x-api-key": key})).status == 200

    async def test_a_key_does_not_open_to_foreign_pages(self, client: Client) -> None:
        key = "ключ".encode().decode("latin-1")
        headers = {"x-api-key": key, "origin": EVIL}
        assert (await client.get("/v1/models", headers=headers)).status == 403


@pytest.mark.parametrize(
    ("pattern", "origin", "listed"),
    [
        ("*", EVIL, True),
        ("http://localhost:*", "http://localhost:1234", True),
        ("http://localhost:*", "http://localhost", True),
        ("http://localhost:*", "http://localhost:1.evil.example", False),
        ("http://localhost:*", "http://localhost.evil.example", False),
        ("http://localhost:*", "https://localhost:1234", False),
        ("HTTP://Localhost", "http://localhost", True),
        ("http://localhost*", "http://localhost.evil.example", False),
        ("chrome-extension://*", "chrome-extension://abc", True),
        ("null", "null", True),
    ],
)
def test_patterns_of_origins(pattern: str, origin: str, listed: bool) -> None:
    assert (origin in Origins((pattern,))) is listed


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "no such host"])
def test_what_others_may_reach(host: str) -> None:
    assert not is_loopback(host)


def test_host_names() -> None:
    assert [host_name(h) for h in ("a:1", "a", "[::1]:1", "[::1]")] == ["a", "a", "::1", "::1"]


@pytest.mark.parametrize(
    ("host", "fields", "refused"),
    [
        ("127.0.0.1", {}, False),
        ("0.0.0.0", {}, True),
        ("0.0.0.0", {"api_keys": ("k",)}, False),
        ("0.0.0.0", {"allow_unauthenticated": True}, False),
    ],
)
def test_the_network_needs_a_key_or_a_second_word(
    host: str, fields: dict[str, Any], refused: bool
) -> None:
    with bind(host, 0) as listener:
        config = ServerConfig(models=(MODEL,), host=host, **fields)
        if not refused:
            check_exposure(config, listener)
            return
        with pytest.raises(StartError, match="--allow-unauthenticated"):
            check_exposure(config, listener)
        assert listener.fileno() == -1
