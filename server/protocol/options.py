"""What every text endpoint may be told about sampling and length, in OpenAI's names.

None is "not given". Types only; ranges and defaults stand in `server.prepare`.
"""

from __future__ import annotations

from msgspec import Struct


class LoraOption(Struct, frozen=True):
    """One of the model's LoRA adapters, by name; all that are not listed are off."""

    name: str
    scale: float = 1.0


class SharedOptions(Struct, kw_only=True):
    """What has one name in all of OpenAI's APIs, and what is added to them here."""

    context_length_exceeded_behavior: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    repeat_penalty: float | None = None
    """The same, as llama.cpp and Open WebUI call it."""
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    """Each use keeps all prefixes of the key longer; any prompt meets any prefix without it."""
    prompt_cache_retention: str | None = None
    """Checked, and without effect: what is kept is decided by use and memory."""
    service_tier: str | None = None
    metadata: dict[str, str] | None = None
    lora: list[LoraOption] | None = None


class GenerationOptions(SharedOptions, kw_only=True):
    """Base of the requests that generate text."""

    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
