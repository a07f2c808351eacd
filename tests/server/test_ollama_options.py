"""What Ollama's options become: on a fake engine."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.request import SamplingParams
from server.app import create_app
from server.config import ServerConfig
from server.models import Models
from tests.server.asgi import Client
from tests.server.conftest import MODEL
from tests.server.fakes import INFO, FakeEngine
from tests.server.ollama_requests import chat, generate

pytestmark = pytest.mark.anyio


class TestOptions:
    async def test_what_they_become(self, client: Client, engine: FakeEngine) -> None:
        options = {
            "num_predict": 7,
            "temperature": 0.3,
            "top_k": 5,
            "top_p": 0.5,
            "min_p": 0.1,
            "seed": 9,
            "stop": ["x"],
            "repeat_penalty": 1.3,
            "presence_penalty": 0.4,
            "frequency_penalty": 0.2,
        }
        response = await chat(client, options=options)
        assert "x-ignored-params" not in response.headers
        [request] = engine.requests
        sampling = request.sampling
        assert (request.max_tokens, request.stop, sampling.seed) == (7, ("x",), 9)
        assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0.3, 5, 0.5)
        assert (sampling.min_p, sampling.repetition_penalty) == (0.1, 1.3)
        assert (sampling.presence_penalty, sampling.frequency_penalty) == (0.4, 0.2)

    async def test_ollamas_defaults(self, client: Client, engine: FakeEngine) -> None:
        await chat(client, options={"num_predict": -1, "repeat_penalty": 1.5, "repeat_last_n": 0})
        sampling = engine.requests[0].sampling
        assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0.8, 40, 0.9)
        assert sampling.repetition_penalty == 1
        assert engine.requests[0].max_tokens == INFO.context - len(engine.requests[0].prompt)

    async def test_what_models_toml_says_comes_before_them(self) -> None:
        own = SamplingParams(temperature=0.3, top_k=7)
        model = msgspec.structs.replace(MODEL, sampling=own)
        config, engine = ServerConfig(models=(model,)), FakeEngine()
        models = Models(config.models, lambda model, progress: engine)  # type: ignore[arg-type,return-value]
        app = create_app(config, models)
        async with app.router.lifespan_context(app):
            await models.wait_loaded()
            await chat(Client(app), options={"top_k": 9})
            await generate(Client(app), raw=True)
        first, second = (request.sampling for request in engine.requests)
        assert (first.temperature, first.top_k, first.top_p) == (0.3, 9, 0.9)
        assert (second.temperature, second.top_k, second.top_p) == (0.3, 7, 0.9)

    async def test_num_ctx_is_a_limit(self, client: Client, engine: FakeEngine) -> None:
        await chat(client, options={"num_ctx": 100})
        assert engine.requests[0].max_tokens == 100 - len(engine.requests[0].prompt)
        wide = await chat(client, options={"num_ctx": 100_000})
        assert wide.headers["x-ignored-params"] == "options.num_ctx"
        small = await chat(client, options={"num_ctx": 5})
        assert small.status == 400
        assert "5 tokens" in small.json()["error"]

    async def test_what_has_no_effect_is_listed(self, client: Client) -> None:
        response = await chat(
            client,
            nonsense=1,
            options={"num_gpu": 1, "mirostat": 0, "num_thread": 2, "repeat_last_n": 64, "f": 1},
        )
        assert sorted(response.headers["x-ignored-params"].split(", ")) == [
            "nonsense",
            "options.f",
            "options.num_gpu",
            "options.num_thread",
            "options.repeat_last_n",
        ]

    @pytest.mark.parametrize("form", ["json", {"type": "object"}])
    @pytest.mark.parametrize("ask", [chat, generate])
    async def test_format(self, client: Client, engine: FakeEngine, form: Any, ask: Any) -> None:
        assert (await ask(client, format=form)).status == 200
        assert engine.requests[0].grammar is not None
        await ask(client, format="")
        assert engine.requests[1].grammar is None
