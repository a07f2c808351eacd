"""The server's settings as frozen Structs."""

from __future__ import annotations

from msgspec import Struct

from engine.settings import ModelSettings


class ModelConfig(Struct, frozen=True, kw_only=True):
    """One model that can be served, by its name or an alias."""

    name: str
    settings: ModelSettings
    aliases: tuple[str, ...] = ()
    chat_template: str | None = None
    """Text of a Jinja template that replaces the file's own."""


class ServerConfig(Struct, frozen=True, kw_only=True):
    """Everything `python -m server` was told by flags, environment and models.toml."""

    models: tuple[ModelConfig, ...]
    """The first one answers requests that name no model."""
    host: str = "127.0.0.1"
    port: int = 8080
    api_keys: tuple[str, ...] = ()
    log_level: str = "info"
    probe: bool = True
    max_tokens: int | None = None
    """Cap on max_tokens where a request names none; None: what is left of the context."""
    max_body_bytes: int = 32 * 1024 * 1024
    keepalive: float = 15.0
    """Seconds of silence after which a stream carries a comment."""
    drain_timeout: float = 30.0
    """Seconds that running requests get after SIGTERM."""
