"""What /v1/messages refuses, in Anthropic's words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.errors import EngineUnavailable, InvalidGrammar, QueueFull, StepFailed
from server.api.messages_answer import framing
from server.config import ServerConfig
from tests.server.anthropic_requests import ask, streamed
from tests.server.asgi import Client
from tests.server.conftest import MODEL
from tests.server.fakes import FakeEngine, failure

pytestmark = pytest.mark.anyio


class TestErrors:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"messages": []}, "messages must not be empty"),
            ({"max_tokens": 0}, "max_tokens must be at least 1, but is 0"),
            ({"temperature": 3}, "temperature must be between 0 and 2, but is 3.0"),
            ({"stop_sequences": ["x"] * 17}, "stop_sequences takes at most 16 strings, but has 17"),
            ({"stop_sequences": [""]}, "stop_sequences[0]: a stop string must not be empty"),
            (
                {"output_config": {"effort": "huge"}},
                "output_config.effort must be one of none, minimal, low, medium, high, xhigh, max,"
                " but is 'huge'",
            ),
        ],
    )
    async def test_bad_requests(self, client: Client, fields: Any, message: str) -> None:
        response = await ask(client, **fields)
        assert response.status == 400
        assert response.json() == {
            "type": "error",
            "error": {"type": "invalid_request_error", "message": message},
            "request_id": response.headers["request-id"],
        }

    async def test_max_tokens_is_required(self, client: Client) -> None:
        body = {"model": "fake-model", "messages": [{"role": "user", "content": "Hi"}]}
        response = await client.post("/v1/messages", body)
        assert response.json()["error"]["message"] == "max_tokens is missing"

    async def test_a_schema_that_cannot_be_enforced(self, client: Client) -> None:
        form = {"type": "json_schema", "schema": {"type": "string", "pattern": "(a)\\1"}}
        error = (await ask(client, output_config={"format": form})).json()["error"]
        assert error["message"].startswith("output_config.format.schema: the schema cannot be")

    async def test_a_grammar_that_the_engine_refuses(
        self, client: Client, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(grammar: object) -> None:
            raise InvalidGrammar("grammar size limit exceeded")

        monkeypatch.setattr(engine, "compile_grammar", refuse)
        form = {"type": "json_schema", "schema": {"type": "string"}}
        error = (await ask(client, output_config={"format": form})).json()["error"]
        assert error["message"] == "output_config.format: grammar size limit exceeded"

    async def test_unknown_blocks_are_named(self, client: Client) -> None:
        content = [{"type": "text", "text": "x"}, {"type": "container_upload", "file_id": "x"}]
        response = await ask(client, messages=[{"role": "user", "content": content}])
        assert "messages[0].content[1]" in response.json()["error"]["message"]

    async def test_a_prompt_that_is_too_long(self, client: Client) -> None:
        response = await ask(client, messages=[{"role": "user", "content": "x" * 600}])
        assert response.status == 400
        assert response.json()["error"]["message"].startswith(
            "prompt is too long: 617 tokens > 512"
        )

    @pytest.mark.parametrize(
        ("refusal", "status", "kind"),
        [
            (QueueFull(1, 2.0), 429, "rate_limit_error"),
            (EngineUnavailable("draining"), 503, "overloaded_error"),
        ],
    )
    async def test_refusals(
        self, client: Client, engine: FakeEngine, refusal: Any, status: int, kind: str
    ) -> None:
        engine.refusal = refusal
        response = await ask(client, stream=True)
        assert (response.status, response.json()["error"]["type"]) == (status, kind)
        assert "retry-after" in response.headers

    async def test_routes_and_models_that_are_not_there(self, client: Client) -> None:
        for path, body in (("/v1/messages", {"model": "x"}), ("/v1/messages/batches", {})):
            body = {"max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]} | body
            response = await client.post(path, body)
            assert response.status == 404
            assert response.json()["error"]["type"] == "not_found_error"
        response = await client.get("/v1/messages")
        assert (response.status, response.json()["type"]) == (405, "error")

    async def test_a_failure_midway_is_an_event(self, client: Client, engine: FakeEngine) -> None:
        engine.script = failure(StepFailed("the step raised"), after="He")
        name, data = (await streamed(client))[-1]
        assert name == "error"
        assert data["error"]["type"] == "api_error"
        assert data["request_id"]

    async def test_a_model_that_does_not_load_ends_a_stream_that_has_begun(self) -> None:
        words = framing("req_1")
        assert words.keepalive == b'event: ping\ndata: {"type":"ping"}\n\n'
        name, data = words.error(EngineUnavailable("failed")).decode().strip().split("\n")
        assert name == "event: error"
        body = json.loads(data.removeprefix("data: "))
        assert (body["error"]["type"], body["request_id"]) == ("overloaded_error", "req_1")

    async def test_other_routes_keep_openais_shape(self, client: Client) -> None:
        response = await client.chat(messages=[])
        assert response.json()["error"]["code"] == "invalid_value"


class TestKeys:
    @pytest.fixture
    def config(self) -> ServerConfig:
        return ServerConfig(models=(MODEL,), api_keys=("secret",))

    async def test_both_headers_are_accepted(self, client: Client) -> None:
        response = await ask(client)
        assert (response.status, response.json()["error"]["type"]) == (401, "authentication_error")
        body = {"max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]}
        for headers in ({"x-api-key": "secret"}, {"authorization": "Bearer secret"}):
            headers |= {"anthropic-version": "2023-06-01"}
            assert (await client.post("/v1/messages", body, headers=headers)).status == 200
