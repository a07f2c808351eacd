"""Models while they load, when they fail, when they drain."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from engine.errors import InvalidModelFile, ModelLoadError
from engine.settings import ModelSettings
from server.app import create_app
from server.config import ModelConfig, ServerConfig
from server.models import Models
from tests.server.asgi import Client, chat_body
from tests.server.fakes import INFO, FakeEngine

pytestmark = pytest.mark.anyio


def model_config(name: str, *aliases: str, template: str | None = None) -> ModelConfig:
    return ModelConfig(
        name=name,
        settings=ModelSettings(path=Path("x.gguf")),
        aliases=aliases,
        chat_template=template,
    )


async def test_health_is_503_with_progress_while_loading_and_requests_wait() -> None:
    proceed, engine = threading.Event(), FakeEngine()

    def load(config: ModelConfig, progress: Callable[[str, float], None]) -> FakeEngine:
        progress("weights", 0.25)
        loop.call_soon_threadsafe(begun.set)
        assert proceed.wait(10)
        return engine

    loop, begun = asyncio.get_running_loop(), asyncio.Event()
    config = ServerConfig(models=(model_config("m"),))
    models = Models(config.models, load)  # type: ignore[arg-type]
    app = create_app(config, models)
    async with app.router.lifespan_context(app):
        client = Client(app)
        await begun.wait()
        health = await client.get("/health")
        assert health.status == 503
        assert int(health.headers["retry-after"]) > 0
        assert health.json() == {
            "status": "loading",
            "progress": 0.25,
            "models": {"m": {"state": "loading", "progress": 0.25, "step": "weights"}},
        }
        chat = client.begin("POST", "/v1/chat/completions", chat_body(model="m"))
        (card,) = (await client.get("/v1/models")).json()["data"]
        assert (card["state"], card["loaded"]) == ("loading", False)
        proceed.set()
        await models.wait_loaded()
        health = (await client.get("/health")).json()
        assert health["status"] == "ok"
        assert all(model["slots"] == 4 for model in health["models"].values())
        assert (await chat.finish()).status == 200
    assert engine.closed


@pytest.mark.parametrize("error", [InvalidModelFile("not a GGUF"), OSError("disk on fire")])
async def test_failure_to_load(error: Exception) -> None:
    def load(config: ModelConfig, progress: object) -> FakeEngine:
        raise error

    config = ServerConfig(models=(model_config("m"),))
    models = Models(config.models, load)  # type: ignore[arg-type]
    app = create_app(config, models)
    async with app.router.lifespan_context(app):
        with pytest.raises(ModelLoadError, match=str(error)):
            await models.wait_loaded()
        client = Client(app)
        health = await client.get("/health")
        assert health.status == 503
        assert health.json()["status"] == "failed"
        assert str(error) in health.json()["models"]["m"]["error"]
        chat = await client.chat(model="m")
        assert chat.status == 503
        assert str(error) in chat.json()["error"]["message"]


async def test_engine_that_failed_later_is_in_health() -> None:
    config = ServerConfig(models=(model_config("m"),))
    engine = FakeEngine()
    models = Models(config.models, lambda config, progress: engine)  # type: ignore[arg-type,return-value]
    app = create_app(config, models)
    async with app.router.lifespan_context(app):
        await models.wait_loaded()
        engine.state, engine.failure = "failed", "out of luck"
        health = (await Client(app).get("/health")).json()
        assert health["status"] == "failed"
        assert health["models"]["m"]["error"] == "out of luck"


async def test_each_name_means_its_model() -> None:
    engines = {"a": FakeEngine(), "b": FakeEngine()}
    config = ServerConfig(models=(model_config("a", "x"), model_config("b", "x", "a", "org/b")))
    models = Models(config.models, lambda config, progress: engines[config.name])  # type: ignore[arg-type,return-value]
    app = create_app(config, models)
    async with app.router.lifespan_context(app):
        await models.wait_loaded()
        client = Client(app)
        for asked, served in {
            "a": "a",
            "b": "b",
            "x": "a",
            "org/b": "b",
            "other/b": "b",
            "other/org/b": "b",
            None: "a",
        }.items():
            assert (await client.chat(model=asked)).json()["model"] == served, asked


async def test_configured_template_replaces_the_files_own() -> None:
    template = "{% for m in messages %}!{{ m.content }}{% endfor %}"
    config = ServerConfig(models=(model_config("m", template=template),))
    models = Models(config.models, lambda config, progress: FakeEngine())  # type: ignore[arg-type,return-value]
    app = create_app(config, models)
    async with app.router.lifespan_context(app):
        await models.wait_loaded()
        body = {"messages": [{"role": "user", "content": "Hi"}]}
        assert (await Client(app).post("/apply-template", body)).json() == {"prompt": "!Hi"}


async def test_a_file_without_a_template_gets_chatml() -> None:
    engine = FakeEngine(info=msgspec.structs.replace(INFO, chat_template=None))
    config = ServerConfig(models=(model_config("m"),))
    models = Models(config.models, lambda config, progress: engine)  # type: ignore[arg-type,return-value]
    app = create_app(config, models)
    async with app.router.lifespan_context(app):
        await models.wait_loaded()
        body = {"messages": [{"role": "user", "content": "Hi"}]}
        prompt = (await Client(app).post("/apply-template", body)).json()["prompt"]
        assert prompt == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


async def test_template_that_does_not_compile_is_a_load_error() -> None:
    config = ServerConfig(models=(model_config("m", template="{% for %}"),))
    models = Models(config.models, lambda config, progress: FakeEngine())  # type: ignore[arg-type,return-value]
    models.start()
    with pytest.raises(ModelLoadError, match="template"):
        await models.wait_loaded()


async def test_engine_is_closed_where_what_follows_its_load_fails() -> None:
    class Unlucky(FakeEngine):
        def enable_constraints(self, text_tokens: frozenset[int] = frozenset()) -> None:
            raise RuntimeError("can't start new thread")

    engine = Unlucky()
    models = Models([model_config("m")], lambda config, progress: engine)  # type: ignore[arg-type,return-value]
    models.start()
    with pytest.raises(ModelLoadError, match="can't start new thread"):
        await models.wait_loaded()
    assert engine.closed


async def test_template_that_refuses_is_a_400() -> None:
    template = "{% for m in messages %}{{ m.content }}{% endfor %}{{ raise_exception('no cats') }}"
    config = ServerConfig(models=(model_config("m", template=template),))
    models = Models(config.models, lambda config, progress: FakeEngine())  # type: ignore[arg-type,return-value]
    app = create_app(config, models)
    async with app.router.lifespan_context(app):
        await models.wait_loaded()
        response = await Client(app).chat(model="m")
        assert response.status == 400
        assert response.json()["error"]["param"] == "messages"
        assert "no cats" in response.json()["error"]["message"]


async def test_template_that_prints_nothing_is_a_400() -> None:
    config = ServerConfig(models=(model_config("m", template="{# silence #}"),))
    models = Models(config.models, lambda config, progress: FakeEngine())  # type: ignore[arg-type,return-value]
    app = create_app(config, models)
    async with app.router.lifespan_context(app):
        await models.wait_loaded()
        response = await Client(app).chat(model="m")
        assert response.status == 400
        assert response.json()["error"]["param"] == "messages"


@pytest.mark.parametrize("start", ["{{ bos_token }}", ""])
async def test_one_token_of_the_beginning(start: str) -> None:
    """Whether the template or the vocabulary puts it, or both."""
    engine = BosEngine()
    template = start + "{{ messages[0].content }}"
    config = ServerConfig(models=(model_config("m", template=template),))
    models = Models(config.models, lambda config, progress: engine)  # type: ignore[arg-type,return-value]
    app = create_app(config, models)
    async with app.router.lifespan_context(app):
        await models.wait_loaded()
        await Client(app).chat(model="m")
        assert engine.tokenizer.decode(engine.requests[0].prompt) == "^Hi"


class BosEngine(FakeEngine):
    """Its vocabulary wants a token before every prompt."""

    def __init__(self) -> None:
        super().__init__(info=msgspec.structs.replace(INFO, bos_token="^"))
        self.tokenizer.adds_bos = True
        self.tokenizer.bos = ord("^")
