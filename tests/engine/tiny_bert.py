"""Random BERTs of a few kilobytes, written with the gguf package: embedders and rerankers."""

from __future__ import annotations

import string
from pathlib import Path

import gguf
import numpy as np

from tests.engine.tiny_models import Shapes, values

EMBEDDING, LAYERS, HEADS, FEED_FORWARD, CONTEXT = 32, 2, 2, 64, 96
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PAD, UNK, CLS, SEP, MASK = range(5)
LETTERS = string.ascii_lowercase + string.digits + string.punctuation


def write_bert(
    path: Path, pooling: gguf.PoolingType | None, labels: int = 1, template: str | None = None
) -> Path:
    """A BERT with this pooling; RANK adds a head with `labels` scores, and `template` the text
    around a pair."""
    writer = gguf.GGUFWriter(path, "bert")
    hyperparameters(writer, EMBEDDING, LAYERS, HEADS, FEED_FORWARD, CONTEXT, 1e-5)
    vocabulary(writer, [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS)])
    if pooling is not None:
        writer.add_pooling_type(pooling)
    if template is not None:
        writer.add_chat_template([{"name": "rerank", "template": template}])
    tensors = shapes(len(SPECIAL) + 2 * len(LETTERS))
    if pooling is gguf.PoolingType.RANK:
        writer.add_classifier_output_labels([f"label {i}" for i in range(labels)])
        tensors |= {"cls.weight": (EMBEDDING, EMBEDDING), "cls.bias": (EMBEDDING,)}
        tensors |= {"cls.output.weight": (labels, EMBEDDING), "cls.output.bias": (labels,)}
    rng = np.random.default_rng(5)
    for name, shape in tensors.items():
        writer.add_tensor(name, values(rng, name, shape))
    finish(writer)
    return path


def hyperparameters(
    writer: gguf.GGUFWriter,
    embedding: int,
    layers: int,
    heads: int,
    feed_forward: int,
    context: int,
    epsilon: float,
) -> None:
    writer.add_context_length(context)
    writer.add_embedding_length(embedding)
    writer.add_block_count(layers)
    writer.add_head_count(heads)
    writer.add_feed_forward_length(feed_forward)
    writer.add_layer_norm_eps(epsilon)
    writer.add_causal_attention(False)


def vocabulary(writer: gguf.GGUFWriter, words: list[str]) -> None:
    """A word begins with U+2581 and its continuations lose their ##, as llama.cpp has it."""

    def spelling(word: str) -> str:
        if word.startswith("##"):
            return word[2:]
        return word if word.startswith("[") and word.endswith("]") else "\u2581" + word

    special = {name: words.index(name) for name in SPECIAL}
    types = [3 if word in special else 1 for word in words]
    writer.add_tokenizer_model("bert")
    writer.add_token_list([spelling(word) for word in words])
    writer.add_token_types(types)
    writer.add_token_type_count(2)
    writer.add_bos_token_id(special["[CLS]"])
    writer.add_sep_token_id(special["[SEP]"])
    writer.add_unk_token_id(special["[UNK]"])
    writer.add_pad_token_id(special["[PAD]"])
    writer.add_mask_token_id(special["[MASK]"])


def shapes(n_vocab: int) -> Shapes:
    tensors: Shapes = {
        "token_embd.weight": (n_vocab, EMBEDDING),
        "position_embd.weight": (CONTEXT, EMBEDDING),
        "token_types.weight": (2, EMBEDDING),
        "token_embd_norm.weight": (EMBEDDING,),
        "token_embd_norm.bias": (EMBEDDING,),
    }
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensors[f"{block}.{part}.weight"] = (EMBEDDING, EMBEDDING)
            tensors[f"{block}.{part}.bias"] = (EMBEDDING,)
        tensors[f"{block}.ffn_up.weight"] = (FEED_FORWARD, EMBEDDING)
        tensors[f"{block}.ffn_up.bias"] = (FEED_FORWARD,)
        tensors[f"{block}.ffn_down.weight"] = (EMBEDDING, FEED_FORWARD)
        tensors[f"{block}.ffn_down.bias"] = (EMBEDDING,)
        for norm in ("attn_output_norm", "layer_output_norm"):
            tensors[f"{block}.{norm}.weight"] = (EMBEDDING,)
            tensors[f"{block}.{norm}.bias"] = (EMBEDDING,)
    return tensors


def finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
