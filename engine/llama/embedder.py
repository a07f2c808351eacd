"""Embeddings and rank scores on llama.cpp: a context that pools, and packs of inputs through it."""

from __future__ import annotations

import ctypes
import logging
from typing import Any

import numpy as np
from msgspec.structs import replace

from engine.embedding import Rows
from engine.errors import InvalidModelFile, StepFailed
from engine.gguf_check import check_gguf
from engine.llama.library import library
from engine.llama.model import Model, physical_cores
from engine.llama.token_batch import TokenBatch
from engine.memory import context_of
from engine.settings import ModelInfo, ModelSettings

log = logging.getLogger("ingle.llama")

MAX_INPUTS = 64
"""Inputs of one pass."""
PACK_TOKENS = 512
"""Of a pass with several inputs: attention and llama.cpp's output rows grow with all of them."""
SCORE_FROM_SOFTMAX = ("qwen3", "qwen3vl")
"""Rerankers whose graph ends in a softmax over yes and no."""


class EmbeddingModel(Model):
    """A model whose context pools: a pass takes whole inputs, as attention looks both ways."""

    def _check_kind(self, settings: ModelSettings) -> None:
        api, model = self._api, self._model
        self.task = check_gguf(settings.path).task
        if self.task == "generate":
            raise InvalidModelFile(f"{settings.path} names no pooling type for embeddings")
        if api.llama_model_has_encoder(model) and api.llama_model_has_decoder(model):
            raise InvalidModelFile(
                f"{settings.path} is an encoder-decoder model, which is not supported"
            )
        labels = api.llama_model_n_cls_out(model)
        softmax = self._meta("general.architecture") in SCORE_FROM_SOFTMAX
        if self.task == "rerank" and labels > 1 and not softmax:
            raise InvalidModelFile(f"{settings.path} sorts into {labels} classes: no reranker")

    def _check_context(self, settings: ModelSettings) -> None:
        """Encoders have no memory, and need none."""

    def _complete(self, settings: ModelSettings) -> ModelSettings:
        context = context_of(check_gguf(settings.path), settings)
        if settings.context and context < settings.context:
            log.warning("%s was trained on %d tokens, no more", settings.path.name, context)
        pack = settings.ubatch_size or PACK_TOKENS
        size = -(-max(context, pack) // 256) * 256
        return replace(
            settings,
            # More than the file's positions would be read from beyond its table.
            context=context,
            parallel=MAX_INPUTS,
            threads=settings.threads or physical_cores(),
            batch_size=size,
            ubatch_size=pack,
            # Long passes are several times faster with it, on a CPU too.
            flash_attention=settings.flash_attention is not False,
        )

    def _context_params(self, settings: ModelSettings) -> Any:
        params = super()._context_params(settings)
        params.embeddings = True
        params.n_ctx = params.n_ubatch = settings.batch_size
        # Streams of their own would be cut into passes of equal lengths.
        params.kv_unified = True
        params.n_outputs_max = 0  # one row a token: n_batch
        return params

    def _load_adapters(self, settings: ModelSettings) -> None:
        """All of them apply to every pass."""
        super()._load_adapters(settings)
        if not settings.lora:
            return
        count = len(settings.lora)
        handles = (self._api.llama_adapter_lora_p_ctypes * count)(*self.adapters.values())
        scales = (ctypes.c_float * count)(*(adapter.scale for adapter in settings.lora))
        if self._api.llama_set_adapters_lora(self._context, handles, count, scales) != 0:
            raise InvalidModelFile("the LoRA adapters cannot be applied together")

    def _describe(self, settings: ModelSettings) -> ModelInfo:
        api, model = self._api, self._model
        template = api.llama_model_chat_template(model, b"rerank")
        return replace(
            super()._describe(settings),
            task=self.task,
            embedding_length=api.llama_model_n_embd_out(model) if self.task == "embed" else 0,
            rerank_template=template.decode("utf-8", "replace") if template else None,
            scores_are_probabilities=self._meta("general.architecture") in SCORE_FROM_SOFTMAX,
        )


class LlamaEmbedder:
    """Implements `Embedder` for one model; only the engine's thread may call it."""

    def __init__(self, model: EmbeddingModel) -> None:
        api = library().api
        self._api = api
        self._context = model.context
        self._memory = api.llama_get_memory(model.context)
        self._run = api.llama_decode if self._memory else api.llama_encode
        # What else is in a pass moves the last bits of a row.
        self.max_inputs = 1 if model.settings.deterministic else MAX_INPUTS
        self.max_tokens: int = api.llama_n_ubatch(model.context)
        self.pack_tokens = model.settings.ubatch_size or PACK_TOKENS
        embeds = model.info.task == "embed"
        self.width: int = (
            model.info.embedding_length if embeds else api.llama_model_n_cls_out(model.native)
        )
        self._n_vocab = model.tokenizer.n_vocab
        self._batch = TokenBatch(self.max_tokens)
        self._batch.wanted[:] = 1

    def embed(self, inputs: list[list[int]]) -> Rows:
        """See `Embedder.embed`."""
        self._fill(inputs)
        if self._memory:
            self._api.llama_memory_clear(self._memory, False)
        status = self._run(self._context, self._batch.native)
        if status != 0:
            raise StepFailed(f"llama.cpp returned {status} for {self._batch.count} tokens")
        rows = np.empty((len(inputs), self.width), np.float32)
        for index in range(len(inputs)):
            rows[index] = self._row(index)
        if not np.isfinite(rows).all():
            raise StepFailed("the model computed values that are no numbers")
        return rows

    def _fill(self, inputs: list[list[int]]) -> None:
        """llama.cpp aborts the process on more tokens or inputs than its context was made for."""
        total = sum(map(len, inputs))
        if not 0 < total <= self.max_tokens or len(inputs) > self.max_inputs:
            raise StepFailed(f"a pass of {len(inputs)} inputs and {total} tokens was scheduled")
        batch, at = self._batch, 0
        for index, tokens in enumerate(inputs):
            end = at + len(tokens)
            batch.tokens[at:end] = tokens
            batch.positions[at:end] = np.arange(len(tokens), dtype=np.int32)
            batch.sequences[at:end] = index
            at = end
        batch.count = total

    def _row(self, index: int) -> Rows:
        pointer = self._api.llama_get_embeddings_seq(self._context, index)
        if not pointer:
            raise StepFailed(f"there is no embedding of input {index}")
        return np.ctypeslib.as_array(pointer, (self.width,))

    def set_threads(self, threads: int) -> None:
        """See `Embedder.set_threads`."""
        self._api.llama_set_n_threads(self._context, threads, threads)
