"""GET /health: 200 when the server answers, else 503 with how far its first models are."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.api.http import json_response
from server.crashes import Crash, CrashRecord
from server.errors import RETRY_AFTER, RETRY_AFTER_DEFAULT
from server.models import Models, ServedModel

ORDER = ("failed", "stopped", "draining", "loading", "unloading", "unloaded", "ready")
"""The server is in the first of these states that one of the models it must have is in."""
AT_REST = ("unloading", "unloaded", "ready")
"""Whoever asks for such a model gets it."""


class ModelHealth(Struct):
    """`progress` (0–1) and `step` while loading; `error` when failed; else how busy it is."""

    state: str
    progress: float | UnsetType = UNSET
    step: str | UnsetType = UNSET
    error: str | UnsetType = UNSET
    slots: int | UnsetType = UNSET
    running: int | UnsetType = UNSET
    waiting: int | UnsetType = UNSET


class HealthBody(Struct):
    """`status` is ok, loading, draining, stopped or failed."""

    status: str
    progress: float
    models: dict[str, ModelHealth]
    restarts: int | UnsetType = UNSET
    """How often a worker died and was replaced; absent where none did."""
    last_crash: Crash | UnsetType = UNSET


class Health:
    """Open to all, keys or not: it is for load balancers."""

    def __init__(self, models: Models, record: CrashRecord | None = None) -> None:
        self._models = models
        self._crashes = record.crashes if record is not None else []

    def routes(self) -> list[Route]:
        """Starlette adds HEAD."""
        return [Route("/health", self.show, methods=["GET"])]

    async def show(self, request: Request) -> Response:
        """The state of every model; those that load when they are asked for decide nothing."""
        states = {model.name: _health(model) for model in self._models.models}
        decisive = self._models.initial
        status = min((model.state for model in decisive), key=ORDER.index, default="ready")
        progress = sum(map(_progress, decisive)) / len(decisive) if decisive else 1.0
        body = HealthBody("ok" if status in AT_REST else status, progress, states)
        if self._crashes:
            body.restarts, body.last_crash = len(self._crashes), self._crashes[-1]
        if status in AT_REST:
            return json_response(body)
        response = json_response(body, 503)
        response.headers["retry-after"] = str(RETRY_AFTER.get(status, RETRY_AFTER_DEFAULT))
        return response


def _progress(model: ServedModel) -> float:
    return model.progress if model.state == "loading" else 1.0


def _health(model: ServedModel) -> ModelHealth:
    health = ModelHealth(model.state)
    if health.state == "loading":
        health.progress, health.step = round(model.progress, 3), model.step
    elif health.state == "failed":
        health.error = model.failure_reason
    elif model.loaded:
        stats = model.loaded_engine.stats()
        health.slots, health.running, health.waiting = stats.slots, stats.running, stats.waiting
    return health
