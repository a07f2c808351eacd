"""The settings as frozen Structs: flags over environment over models.toml over defaults."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from engine.exact import conflict
from engine.request import SamplingParams
from engine.settings import ModelSettings
from server.hub import HUB_PREFIX, HubSource
from server.options import BY_NAME, OPTIONS, Option
from server.packages import GGUFNotFound, find_gguf
from server.sources import (
    ConfigError,
    Given,
    Layer,
    ModelsFile,
    did_you_mean,
    misspelt_variables,
    read_environment,
    read_flags,
    read_models_file,
)

__all__ = ["ConfigError", "ModelConfig", "ServerConfig", "load_config", "misspelt_variables"]

CHECKOUT = Path(__file__).resolve().parent.parent
MODELS_FILE = "models.toml"


class FormatOverride(Struct, frozen=True, kw_only=True):
    """What the user knows better than the model's chat template says."""

    thought: tuple[str, str] | None = None
    """The texts that open and close a thought."""
    generic_calls: bool = False
    """Calls in the generic format, whatever the template prints."""
    ends: tuple[str, ...] = ()
    """Further texts that end a turn."""


class ModelConfig(Struct, frozen=True, kw_only=True):
    """One model that can be served, by its name or an alias."""

    name: str
    settings: ModelSettings
    aliases: tuple[str, ...] = ()
    chat_template: str | None = None
    """Text of a Jinja template that replaces the file's own."""
    format: FormatOverride = FormatOverride()
    fallbacks: tuple[str, ...] = ()
    """Names of models that are asked when this one cannot answer."""
    preload: bool | None = None
    """Loaded at the start; None: the first one is, the others are loaded when asked for."""
    keep_alive: float | None = None
    """Seconds without a request after which it is unloaded; inf: never; None: as `Models` does."""
    hub: HubSource | None = None
    """Where the file is to be had; `settings.path` is no file until it was looked for."""
    sampling: SamplingParams = SamplingParams()
    """What holds where a request says nothing."""


def initial_models(models: Sequence[ModelConfig]) -> list[ModelConfig]:
    """Those that are loaded at the start: the first, unless it says no, and those that say so."""
    return [
        model
        for index, model in enumerate(models)
        if model.preload or (model.preload is None and index == 0)
    ]


class ServerConfig(Struct, frozen=True, kw_only=True):
    """Everything `python -m server` was told by flags, environment and models.toml."""

    models: tuple[ModelConfig, ...]
    """The first one answers requests that name no model."""
    host: str = "127.0.0.1"
    port: int = 8080
    api_keys: tuple[str, ...] = ()
    allow_unauthenticated: bool = False
    """Listen beyond this machine although there is no key."""
    allowed_hosts: tuple[str, ...] = ()
    """Names in the Host header, beside loopback, addresses and the machine's own."""
    allowed_origins: tuple[str, ...] = ()
    """Web pages that may use the server."""
    log_level: str = "info"
    doctor: bool = False
    """Say what the machine and the build would do, and end."""
    log_format: str = "text"
    log_prompts: bool = False
    """What clients send stands in the log."""
    probe: bool = True
    cache_dir: Path | None = None
    """Where the probe remembers its answers; None: the user's cache directory."""
    max_tokens: int | None = None
    """Cap on max_tokens where a request names none; None: what is left of the context."""
    max_body_bytes: int = 32 * 1024 * 1024
    max_connections: int = 512
    """Open at once; under the 1,024 files that a process may usually have open."""
    max_connections_per_client: int = 256
    """Of one address."""
    keepalive: float = 15.0
    """Seconds of silence after which a stream carries a comment."""
    drain_timeout: float = 30.0
    """Seconds that running requests get after SIGTERM."""
    write_timeout: float = 120.0
    """Seconds after which a client that reads nothing of its answer is dropped."""
    supervise: bool = True
    """A parent keeps the socket and starts a new worker when native code kills one."""
    memory_budget: int | None = None
    """Bytes for weights and KV caches of all loaded models; None: a share of the memory."""
    store: Path | None = None
    """File of stored completions and responses; None: in the user's data directory."""
    store_mib: int = 1024
    """Most MiB of documents in it; beyond that the oldest are deleted. 0 stores nothing."""


