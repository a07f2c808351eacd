"""Where settings come from: the command line, the environment and models.toml, checked alike."""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from msgspec import Struct
from msgspec.structs import replace

from server.kinds import LORA_NAME, PATH, SHARES
from server.options import BY_NAME, OPTIONS, Option, Scope


class ConfigError(Exception):
    """A setting that cannot be; the message is one line that names it."""


class Given(Struct, frozen=True):
    """A value that passed its option's check, and where it stood."""

    value: Any
    source: str


Layer = dict[str, Given]
"""Option name → value; layers are merged with `|`, the stronger one on the right."""


class ModelsFile(Struct, frozen=True):
    """models.toml, checked; without a path where there is none."""

    path: Path | None
    server: Layer
    defaults: Layer
    models: dict[str, Layer]


# Flags and environment


class Parser(argparse.ArgumentParser):
    """argparse with its errors as ConfigError."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def read_flags(argv: Sequence[str], describe_default: Callable[[Option], str]) -> Layer:
    """What the command line says; `--help` prints and raises SystemExit."""
    parsed, unknown = flag_parser(describe_default).parse_known_args(argv)
    if unknown:
        flags = [option.flag_name for option in OPTIONS if option.flag]
        name = unknown[0].partition("=")[0]
        raise ConfigError(f"unknown argument {unknown[0]}{did_you_mean(name, flags)}")
    given = ((BY_NAME[name], raw) for name, raw in vars(parsed).items() if raw is not None)
    return {option.name: read_value(option, raw, option.flag_name) for option, raw in given}


def read_environment(environ: Mapping[str, str]) -> Layer:
    """What the environment says; an empty variable counts as unset."""
    layer: Layer = {}
    for option in OPTIONS:
        text = environ.get(option.env_name, "") if option.flag else ""
        if text:
            raw = [part.strip() for part in text.split(",")] if option.repeat else text
            layer[option.name] = read_value(option, raw, option.env_name)
    return layer


def misspelt_variables(environ: Mapping[str, str]) -> list[str]:
    """A line for every INGLE_ variable that looks like a misspelt setting."""
    prefix = "INGLE_"
    known = [option.env_name.removeprefix(prefix) for option in OPTIONS if option.flag]
    given = [name.removeprefix(prefix) for name in environ if name.startswith(prefix)]
    nearest = {name: nearest_of(name, known) for name in given if name not in known}
    return [
        f"{prefix}{name} is no setting; did you mean {prefix}{hint}?"
        for name, hint in nearest.items()
        if hint
    ]


def flag_parser(describe_default: Callable[[Option], str]) -> Parser:
    parser = Parser(
        prog="python -m server",
        usage="python -m server [--model FILE.gguf] [flags]",
        description="Serve a GGUF model with an OpenAI-compatible API.",
        epilog="A flag comes before its environment variable, which comes before models.toml.",
        allow_abbrev=False,
    )
    for option in OPTIONS:
        if option.flag:
            add_flag(parser, option, describe_default(option))
    return parser


def add_flag(parser: Parser, option: Option, default: str) -> None:
    """`default` is only shown: whether a flag was given at all decides between the sources."""
    note = f", default {default}" if default else ""
    text = f"{option.help} [{option.env_name}{note}]".replace("%", "%%")
    action: Any = argparse.BooleanOptionalAction if option.is_switch else "store"
    if option.repeat:
        action = "append"
    added = parser.add_argument(
        option.flag_name, dest=option.name, action=action, default=None, help=text
    )
    added.metavar = "|".join(option.kind.choices) or option.kind.metavar


# models.toml


def read_models_file(path: Path | None) -> ModelsFile:
    """Raises ConfigError for what is not TOML, unknown keys and values that are not allowed."""
    if path is None:
        return ModelsFile(None, {}, {}, {})
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    check_keys(content, ("server", "defaults", "models"), f"{path} ")
    models = table(content, "models", f"{path}: ")
    return ModelsFile(
        path,
        read_table(path, "server", content, ("server",)),
        read_table(path, "defaults", content, ("model",)),
        {name: read_table(path, name, models, ("entry", "model"), "models.") for name in models},
    )


def table(parent: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    found = parent.get(key, {})
    if not isinstance(found, dict):
        raise ConfigError(f"{where}{key} must be a table")
    return found


def read_table(
    path: Path, name: str, parent: dict[str, Any], scopes: tuple[Scope, ...], prefix: str = ""
) -> Layer:
    content = table(parent, name, f"{path}: {prefix}")
    known = [o.name for o in OPTIONS if o.scope in scopes and o.name != "config"]
    where = f"{path} [{prefix}{name}] "
    check_keys(content, known, where)
    layer: Layer = {}
    for key, raw in content.items():
        option = BY_NAME[key]
        given = read_value(option, toml_text(option, raw, where + key), where + key)
        layer[key] = Given(beside(path.parent, option, given.value), given.source)
    return layer


def check_keys(content: Iterable[str], known: Sequence[str], where: str) -> None:
    for key in content:
        if key not in known:
            raise ConfigError(f"{where}has an unknown key {key}{did_you_mean(key, known)}")


def toml_text(option: Option, raw: Any, where: str) -> str | list[str]:
    """A TOML value in the spelling of the command line."""
    if isinstance(raw, list) and (option.repeat or option.kind is SHARES):
        parts = [scalar_text(option, part, where) for part in raw]
        return parts if option.repeat else ",".join(parts)
    text = scalar_text(option, raw, where)
    return [text] if option.repeat else text


def scalar_text(option: Option, raw: Any, where: str) -> str:
    if isinstance(raw, bool):
        return "on" if raw else "off"
    if isinstance(raw, (str, int, float)):
        return str(raw)
    if isinstance(raw, dict) and option.name == "lora":
        return lora_text(raw, where)
    raise refused(where, raw, option)


def lora_text(table: dict[str, Any], where: str) -> str:
    """`{ name = …, path = …, scale = … }`, of which only the path must be there."""
    check_keys(table, ("name", "path", "scale"), f"{where} ")
    path, name = table.get("path"), table.get("name", "")
    if not isinstance(path, str):
        raise ConfigError(f"{where} needs a path")
    if name and not LORA_NAME.fullmatch(str(name)):
        raise ConfigError(f"{where}: {name!r} is no name; it takes letters, digits, _ and -")
    return f"{name}{':' if name else ''}{path}={table.get('scale', 1.0)}"


def beside(directory: Path, option: Option, value: Any) -> Any:
    """Paths in models.toml are relative to it."""
    if option.kind is PATH:
        return directory / value
    if option.name == "lora":
        return tuple(replace(item, path=directory / item.path) for item in value)
    return value


# One value


def read_value(option: Option, raw: str | bool | list[str], source: str) -> Given:
    """Check and convert; repeated options become tuples."""
    if isinstance(raw, bool):
        return Given(raw, source)
    if isinstance(raw, list):
        return Given(tuple(parse(option, part, source) for part in raw), source)
    return Given(parse(option, raw, source), source)


def parse(option: Option, text: str, source: str) -> Any:
    try:
        return option.kind.parse(text)
    except ValueError:
        raise refused(source, text, option) from None


def refused(source: str, value: object, option: Option) -> ConfigError:
    return ConfigError(f"{source}: {value!r} is not allowed, expected {option.kind.allowed}")


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """The end of an error's message, or nothing."""
    nearest = nearest_of(name, known)
    return f"; did you mean {nearest}?" if nearest else ""


def nearest_of(name: str, known: Sequence[str]) -> str:
    import difflib

    return next(iter(difflib.get_close_matches(name, known, n=1)), "")
