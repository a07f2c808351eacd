"""An application on a fake engine, and a client that speaks ASGI to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from engine.settings import ModelSettings
from server.app import create_app
from server.config import ModelConfig, ServerConfig, load_config
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


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.Q4_0.gguf"
    path.write_bytes(b"GGUF")
    return path


@pytest.fixture
def load(
    tmp_path: Path, gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., ServerConfig]:
    """load("--flag", toml=text, VARIABLE=value) in a directory with one GGUF."""
    monkeypatch.chdir(tmp_path)

    def run(*argv: str, toml: str = "", **environ: str) -> ServerConfig:
        default = f'[models.tiny]\npath = "{gguf.name}"\n'
        Path("models.toml").write_text(toml if "[models" in toml else toml + "\n" + default)
        return load_config(argv, environ)

    return run
