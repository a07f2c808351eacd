"""Every setting, declared once: flags, environment variables, TOML keys and help derive from here.

`name` gives all three spellings: `--batch-size`, `INGLE_BATCH_SIZE`, `batch_size`.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from server.kinds import (
    BYTES,
    COUNT,
    DURATION,
    KV_TYPE,
    LAYERS,
    LOG_FORMAT,
    LOG_LEVEL,
    LORA,
    MEASURED,
    PATH,
    SHARES,
    SMALLEST,
    SPLIT_MODE,
    SWITCH,
    TEXT,
    Kind,
    integer,
    number,
)

Scope = Literal["server", "model", "entry"]
"""server: of the process; model: of each model, shared in [defaults]; entry: only [models.NAME]."""


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
    Option("doctor", "server", SWITCH, "say what is good and what is slow here, and end"),
    Option("log_format", "server", LOG_FORMAT, "lines for people, or one JSON object each"),
    Option("log_prompts", "server", SWITCH, "log what clients send, too"),
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
    Option("memory_budget", "server", BYTES, "what weights and KV caches may take together"),
    Option("path", "entry", PATH, "the GGUF file", flag=False),
    Option("package", "entry", TEXT, "an installed package with a GGUF in it", flag=False),
    Option("file", "entry", TEXT, "which GGUF of the package", flag=False),
    Option("hf", "entry", TEXT, "user/repo:QUANT on the Hugging Face hub", flag=False),
    Option("preload", "entry", SWITCH, "load it at the start, not on first use", flag=False),
    Option(
        "fallbacks",
        "entry",
        TEXT,
        "models to ask when this one cannot answer",
        repeat=True,
        flag=False,
    ),
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
    Option("keep_alive", "model", DURATION, "time without a request until a model is unloaded"),
    Option("temperature", "model", number(0, 2), "temperature where a request names none"),
    Option("top_p", "model", number(SMALLEST, 1), "top_p where a request names none"),
    Option("top_k", "model", integer(0), "top_k where a request names none"),
    Option("min_p", "model", number(0, 1), "min_p where a request names none"),
    Option("presence_penalty", "model", number(-2, 2), "where a request names none"),
    Option("frequency_penalty", "model", number(-2, 2), "where a request names none"),
    Option("repetition_penalty", "model", number(SMALLEST, 2), "where a request names none"),
    Option("context", "model", COUNT, "tokens of one request, prompt and completion"),
    Option("parallel", "model", integer(1, 256), "requests that run at the same time"),
    Option("max_queue", "model", integer(0), "requests that may wait for their turn"),
    Option("threads", "model", integer(1, 512), "CPU threads"),
    Option("batch_size", "model", COUNT, "most tokens of one step"),
    Option("ubatch_size", "model", COUNT, "most tokens of one pass through the model"),
    Option("max_stall", "model", number(0.001), "seconds a prompt may hold up running answers"),
    Option("deterministic", "model", SWITCH, "the same seed, the same bytes, whatever else runs"),
    Option("prefix_cache_mib", "model", integer(0), "host memory for prefixes of prompts"),
    Option("prefix_cache_dir", "model", PATH, "directory that keeps prefixes across restarts"),
    Option("prefix_cache_disk_mib", "model", integer(1), "what that directory may hold"),
    Option("n_gpu_layers", "model", LAYERS, "layers to keep in GPU memory"),
    Option("main_gpu", "model", integer(0), "GPU that is used where only one is"),
    Option("split_mode", "model", SPLIT_MODE, "how several GPUs share a model"),
    Option("tensor_split", "model", SHARES, "share of each GPU"),
    Option("type_k", "model", KV_TYPE, "type of the K cache"),
    Option("type_v", "model", KV_TYPE, "type of the V cache"),
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
