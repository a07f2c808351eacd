"""Every setting, declared once: flags, environment variables, TOML keys and help derive from here.

`name` gives all three spellings: `--batch-size`, `INGLE_BATCH_SIZE`, `batch_size`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

from msgspec import Struct

from engine.settings import ALL_LAYERS, AUTO_LAYERS, KVType, LoraAdapter, SplitMode

LORA_NAME = re.compile(r"[A-Za-z0-9_-]{2,}")
"""Two characters at least: one is the letter of a drive."""

Scope = Literal["server", "model", "entry"]
"""server: of the process; model: of each model, shared in [defaults]; entry: only [models.NAME]."""


class Kind(Struct, frozen=True):
    """How a value is read from text, and the words that say what is allowed."""

    allowed: str
    parse: Callable[[str], Any]
    """Raises ValueError for a value that is not allowed."""
    metavar: str = ""
    choices: tuple[str, ...] = ()


class Option(Struct, frozen=True):
    """One setting. `repeat`: a list in TOML, a flag given again, commas in the environment."""

    name: str
    scope: Scope
    kind: Kind
    help: str
    repeat: bool = False
    flag: bool = True
    """False for what only models.toml can say."""

    @property
    def flag_name(self) -> str:
        """Such as `--batch-size`."""
        return "--" + self.name.replace("_", "-")

    @property
    def env_name(self) -> str:
        """Such as `INGLE_BATCH_SIZE`."""
        return "INGLE_" + self.name.upper()

    @property
    def is_switch(self) -> bool:
        """True where the flag takes no value and has a `--no-` form."""
        return self.kind is SWITCH


def integer(low: int, high: int | None = None) -> Kind:
    """A whole number from `low` to `high`."""
    allowed = f"a whole number from {low} to {high}" if high else f"a whole number, {low} or more"

    def parse(text: str) -> int:
        value = int(text)
        if value < low or (high is not None and value > high):
            raise ValueError
        return value

    return Kind(allowed, parse, "N")


def number(low: float) -> Kind:
    """A finite number of at least `low`."""

    def parse(text: str) -> float:
        value = float(text)
        if not math.isfinite(value) or value < low:
            raise ValueError
        return value

    return Kind(f"a number, {low:g} or more", parse, "X")


def choice(values: dict[str, Any]) -> Kind:
    """One of the names in `values`."""

    def parse(text: str) -> Any:
        if text not in values:
            raise ValueError
        return values[text]

    return Kind("one of " + ", ".join(values), parse, choices=tuple(values))


def names(literal: Any) -> Kind:
    """One of the strings of a `Literal` type."""
    return choice({name: name for name in get_args(literal)})


def parse_text(text: str) -> str:
    """Any text but nothing."""
    if not text.strip():
        raise ValueError
    return text


def parse_path(text: str) -> Path:
    """A path with `~` resolved."""
    return Path(parse_text(text)).expanduser()


def parse_switch(text: str) -> bool:
    """on and off in the usual spellings."""
    words = {"on": True, "true": True, "1": True, "yes": True}
    words |= {"off": False, "false": False, "0": False, "no": False}
    if text.lower() not in words:
        raise ValueError
    return words[text.lower()]


def parse_layers(text: str) -> int:
    """`all`, `auto` or how many."""
    named = {"all": ALL_LAYERS, "auto": AUTO_LAYERS}
    count = named[text] if text in named else int(text)
    if count < 0 and text not in named:
        raise ValueError
    return count


def parse_shares(text: str) -> tuple[float, ...]:
    """Shares between commas, not all of them 0."""
    shares = tuple(float(part) for part in text.split(","))
    if not all(math.isfinite(share) and share >= 0 for share in shares) or not any(shares):
        raise ValueError
    return shares


def parse_lora(text: str) -> LoraAdapter:
    """`path`, `path=scale` or either after `name:`. An `=` that no number follows, and a `:`
    that more than a plain word stands before, belong to the path."""
    word, colon, rest = text.partition(":")
    name = word if colon and LORA_NAME.fullmatch(word) else ""
    if name:
        text = rest
    path, _, tail = text.rpartition("=")
    try:
        scale = float(tail) if path else None
    except ValueError:
        scale = None
    if scale is None:
        return LoraAdapter(parse_path(text), name=name)
    if not math.isfinite(scale):
        raise ValueError
    return LoraAdapter(parse_path(path), scale, name)


TEXT = Kind("some text", parse_text, "TEXT")
PATH = Kind("a path", parse_path, "PATH")
SWITCH = Kind("on or off", parse_switch)
MEASURED = choice({"on": True, "off": False, "auto": None})
LOG_LEVEL = choice({level: level for level in ("debug", "info", "warning", "error")})
LAYERS = Kind("a number of layers, all or auto", parse_layers, "N|all|auto")
SHARES = Kind("numbers of 0 or more, such as 3,1", parse_shares, "X,X,…")
LORA = Kind("a path, path=scale, or name:path=scale", parse_lora, "[NAME:]PATH[=SCALE]")
COUNT = integer(1)

OPTIONS: tuple[Option, ...] = (
    Option("config", "server", PATH, "read this file instead of ./models.toml"),
    Option("model", "server", TEXT, "a GGUF file, or the name of a model in models.toml"),
    Option("host", "server", TEXT, "address to listen on"),
    Option("port", "server", integer(0, 65535), "port to listen on; 0 takes a free one"),
    Option("api_key", "server", TEXT, "clients must send one of these keys", repeat=True),
    Option("api_key_file", "server", PATH, "file with one key a line"),
    Option("allow_unauthenticated", "server", SWITCH, "listen beyond this machine without a key"),
    Option("allowed_hosts", "server", TEXT, "further names the server answers to", repeat=True),
    Option("allowed_origins", "server", TEXT, "web pages that may use the server", repeat=True),
    Option("log_level", "server", LOG_LEVEL, "least severe line that is logged"),
    Option(
        "probe", "server", SWITCH, "load in a child process first and measure the best settings"
    ),
    Option("cache_dir", "server", PATH, "where measurements are kept"),
    Option("max_tokens", "server", COUNT, "completion tokens where a request names no limit"),
    Option("max_body_bytes", "server", integer(1024), "largest request body"),
    Option("max_connections", "server", COUNT, "connections that may be open at once"),
    Option("max_connections_per_client", "server", COUNT, "and of these, from one address"),
    Option("keepalive", "server", number(0.1), "seconds of silence until a stream gets a comment"),
    Option("drain_timeout", "server", number(0), "seconds that running requests get at shutdown"),
    Option("write_timeout", "server", number(0.1), "seconds until who reads nothing is dropped"),
    Option("supervise", "server", SWITCH, "start again after a crash of native code"),
    Option("store", "server", PATH, "file that stored answers are kept in"),
    Option("store_mib", "server", integer(0), "most that is stored; the oldest make room; 0: none"),
    Option("path", "entry", PATH, "the GGUF file", flag=False),
    Option("package", "entry", TEXT, "an installed package with a GGUF in it", flag=False),
    Option("file", "entry", TEXT, "which GGUF of the package", flag=False),
    Option("alias", "entry", TEXT, "another name for the model", repeat=True),
    Option(
        "thought",
        "entry",
        TEXT,
        "the texts that open and close a thought",
        repeat=True,
        flag=False,
    ),
    Option("generic_calls", "entry", SWITCH, "call tools in the generic format", flag=False),
    Option("ends", "entry", TEXT, "further texts that end a turn", repeat=True, flag=False),
    Option("context", "model", COUNT, "tokens of one request, prompt and completion"),
    Option("parallel", "model", integer(1, 256), "requests that run at the same time"),
    Option("max_queue", "model", integer(0), "requests that may wait for their turn"),
    Option("threads", "model", integer(1, 512), "CPU threads"),
    Option("batch_size", "model", COUNT, "most tokens of one step"),
    Option("ubatch_size", "model", COUNT, "most tokens of one pass through the model"),
    Option("max_stall", "model", number(0.001), "seconds a prompt may hold up running answers"),
    Option("prefix_cache_mib", "model", integer(0), "host memory for prefixes of prompts"),
    Option("prefix_cache_dir", "model", PATH, "directory that keeps prefixes across restarts"),
    Option("prefix_cache_disk_mib", "model", integer(1), "what that directory may hold"),
    Option("n_gpu_layers", "model", LAYERS, "layers to keep in GPU memory"),
    Option("main_gpu", "model", integer(0), "GPU that is used where only one is"),
    Option("split_mode", "model", names(SplitMode), "how several GPUs share a model"),
    Option("tensor_split", "model", SHARES, "share of each GPU"),
    Option("type_k", "model", names(KVType), "type of the K cache"),
    Option("type_v", "model", names(KVType), "type of the V cache"),
    Option("flash_attention", "model", MEASURED, "auto measures which is faster here"),
    Option("kv_unified", "model", SWITCH, "one pool of cache for all requests"),
    Option("mmap", "model", SWITCH, "map the file instead of reading it"),
    Option("mlock", "model", SWITCH, "keep the weights from being swapped out"),
    Option("extra_bufts", "model", MEASURED, "repacked weights (AMX and the like)"),
    Option(
        "lora", "model", LORA, "LoRA adapter, applied unless a request says otherwise", repeat=True
    ),
    Option("chat_template_file", "model", PATH, "Jinja template instead of the model's own"),
)

BY_NAME = {option.name: option for option in OPTIONS}
