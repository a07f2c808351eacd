"""What every route shares: bodies, keys, ids, unknown paths, the log line."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from engine.settings import ModelSettings
from server.config import ModelConfig, ServerConfig
from tests.server.asgi import Client, chat_body
from tests.server.fakes import FakeEngine

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
MODEL = ModelConfig(name="fake-model", settings=ModelSettings(path=Path("fake.gguf")))

MALFORMED = [
    b"",
    b"{",
    b"not json",
    b'{"messages": NaN}',
    b'{"messages": []} trailing',
    b'{"messages": [{"role": "user", "content": "\xff"}]}',
    b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
    b"[" * 100_000,
    b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b"\xef\xbb\xbf{}",
]


@pytest.mark.parametrize("body", MALFORMED, ids=range(len(MALFORMED)))
async def test_malformed_json(client: Client, body: bytes) -> None:
    response = await client.post(CHAT, body)
    assert response.status == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("text", "half", "at"),
    [
        (rb"x\ud83d", rb"\ud83d", 1),
        (rb"\\\ud83d \\ud83d and more of it", rb"\ud83d", 2),
        (rb"\ud83d\ude00 \ude00", rb"\ude00", 13),
        (rb"\ud83d\ud83d\ude00 and more", rb"\ud83d", 0),
    ],
)
async def test_half_a_surrogate_pair_is_called_that(
    client: Client, text: bytes, half: bytes, at: int
) -> None:
    body = b'{"messages": [{"role": "user", "content": "%b"}]}' % text
    response = await client.post(CHAT, body)
    what = f"{half.decode()} is half of a surrogate pair (byte {body.index(text) + at})"
    assert response.json()["error"]["message"] == f"the body is not JSON: {what}"


@pytest.mark.parametrize("body", [b"[]", b"null", b"5", b'"x"', b"{}"])
async def test_json_of_another_shape(client: Client, body: bytes) -> None:
    response = await client.post(CHAT, body)
    assert response.status == 400
    assert response.json()["detail"][0]["loc"][0] == "body"


async def test_body_limit(client: Client) -> None:
    body = json.dumps(chat_body()).encode().rjust(32 * 1024 * 1024)
    assert (await client.post(CHAT, body)).status == 200
    response = await client.post(CHAT, b" " + body)
    assert response.status == 413
    assert response.json()["error"]["code"] == "request_too_large"
    assert response.headers["connection"] == "close"


async def test_body_limit_without_a_stated_length(client: Client) -> None:
    body = b" " * (32 * 1024 * 1024 + 1)
    response = await client.post(CHAT, body, headers={"content-length": "0"})
    assert response.status == 413


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": ""},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-encoding": "gzip"},
    ],
)
async def test_media_types(client: Client, headers: dict[str, str]) -> None:
    response = await client.post(CHAT, chat_body(), headers=headers)
    assert response.status == 415
    assert response.json()["detail"][0]["loc"] == ["header", next(iter(headers))]


async def test_json_with_a_charset(client: Client) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert (await client.post(CHAT, chat_body(), headers=headers)).status == 200


async def test_unknown_route(client: Client) -> None:
    response = await client.post("/v1/nothing", {})
    assert response.status == 404
    assert "POST '/v1/nothing'" in response.json()["error"]["message"]


async def test_wrong_method(client: Client) -> None:
    response = await client.request("PUT", CHAT)
    assert response.status == 405
    assert response.headers["allow"] == "GET, HEAD, POST"
    assert response.json()["error"]["code"] == "method_not_allowed"


async def test_request_id_is_kept_or_made(client: Client) -> None:
    given = await client.get("/health", headers={"x-request-id": "abc-1.2:3_4"})
    assert given.headers["x-request-id"] == "abc-1.2:3_4"
    for bad in ("", "a b", "x" * 129, "é"):
        made = await client.get("/health", headers={"x-request-id": bad})
        assert made.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/nothing"])
async def test_every_answer_has_id_and_clock(client: Client, path: str) -> None:
    response = await client.get(path)
    assert response.headers["x-request-id"]
    assert int(response.headers["openai-processing-ms"]) >= 0


async def test_stream_has_id_and_clock(client: Client) -> None:
    response = await client.chat(stream=True)
    assert response.headers["x-request-id"]
    assert int(response.headers["openai-processing-ms"]) >= 0


async def test_log_line(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ingle.access")
    response = await client.chat()
    (line,) = caplog.messages
    assert line.startswith(f"POST {CHAT} 200 ")
    assert f"id={response.headers['x-request-id']}" in line
    assert "model=fake-model" in line
    assert "completion=5" in line


async def test_stream_log_line_has_counts(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ingle.access")
    await client.chat(stream=True)
    assert "completion=5" in caplog.messages[-1]


async def test_body_cut_short_is_a_499(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ingle.access")
    exchange = client.begin("POST", CHAT, b'{"messages": [', more_body=True)
    await exchange.hang_up()
    assert exchange.status is None
    assert " 499 " in caplog.messages[-1]


async def test_log_line_cannot_be_forged(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ingle.access")
    await client.get("/x\nGET /forged 200")
    assert "\n" not in caplog.messages[-1]


class TestKeys:
    """With API keys set."""

    @pytest.fixture
    def config(self) -> ServerConfig:
        return ServerConfig(models=(MODEL,), api_keys=("key-one", "key-two"))

    @pytest.mark.parametrize(
        "headers",
        [
            {"authorization": "Bearer key-one"},
            {"authorization": "bearer  key-two"},
            {"x-api-key": "key-two"},
        ],
    )
    async def test_right_key(self, client: Client, headers: dict[str, str]) -> None:
        assert (await client.post(CHAT, chat_body(), headers=headers)).status == 200

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"authorization": "Bearer key-on"},
            {"authorization": "Bearer "},
            {"authorization": "Basic key-one"},
            {"authorization": "key-one"},
            {"x-api-key": ""},
            {"x-api-key": "ké"},
        ],
    )
    async def test_wrong_key(
        self, client: Client, engine: FakeEngine, headers: dict[str, str]
    ) -> None:
        response = await client.post(CHAT, chat_body(), headers=headers)
        assert response.status == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.json()["error"]["code"] == "invalid_api_key"
        assert engine.requests == []

    async def test_keys_guard_unknown_paths_too(self, client: Client) -> None:
        assert (await client.get("/nothing")).status == 401

    async def test_health_is_open(self, client: Client) -> None:
        assert (await client.get("/health")).status == 200

    async def test_no_key_is_logged(self, client: Client, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("DEBUG")
        await client.post(CHAT, chat_body(), headers={"x-api-key": "key-one"})
        assert "key-one" not in json.dumps(caplog.messages)


async def test_who_is_cut_short_by_a_shutdown_is_told(client: Client, engine: FakeEngine) -> None:
    engine.hold.clear()
    exchange = client.begin("POST", "/v1/chat/completions", chat_body())
    while not engine.requests:
        await asyncio.sleep(0)
    exchange.task.cancel("the time to finish is over")
    await exchange.finish()
    assert (exchange.status, exchange.json()["error"]["code"]) == (503, "model_unavailable")
    assert int(exchange.headers["retry-after"]) > 0
