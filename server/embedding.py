"""What the doors of embedding and reranking models share: the model, its inputs, the wait."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Raw
from starlette.requests import Request

from engine.embedding import EmbeddingRequest, Embeddings, Rows
from engine.errors import ModelLoadError
from engine.gguf_check import check_gguf
from engine.settings import Task
from server.api.http import note
from server.conversation import INLINE_CHARS
from server.dispatch import Dispatcher
from server.errors import InvalidRequest, Loc, WrongTask
from server.models import Models, ServedModel

INLINE_FLOATS = 20_000
"""Answers up to this size are written on the event loop."""

_encoder = msgspec.json.Encoder()

Encode = Callable[[str], list[int]]


class EmbeddingModels:
    """Finds the models that are made for something, loaded or not."""

    def __init__(self, models: Models, dispatcher: Dispatcher) -> None:
        self._models = models
        self._dispatcher = dispatcher
        self._tasks: dict[tuple[Path, int], Task] = {}
        """By file and when it was written."""

    @asynccontextmanager
    async def lease(self, name: str | None, task: Task) -> AsyncIterator[ServedModel]:
        """The model of that name; without a name the first that is made for `task`.

        Raises ModelNotFound, WrongTask, ModelLoadError and EngineUnavailable.
        """
        able = await self._able(task) if name is None else []
        model = able[0] if able else self._models.get(name)
        if await self._task(model) not in (task, None):
            await self._refuse(model, task)
        async with self._dispatcher.lease(model.name):
            if model.info.task != task:
                await self._refuse(model, task)
            yield model

    async def _refuse(self, model: ServedModel, task: Task) -> None:
        able = ", ".join(other.name for other in await self._able(task))
        hint = f"for that there is: {able}" if able else ""
        raise WrongTask(model.name, await self._task(model) or "generate", hint)

    async def _able(self, task: Task) -> list[ServedModel]:
        return [model for model in self._models.models if await self._task(model) == task]

    async def _task(self, model: ServedModel) -> Task | None:
        """By the file's header, as long as it is not loaded; None where there is no file yet."""
        if model.loaded:
            return model.info.task
        try:
            file = model.path, model.path.stat().st_mtime_ns
            if file not in self._tasks:
                self._tasks[file] = (await asyncio.to_thread(check_gguf, model.path)).task
        except (OSError, ModelLoadError):
            return None
        return self._tasks[file]


async def encode_inputs(texts: Sequence[str], model: ServedModel) -> list[list[int]]:
    """Each text between the tokens that frame one; what looks like such a token is text."""
    tokenizer = model.embedder.tokenizer

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special=True, parse_special=False)

    return await encode_all(texts, encode)


async def encode_all(texts: Sequence[str], encode: Encode) -> list[list[int]]:
    """Each text as tokens; long ones in a thread."""
    if sum(map(len, texts)) <= INLINE_CHARS:
        return list(map(encode, texts))
    return await asyncio.to_thread(lambda: list(map(encode, texts)))


def check_inputs(
    inputs: Iterable[list[int]], model: ServedModel, loc: Callable[[int], Loc]
) -> None:
    """None is empty, or longer than the model can read. Raises InvalidRequest with its index."""
    context = model.info.context
    for index, tokens in enumerate(inputs):
        if not tokens:
            raise InvalidRequest("an input must not be empty", loc=loc(index))
        if len(tokens) > context:
            raise InvalidRequest(
                f"an input has at most {context} tokens, but number {index} has {len(tokens)}",
                loc=loc(index),
                code="context_length_exceeded",
            )


async def compute(request: Request, model: ServedModel, inputs: list[list[int]]) -> Embeddings:
    """One row an input; raises what `EmbeddingEngine.embed` does."""
    note(request, model=model.name, inputs=len(inputs), prompt=sum(map(len, inputs)))
    return await model.embedder.embed(EmbeddingRequest(id=uuid.uuid4().hex, inputs=tuple(inputs)))


def normalized(rows: Rows, dimensions: int | None = None) -> Rows:
    """The first `dimensions` of each row, at length 1."""
    rows = rows[:, :dimensions]
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1), np.float32)


def numbers(row: Rows) -> Raw:
    """A row as a JSON array."""
    return Raw(_encoder.encode(row.tolist()))


async def written(rows: Rows) -> list[Raw]:
    """Each row as a JSON array; many of them are written in a thread."""
    if rows.size <= INLINE_FLOATS:
        return list(map(numbers, rows))
    return await asyncio.to_thread(lambda: list(map(numbers, rows)))


def check_dimensions(dimensions: int | None, model: ServedModel) -> None:
    """Raises InvalidRequest where the model has fewer, or none are left."""
    width = model.info.embedding_length
    if dimensions is not None and not 1 <= dimensions <= width:
        raise InvalidRequest(
            f"dimensions must be between 1 and {width}, but is {dimensions}",
            loc=("body", "dimensions"),
        )
