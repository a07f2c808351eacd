"""An application on a fake engine, and a client that speaks ASGI to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.settings import ModelSettings
from server.app import create_app
from server.config import ModelConfig, ServerConfig
from server.models import Models
from tests.server.asgi import Client
from tests.server.fakes import FakeEngine

MODEL = ModelConfig(
    name="fake-model", settings=ModelSettings(path=Path("fake.gguf")), aliases=("alias",)
)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    """Overridden where a test needs another one."""
    return ServerConfig(models=(MODEL,), store=tmp_path / "store.sqlite3")


@pytest.fixture
async def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def client(config: ServerConfig, engine: FakeEngine) -> AsyncIterator[Client]:
    """A client of a server that has loaded `engine` for each of its models."""
    models = Models(config.models, lambda model, progress: engine)  # type: ignore[arg-type,return-value]
    app = create_app(config, models)
    async with app.router.lifespan_context(app):
        await models.wait_loaded()
        yield Client(app)
