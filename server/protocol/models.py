"""GET /v1/models: OpenAI's four fields, and what other clients look for beside them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import UNSET, Struct, UnsetType


class AdapterCard(Struct):
    """A LoRA adapter that requests can name, and its scale where they name none."""

    name: str
    scale: float


class ModelMeta(Struct):
    """Of the loaded file; `size` in bytes."""

    description: str
    architecture: str
    quantization: str
    n_params: int
    n_vocab: int
    n_ctx: int
    n_ctx_train: int
    size: int
    parallel: int
    device: str
    system_fingerprint: str
    lora: list[AdapterCard] = []


class MemoryCard(Struct):
    """Bytes that the model takes while it is loaded; buffers and cached prefixes come on top."""

    weights: int
    kv_cache: int
    total: int


class ModelCard(Struct, kw_only=True):
    """One model; of one that was never loaded what its file tells. The context, in tokens of
    prompt and output, goes by four names; `type`, `display_name`, `created_at` and `lifecycle`
    are Anthropic's."""

    id: str
    object: Literal["model"] = "model"
    type: Literal["model"] = "model"
    display_name: str
    created: int
    created_at: datetime
    lifecycle: Literal["active"] = "active"
    owned_by: str = "ingle"
    aliases: list[str]
    state: str
    loaded: bool
    context_length: int | UnsetType = UNSET
    max_model_len: int | UnsetType = UNSET
    max_input_tokens: int | UnsetType = UNSET
    max_tokens: int | UnsetType = UNSET
    capabilities: list[str] | UnsetType = UNSET
    memory: MemoryCard | UnsetType = UNSET
    error: str | UnsetType = UNSET
    """Why the state is failed."""
    meta: ModelMeta | UnsetType = UNSET
