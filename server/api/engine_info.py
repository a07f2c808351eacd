"""GET /v1/engine: what every engine is doing, and why it is set as it is. No prompts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from msgspec import UNSET, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.settings import ModelSettings
from engine.snapshot import Snapshot
from server.api.http import json_response
from server.models import Models, ServedModel

if TYPE_CHECKING:
    from engine.engine import Engine
    from engine.probe import ProbeResult

MEASURED = ("flash_attention", "threads", "ubatch_size", "use_extra_bufts")
"""What the probe fills in."""
HIDDEN = ("path", "lora")
"""The file stands beside the settings, adapters stand in the list of models."""

_DEFAULTS = ModelSettings(path=Path())

Origin = Literal["chosen", "measured", "default"]


class Setting(Struct, frozen=True):
    """`chosen` by flag, environment or models.toml, `measured` by the probe, or neither."""

    value: Any
    origin: Origin


class Measured(Struct, frozen=True):
    """Seconds of the turn that settings are compared by, per way of computing attention."""

    turn_seconds: dict[str, float]
    prompt_tokens_per_second: dict[str, float]
    tokens_per_second: dict[str, float]
    busy: bool
    """Others used the processor: defaults were taken."""
    warning: str | None


class EngineBody(Struct, kw_only=True):
    """One model; everything but `state` only while it is loaded."""

    state: str
    task: str | UnsetType = UNSET
    device: str | UnsetType = UNSET
    system_fingerprint: str | UnsetType = UNSET
    file: str | UnsetType = UNSET
    kv_bytes: int | UnsetType = UNSET
    settings: dict[str, Setting] | UnsetType = UNSET
    measured: Measured | UnsetType = UNSET
    now: Snapshot | UnsetType = UNSET


class EngineInfo:
    """For people who want to know; needs a key where keys are set."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def routes(self) -> list[Route]:
        """One page."""
        return [Route("/v1/engine", self.show, methods=["GET"])]

    async def show(self, request: Request) -> Response:
        """By the models' names."""
        return json_response({"models": {m.name: engine_body(m) for m in self._models.models}})


def engine_body(model: ServedModel) -> EngineBody:
    """What is known of one model."""
    body = EngineBody(state=model.state)
    if not model.loaded:
        return body
    engine, info = model.loaded_engine, model.info
    body.task, body.device, body.system_fingerprint = info.task, info.device, info.fingerprint
    body.kv_bytes = info.kv_bytes
    if engine.settings is not None:
        body.file = engine.settings.path.name
        body.settings = settings_with_origin(model.config.settings, engine.settings, engine.probed)
    if engine.probed is not None:
        body.measured = measured(engine.probed)
    if info.task == "generate":
        body.now = cast("Engine", engine).snapshot()
    return body


def settings_with_origin(
    asked: ModelSettings, used: ModelSettings, probed: ProbeResult | None
) -> dict[str, Setting]:
    """What is in use, and where each value comes from."""
    found = {}
    for name in ModelSettings.__struct_fields__:
        if name in HIDDEN:
            continue
        value, wish = getattr(used, name), getattr(asked, name)
        default = getattr(_DEFAULTS, name)
        origin: Origin = "default"
        if wish is not None and wish != default:
            origin = "chosen"
        elif name in MEASURED and wish is None and probed is not None and not probed.busy:
            origin = "measured"
        found[name] = Setting(str(value) if isinstance(value, Path) else value, origin)
    return found


def measured(probed: ProbeResult) -> Measured:
    """The probe's timings in the units that people compare."""
    timings = probed.timings
    return Measured(
        turn_seconds={name: round(each.turn, 4) for name, each in timings.items()},
        prompt_tokens_per_second={n: _rate(each.prefill_token) for n, each in timings.items()},
        tokens_per_second={name: _rate(each.decode) for name, each in timings.items()},
        busy=probed.busy,
        warning=probed.warning,
    )


def _rate(seconds: float) -> float:
    return round(1 / seconds, 1) if seconds > 0 else 0.0