FIELD_NAMES = {"mmap": "use_mmap", "mlock": "use_mlock", "extra_bufts": "use_extra_bufts"}
"""Options whose field of ModelSettings has another name."""


def load_config(argv: Sequence[str], environ: Mapping[str, str]) -> ServerConfig:
    """Read every source; raises ConfigError. `--help` prints and leaves with SystemExit."""
    told = read_environment(environ) | read_flags(argv, describe_default)
    file = read_models_file(find_models_file(told.get("config")))
    server = file.server | told
    fields = {name: server[name].value for name in ServerConfig.__struct_fields__ if name in server}
    return ServerConfig(models=choose_models(file, server, told), api_keys=keys(server), **fields)


def find_models_file(chosen: Given | None) -> Path | None:
    """The chosen file, else the one in the working directory, else the checkout's."""
    if chosen is not None:
        if not chosen.value.is_file():
            raise ConfigError(f"{chosen.source}: {chosen.value} is no file")
        return Path(chosen.value)
    candidates = (Path(MODELS_FILE), CHECKOUT / MODELS_FILE)
    return next((path for path in candidates if path.is_file()), None)


def describe_default(option: Option) -> str:
    """The default as the help shows it, read from the Struct that holds it; "" if there is none."""
    owner = ServerConfig if option.scope == "server" else ModelSettings
    values = owner.__struct_defaults__
    defaults = dict(zip(owner.__struct_fields__[-len(values) :], values, strict=True))
    default = defaults.get(FIELD_NAMES.get(option.name, option.name))
    if option.name == "n_gpu_layers" or (default is None and "auto" in option.kind.choices):
        return "auto"
    if isinstance(default, bool):
        return "on" if default else "off"
    return "" if default in (None, ()) else str(default)


def value_of(layer: Layer, name: str) -> Any:
    given = layer.get(name)
    return given.value if given else None


# From layers to Structs


def keys(server: Layer) -> tuple[str, ...]:
    path = value_of(server, "api_key_file")
    in_file = read_text(path, server["api_key_file"].source).splitlines() if path else []
    lines = (line.strip() for line in in_file)
    found = (*(value_of(server, "api_key") or ()), *(x for x in lines if x and x[0] != "#"))
    if path and not found:
        raise ConfigError(f"{server['api_key_file'].source}: {path} has no key in it")
    return found


def read_text(path: Path, source: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"{source}: cannot read {path}: {reason}") from error


def choose_models(file: ModelsFile, server: Layer, told: Layer) -> tuple[ModelConfig, ...]:
    """The file that `model` names, or the models of models.toml with the named one first."""
    chosen = server.get("model")
    names = list(file.models)
    if chosen is None or chosen.value in names:
        if not names:
            raise ConfigError("no model: give --model FILE.gguf, or name one in models.toml")
        first = chosen.value if chosen else names[0]
        order = [first, *(name for name in names if name != first)]
        models = [model_config(name, file, told if name == first else {}, told) for name in order]
        check_names(models)
        return tuple(models)
    if chosen.value.startswith(HUB_PREFIX):
        given = Given(chosen.value.removeprefix(HUB_PREFIX), chosen.source)
        name = Path(given.value).name
        return (build_model(name, file.defaults | {"hf": given} | told),)
    path = Path(chosen.value).expanduser()
    if file.path and chosen is file.server.get("model"):
        path = file.path.parent / path
    if not path.exists():
        known = f" and no model of {file.path} ({', '.join(names)})" if names else ""
        raise ConfigError(f"{chosen.source}: {path} is no file{known}")
    layer = {"path": Given(path, chosen.source)} | told
    return (build_model(path.stem, file.defaults | layer),)


