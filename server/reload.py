"""Reads the configuration again while the server runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from msgspec import Struct

from engine.errors import ModelLoadError
from server.config import ConfigError, ServerConfig
from server.loader import Headers
from server.models import Models
from server.startup import check_models

log = logging.getLogger("ingle.server")

AT_ONCE = ("models", "memory_budget")
"""Fields of the configuration that take effect without a restart."""


class ReloadReport(Struct, frozen=True):
    """What became of the models, by name; and the settings that differ from those in use."""

    added: list[str]
    changed: list[str]
    removed: list[str]
    unchanged: list[str]
    needs_restart: list[str]


class Reloader:
    """For SIGHUP and POST /v1/models/reload."""

    def __init__(
        self,
        models: Models,
        running: ServerConfig,
        read: Callable[[], ServerConfig],
        headers: Headers,
    ) -> None:
        """`read` raises ConfigError."""
        self._models = models
        self._running = running
        self._read = read
        self._headers = headers
        self._lock = asyncio.Lock()

    async def reload(self) -> ReloadReport:
        """Raises ConfigError and ModelLoadError, and then everything is as it was."""
        async with self._lock:
            config, budget = await asyncio.to_thread(self._check)
            self._models.keeper.residency.budget = budget
            outcome = self._models.reload(config.models)
            differing = [
                name
                for name in config.__struct_fields__
                if name not in AT_ONCE and getattr(config, name) != getattr(self._running, name)
            ]
        report = ReloadReport(
            outcome.added, outcome.changed, outcome.removed, outcome.unchanged, differing
        )
        log.info("configuration read again: %s", report)
        return report

    async def reload_or_log(self) -> None:
        """For signals, which nobody waits for."""
        try:
            await self.reload()
        except (ConfigError, ModelLoadError) as error:
            log.error("the configuration is not taken: %s", error)

    def _check(self) -> tuple[ServerConfig, int | None]:
        config = self._read()
        return config, check_models(config, self._headers).budget
