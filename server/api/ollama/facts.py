"""What is known of a model's file before it is loaded, and what more once it is."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec import Struct

from engine.errors import ModelLoadError
from engine.gguf_check import GGUFHeader
from server.api.model_list import capabilities
from server.chat.errors import TemplateError
from server.chat.format import ChatFormat
from server.loader import Headers
from server.models import ServedModel
from server.protocol.ollama import Details

FILE_TYPES = {
    **{0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K"},
    **{11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S"},
    **{17: "Q5_K_M", 18: "Q6_K", 24: "IQ1_S", 25: "IQ4_NL", 30: "IQ4_XS", 32: "BF16"},
}
"""llama_ftype → name; the common ones."""
MAX_SHOWN = 64
"""Longer arrays are shown as null unless everything is asked for."""


class FileFacts(Struct, frozen=True):
    """Of one file; `header` is None where there is none yet."""

    header: GGUFHeader | None
    size: int
    modified: datetime
    digest: str
    """Changes with the file; its contents are not read."""


async def facts_of(model: ServedModel, headers: Headers) -> FileFacts:
    """Read in a thread, the header once: clients ask for lists every few seconds."""
    return await asyncio.to_thread(_read, model.path, model.created, headers)


def _read(path: Path, created: int, headers: Headers) -> FileFacts:
    try:
        header = headers.read(path)
        stat = path.stat()
    except (ModelLoadError, OSError):
        moment = datetime.fromtimestamp(created, UTC)
        return FileFacts(None, 0, moment, _digest(str(path)))
    modified = datetime.fromtimestamp(stat.st_mtime, UTC)
    digest = _digest(f"{path.name} {stat.st_size} {stat.st_mtime_ns}")
    return FileFacts(header, stat.st_size, modified, digest)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def details_of(model: ServedModel, facts: FileFacts) -> Details:
    """Exact once it is loaded; before, what the header says."""
    metadata = facts.header.metadata if facts.header is not None else {}
    family = str(metadata.get("general.architecture", "unknown"))
    size = _count(facts.header.n_params) if facts.header is not None else ""
    quantization = FILE_TYPES.get(metadata.get("general.file_type", -1), "unknown")
    if model.loaded:
        quantization = model.info.quantization
    return Details(
        family=family, families=[family], parameter_size=size, quantization_level=quantization
    )


def _count(number: int) -> str:
    """Such as 134.5M."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)


async def capabilities_of(model: ServedModel, facts: FileFacts) -> list[str]:
    """In Ollama's words; every chat model here can call tools."""
    if model.loaded:
        known = {"completion", "tools", "thinking", "embedding", "rerank"}
        return [word for word in capabilities(model) if word in known]
    if facts.header is None:
        return []
    match facts.header.task:
        case "embed":
            return ["embedding"]
        case "rerank":
            return ["rerank"]
        case _:
            template = model.config.chat_template or template_of(facts)
            thinking = await asyncio.to_thread(_thinks, template)
            return ["completion", "tools", *(["thinking"] if thinking else [])]


def template_of(facts: FileFacts) -> str:
    """The file's chat template."""
    metadata = facts.header.metadata if facts.header is not None else {}
    return str(metadata.get("tokenizer.chat_template", ""))


def _thinks(template: str) -> bool:
    try:
        format = ChatFormat.from_template(template or None, bos_token="", eos_token="")
    except TemplateError:
        return False
    return format.learned.thought.learned


def model_info(model: ServedModel, facts: FileFacts, *, verbose: bool) -> dict[str, Any]:
    """The header's keys; arrays only where they are short or asked for."""
    metadata = facts.header.metadata if facts.header is not None else {}
    info = {
        key: value if verbose or not isinstance(value, list) or len(value) <= MAX_SHOWN else None
        for key, value in metadata.items()
        if key != "tokenizer.chat_template"
    }
    if facts.header is not None:
        info["general.parameter_count"] = facts.header.n_params
    return info
