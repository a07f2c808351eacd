"""An application with a fake chat model, and tiny real models that embed and rerank."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import gguf

from engine.embedding_engine import EmbeddingEngine
from engine.settings import ModelSettings
from server.app import create_app
from server.config import ModelConfig, ServerConfig
from server.models import Models
from tests.engine.tiny_bert import write_bert
from tests.server.asgi import Client
from tests.server.fakes import FakeEngine

KINDS = {"embedder": gguf.PoolingType.MEAN, "reranker": gguf.PoolingType.RANK}
KINDS["templated"] = gguf.PoolingType.RANK
TEMPLATE = "[CLS]{query}[SEP]{document}[SEP]"


@asynccontextmanager
async def served(directory: Path, *names: str) -> AsyncIterator[Client]:
    """A client of a server that has loaded these models, of `chat` and `KINDS`."""
    configs = []
    for name in names:
        path = directory / f"{name}.gguf"
        if name in KINDS:
            write_bert(path, KINDS[name], template=TEMPLATE if name == "templated" else None)
        configs.append(ModelConfig(name=name, settings=ModelSettings(path=path, threads=1)))

    def load(config: ModelConfig, progress: object) -> Any:
        return EmbeddingEngine.load(config.settings) if config.name in KINDS else FakeEngine()

    config = ServerConfig(models=tuple(configs))
    models = Models(config.models, load)
    app = create_app(config, models)
    async with app.router.lifespan_context(app):
        await models.wait_loaded()
        yield Client(app)
