"""A GGUF loaded by llama.cpp: weights, context and what the file says of itself."""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from engine.errors import InvalidModelFile, ModelFileNotFound, ModelLoadError, OutOfMemory
from engine.exact import CHUNK, conflict
from engine.gguf_check import check_gguf
from engine.llama.library import KV_TYPES, SPLIT_MODES, library
from engine.llama.tokenizer import Tokenizer
from engine.memory import DEFAULT_CONTEXT_LIMIT, kv_bytes, padded
from engine.request import LoraScale
from engine.settings import AUTO_LAYERS, LoraAdapter, ModelInfo, ModelSettings

OnProgress = Callable[[float], None]

_PROMPT_ROWS = (16, 64)
_PROMPT_ROW_BYTES = 16 << 20
"""Rows of logits of a prompt that one step may bring, and the memory that they may take."""
_LOAD_MODES = {(False, False): 0, (True, False): 1, (False, True): 2, (True, True): 3}
"""(mmap, mlock) → llama_load_mode."""


class Model:
    """Owns the native model and context. After `close` nothing of it may be touched."""

    def __init__(self, settings: ModelSettings, on_progress: OnProgress | None = None) -> None:
        """Blocks while loading; raises ModelLoadError's kinds."""
        if not settings.path.is_file():
            raise ModelFileNotFound(f"no such file: {settings.path}")
        self._library = library()
        self._api = self._library.api
        self.adapters: dict[str, Any] = {}
        """Name → native handle of every LoRA adapter; none is applied yet."""
        self._context: Any = None
        self._model = self._load(settings, on_progress)
        try:
            self.tokenizer = Tokenizer(self._api.llama_model_get_vocab(self._model))
            self._check_kind(settings)
            self.settings = self._complete(settings)
            self._context = self.create_context(self.settings)
            self._check_context(self.settings)
            self._load_adapters(self.settings)
            self.info = self._describe(self.settings)
        except BaseException:
            self.close()
            raise

    @property
    def context(self) -> Any:
        """The native llama_context, for the runner."""
        return self._context

    @property
    def native(self) -> Any:
        """The native llama_model."""
        return self._model

    def _load(self, settings: ModelSettings, on_progress: OnProgress | None) -> Any:
        params = self._api.llama_model_default_params()
        params.n_gpu_layers = -1 if settings.n_gpu_layers == AUTO_LAYERS else settings.n_gpu_layers
        params.main_gpu = settings.main_gpu
        params.split_mode = SPLIT_MODES[settings.split_mode]
        params.load_mode = _LOAD_MODES[settings.use_mmap, settings.use_mlock]
        params.use_extra_bufts = settings.use_extra_bufts is not False
        if settings.tensor_split:
            devices = self._api.llama_max_devices()
            shares = (*settings.tensor_split, *(0.0,) * devices)[:devices]
            # llama.cpp reads the array during the load only; the local keeps it alive until then.
            split = (ctypes.c_float * devices)(*shares)
            params.tensor_split = split
        if on_progress is not None:
            callback = self._api.llama_progress_callback(_progress_callback(on_progress))
            params.progress_callback = callback
        model = self._api.llama_model_load_from_file(os.fsencode(settings.path), params)
        if not model:
            reason = self._library.take_error("llama.cpp cannot load it")
            raise InvalidModelFile(f"cannot load {settings.path}: {reason}")
        return model

    def _check_kind(self, settings: ModelSettings) -> None:
        if not self._api.llama_model_has_decoder(self._model):
            raise InvalidModelFile(f"{settings.path} has no decoder: it cannot generate text")
        if self._api.llama_model_has_encoder(self._model):
            raise InvalidModelFile(
                f"{settings.path} is an encoder-decoder model, which is not supported"
            )

    def _check_context(self, settings: ModelSettings) -> None:
        if not self._api.llama_get_memory(self._context):
            raise InvalidModelFile(
                f"{settings.path} cannot generate text, and it names no pooling type for embeddings"
            )

    def _complete(self, settings: ModelSettings) -> ModelSettings:
        """Fill what the caller left to the file and the machine."""
        if reason := conflict(settings):
            raise ModelLoadError(reason)
        trained = self._api.llama_model_n_ctx_train(self._model)
        context = settings.context or min(trained, DEFAULT_CONTEXT_LIMIT)
        return replace(
            settings,
            context=padded(context),
            threads=settings.threads or physical_cores(),
            ubatch_size=settings.ubatch_size or min(512, settings.batch_size),
        )

    def create_context(self, settings: ModelSettings) -> Any:
        """A new llama_context, the caller's to free; `settings` as `Model.settings` has them."""
        params = self._context_params(settings)
        context = self._api.llama_init_from_model(self._model, params)
        if not context:
            reason = self._library.take_error("not enough memory")
            raise OutOfMemory(
                f"cannot create a context of {settings.context} tokens × {settings.parallel}"
                f" sequences: {reason}"
            )
        return context

    def _context_params(self, settings: ModelSettings) -> Any:
        assert settings.context and settings.threads and settings.ubatch_size
        cells = settings.context * settings.parallel
        params = self._api.llama_context_default_params()
        params.n_ctx = cells
        params.n_seq_max = settings.parallel
        params.n_batch = settings.batch_size
        params.n_ubatch = settings.ubatch_size
        # The default reserves n_batch rows of logits: 2 GB for a vocabulary of 262k tokens.
        params.n_outputs_max = self.max_rows(settings)
        params.n_outputs_max_per_seq = 0
        params.n_threads = settings.threads
        params.n_threads_batch = settings.threads
        params.type_k = KV_TYPES[settings.type_k]
        params.type_v = KV_TYPES[settings.type_v]
        flash = settings.flash_attention
        params.flash_attn_type = -1 if flash is None else int(flash)
        params.kv_unified = settings.kv_unified
        return params

    def _load_adapters(self, settings: ModelSettings) -> None:
        for adapter in settings.lora:
            if adapter.label in self.adapters:
                raise InvalidModelFile(
                    f"two LoRA adapters are called {adapter.label}: name them with NAME:PATH"
                )
            if not adapter.path.is_file():
                raise ModelFileNotFound(f"no such LoRA file: {adapter.path}")
            handle = self._api.llama_adapter_lora_init(self._model, os.fsencode(adapter.path))
            if not handle:
                reason = self._library.take_error("it does not fit the model")
                raise InvalidModelFile(f"cannot load LoRA {adapter.path}: {reason}")
            self.adapters[adapter.label] = handle

    def max_rows(self, settings: ModelSettings) -> int:
        """Most rows of logits of one step: one for each sequence, and some of a prompt."""
        if settings.deterministic:
            return settings.parallel + CHUNK
        least, most = _PROMPT_ROWS
        affordable = _PROMPT_ROW_BYTES // (4 * self.tokenizer.n_vocab)
        return settings.parallel + min(max(affordable, least), most)

    def _describe(self, settings: ModelSettings) -> ModelInfo:
        api, model, tokenizer = self._api, self._model, self.tokenizer
        assert settings.context
        description = _read_string(api.llama_model_desc, model)
        can_trim = not (api.llama_model_is_recurrent(model) or api.llama_model_is_hybrid(model))
        template = api.llama_model_chat_template(model, None)
        return ModelInfo(
            architecture=self._meta("general.architecture") or "unknown",
            description=description,
            quantization=description.rsplit(" ", 1)[-1],
            n_params=api.llama_model_n_params(model),
            file_bytes=api.llama_model_size(model),
            kv_bytes=kv_bytes(check_gguf(settings.path), settings),
            context=settings.context,
            context_trained=api.llama_model_n_ctx_train(model),
            parallel=settings.parallel,
            n_vocab=tokenizer.n_vocab,
            chat_template=template.decode("utf-8", "replace") if template else None,
            bos_token=tokenizer.spelling(tokenizer.bos),
            eos_token=tokenizer.spelling(tokenizer.eos),
            device=self._device(settings),
            fingerprint=self._fingerprint(settings),
            can_trim=can_trim,
            can_draft=can_trim and not settings.deterministic,
            window=api.llama_model_n_swa(model),
            lora=tuple(LoraScale(each.label, each.scale) for each in settings.lora),
        )

    def _device(self, settings: ModelSettings) -> str:
        if not self._api.llama_supports_gpu_offload() or settings.n_gpu_layers == 0:
            return f"CPU ({settings.threads} threads)"
        layers = self._api.llama_model_n_layer(self._model)
        offloaded = layers if settings.n_gpu_layers < 0 else min(settings.n_gpu_layers, layers)
        return f"GPU ({offloaded}/{layers} layers)"

    def _fingerprint(self, settings: ModelSettings) -> str:
        stat = settings.path.stat()
        build = self._library.path.stat()
        bits = (
            stat.st_size,
            stat.st_mtime_ns,
            build.st_size,
            build.st_mtime_ns,
            settings.type_k,
            settings.type_v,
            settings.flash_attention,
            settings.use_extra_bufts,
            settings.threads,
            settings.ubatch_size,
            settings.kv_unified,
            settings.deterministic,
            settings.n_gpu_layers,
            [_identity(adapter) for adapter in settings.lora],
        )
        return "fp_" + hashlib.sha256(repr(bits).encode()).hexdigest()[:12]

    def _meta(self, key: str) -> str | None:
        text = _read_string(self._api.llama_model_meta_val_str, self._model, key.encode())
        return text or None

    def close(self) -> None:
        """Free context and weights; adapters go with the model. Waits for threads that read the
        vocabulary: prompts are tokenised, and the trie of grammars is built, beside the engine."""
        self.tokenizer.close()
        if self._context:
            self._api.llama_free(self._context)
        if self._model:
            self._api.llama_model_free(self._model)
        self._context = self._model = None


def _identity(adapter: LoraAdapter) -> tuple[str, float, int, int]:
    """What distinguishes an adapter's effect, and its file."""
    stat = adapter.path.stat()
    return adapter.label, adapter.scale, stat.st_size, stat.st_mtime_ns


def _progress_callback(report: OnProgress) -> Callable[[float, object], bool]:
    def progress(fraction: float, _user_data: object) -> bool:
        report(fraction)
        return True

    return progress


def _read_string(function: Callable[..., int], *arguments: Any) -> str:
    """Call a llama.cpp function that writes a string and returns its length; "" for none."""
    size = 256
    while True:
        out = ctypes.create_string_buffer(size)
        length = function(*arguments, out, size)
        if length < size:
            return out.value.decode("utf-8", "replace") if length > 0 else ""
        size = length + 1


def usable_cores() -> int:
    """Logical processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def physical_cores() -> int:
    """Cores this process may use, without their second hardware threads where Linux tells."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if allowed is None:
        return os.cpu_count() or 1
    siblings: set[str] = set()
    for cpu in allowed:
        path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            siblings.add(path.read_text())
        except OSError:
            return len(allowed)
    return len(siblings)