def model_config(name: str, file: ModelsFile, entry: Layer, told: Layer) -> ModelConfig:
    """A model of models.toml; flags reach every model, an alias only the first."""
    shared = {key: given for key, given in told.items() if BY_NAME[key].scope == "model"}
    aliases = {key: given for key, given in entry.items() if key == "alias"}
    return build_model(name, file.defaults | file.models[name] | shared | aliases)


def build_model(name: str, layer: Layer) -> ModelConfig:
    template = layer.get("chat_template_file")
    path, hub = model_source(name, layer)
    settings = ModelSettings(path=path, **fields_of(ModelSettings, layer))
    return ModelConfig(
        name=name,
        settings=check_settings(settings, layer),
        aliases=value_of(layer, "alias") or (),
        chat_template=read_text(template.value, template.source) if template else None,
        format=format_override(layer),
        fallbacks=value_of(layer, "fallbacks") or (),
        preload=value_of(layer, "preload"),
        keep_alive=value_of(layer, "keep_alive"),
        hub=hub,
        sampling=SamplingParams(**fields_of(SamplingParams, layer)),
    )


def fields_of(kind: type[Struct], layer: Layer) -> dict[str, Any]:
    """What the options of a model say of the fields of `kind`."""
    found = {}
    for option in OPTIONS:
        field = FIELD_NAMES.get(option.name, option.name)
        if option.scope == "model" and option.name in layer and field in kind.__struct_fields__:
            found[field] = layer[option.name].value
    return found


def format_override(layer: Layer) -> FormatOverride:
    thought = value_of(layer, "thought")
    if thought is not None and len(thought) != 2:
        raise ConfigError(
            f"{layer['thought'].source}: thought takes two texts, what opens and what closes it,"
            f" but there are {len(thought)}"
        )
    return FormatOverride(
        thought=tuple(thought) if thought is not None else None,
        generic_calls=bool(value_of(layer, "generic_calls")),
        ends=tuple(value_of(layer, "ends") or ()),
    )


def model_source(name: str, layer: Layer) -> tuple[Path, HubSource | None]:
    """The file, or what stands for it until it was looked for on the hub."""
    given = [layer[key] for key in ("path", "package", "hf") if key in layer]
    if len(given) != 1:
        raise ConfigError(f"[models.{name}] needs one of path, package and hf")
    [source] = given
    try:
        if "path" in layer:
            return Path(source.value), None
        if "hf" in layer:
            hub = HubSource.parse(source.value, value_of(layer, "file"))
            return Path(f"{HUB_PREFIX}{source.value}"), hub
        return find_gguf(source.value, value_of(layer, "file")), None
    except (GGUFNotFound, ValueError) as error:
        raise ConfigError(f"{source.source}: {error}") from error


def check_settings(settings: ModelSettings, layer: Layer) -> ModelSettings:
    """What llama.cpp would refuse, said in our words."""
    ubatch, batch = settings.ubatch_size, settings.batch_size
    if ubatch is not None and ubatch > batch:
        raise ConfigError(f"ubatch_size is {ubatch}, which is more than batch_size {batch}")
    if reason := conflict(settings):
        raise ConfigError(f"{layer['deterministic'].source}: {reason}")
    if settings.type_v in ("f32", "f16", "bf16"):
        return settings
    if settings.flash_attention is False:
        raise ConfigError(
            f"{layer['type_v'].source}: {settings.type_v} needs flash attention, which is off"
        )
    return replace(settings, flash_attention=True)


def check_names(models: Sequence[ModelConfig]) -> None:
    seen: set[str] = set()
    for model in models:
        for name in (model.name, *model.aliases):
            if name in seen:
                raise ConfigError(f"two models are called {name}")
            seen.add(name)
    check_fallbacks(models, seen)


def check_fallbacks(models: Sequence[ModelConfig], names: Collection[str]) -> None:
    for model in models:
        for name in model.fallbacks:
            if name not in names:
                hint = did_you_mean(name, sorted(names))
                raise ConfigError(
                    f"[models.{model.name}] fallbacks: there is no model {name}{hint}"
                )
