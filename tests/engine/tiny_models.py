"""Random models of a few kilobytes, one per kind of memory, written with the gguf package.

A vocabulary of bytes; weights from a fixed seed, large enough that greedy answers vary.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

N_VOCAB = 259
EMBEDDING, LAYERS, HEADS, FEED_FORWARD = 32, 2, 2, 64


def write(path: Path, kind: str, pooling: gguf.PoolingType | None = None) -> Path:
    """Write a model whose memory is `attention`, `window`, `recurrent` or `hybrid`; with
    `pooling` one that embeds."""
    architecture, build = (KINDS | OTHERS)[kind]
    writer = gguf.GGUFWriter(path, architecture)
    common(writer)
    if pooling is not None:
        writer.add_pooling_type(pooling)
    tensors: Shapes = {"token_embd.weight": (N_VOCAB, EMBEDDING)}
    build(writer, tensors)
    fill(writer, tensors)
    return path


def fill(writer: gguf.GGUFWriter, tensors: Shapes) -> None:
    """Give the tensors their values, the same every time, and write the file."""
    rng = np.random.default_rng(11)
    for name, shape in tensors.items():
        writer.add_tensor(name, values(rng, name, shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_lora(
    path: Path,
    seed: int,
    *,
    layers: int = LAYERS,
    n_in: int = EMBEDDING,
    n_out: int = EMBEDDING,
    strength: float = 1.0,
) -> Path:
    """Write an adapter of rank 2 for the attention model, or for the values of any llama."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 2.0)
    rng = np.random.default_rng(seed)
    for layer in range(layers):
        name = f"blk.{layer}.attn_v.weight"
        for suffix, shape in (("lora_a", (2, n_in)), ("lora_b", (n_out, 2))):
            tensor = rng.normal(0, strength, shape).astype(np.float32)
            writer.add_tensor(f"{name}.{suffix}", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


Shapes = dict[str, tuple[int, ...]]


def values(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name.endswith("norm.weight"):
        return np.ones(shape, np.float32)
    if name.endswith("ssm_a"):
        return -np.exp(rng.normal(0, 0.5, shape)).astype(np.float32)
    scale = 1.0 if name == "token_embd.weight" else 2.0 / np.sqrt(shape[-1])
    return rng.normal(0, scale, shape).astype(np.float32)


def common(writer: gguf.GGUFWriter) -> None:
    writer.add_context_length(2048)
    writer.add_embedding_length(EMBEDDING)
    writer.add_block_count(LAYERS)
    writer.add_vocab_size(N_VOCAB)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))])
    writer.add_token_scores([0.0] * N_VOCAB)
    writer.add_token_types([2, 3, 3] + [6] * 256)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def attention_layer(block: str) -> Shapes:
    square = (EMBEDDING, EMBEDDING)
    return {
        f"{block}.attn_norm.weight": (EMBEDDING,),
        f"{block}.attn_q.weight": square,
        f"{block}.attn_k.weight": square,
        f"{block}.attn_v.weight": square,
        f"{block}.attn_output.weight": square,
    }


def feed_forward(block: str) -> Shapes:
    return {
        f"{block}.ffn_norm.weight": (EMBEDDING,),
        f"{block}.ffn_gate.weight": (FEED_FORWARD, EMBEDDING),
        f"{block}.ffn_up.weight": (FEED_FORWARD, EMBEDDING),
        f"{block}.ffn_down.weight": (EMBEDDING, FEED_FORWARD),
    }


def heads(writer: gguf.GGUFWriter, kv: int | list[int] = HEADS) -> None:
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(kv)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_layer_norm_rms_eps(1e-5)


def attention(writer: gguf.GGUFWriter, tensors: Shapes) -> None:
    heads(writer)
    writer.add_rope_dimension_count(EMBEDDING // HEADS)
    tensors["output_norm.weight"] = (EMBEDDING,)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        tensors |= attention_layer(block)
        tensors |= feed_forward(block)


def sliding_window(writer: gguf.GGUFWriter, tensors: Shapes) -> None:
    heads(writer)
    writer.add_sliding_window(32)
    width = EMBEDDING // HEADS
    writer.add_key_length(width)
    writer.add_value_length(width)
    tensors["output_norm.weight"] = (EMBEDDING,)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        tensors |= attention_layer(block)
        tensors |= feed_forward(block)
        tensors |= {
            f"{block}.attn_q_norm.weight": (width,),
            f"{block}.attn_k_norm.weight": (width,),
            f"{block}.post_attention_norm.weight": (EMBEDDING,),
            f"{block}.post_ffw_norm.weight": (EMBEDDING,),
        }


def recurrent(writer: gguf.GGUFWriter, tensors: Shapes) -> None:
    inner, conv, state, rank = 2 * EMBEDDING, 4, 8, 4
    heads(writer, 0)
    writer.add_ssm_conv_kernel(conv)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    tensors["output_norm.weight"] = (EMBEDDING,)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        tensors |= {
            f"{block}.attn_norm.weight": (EMBEDDING,),
            f"{block}.ssm_in.weight": (2 * inner, EMBEDDING),
            f"{block}.ssm_conv1d.weight": (inner, conv),
            f"{block}.ssm_conv1d.bias": (inner,),
            f"{block}.ssm_x.weight": (rank + 2 * state, inner),
            f"{block}.ssm_dt.weight": (inner, rank),
            f"{block}.ssm_dt.bias": (inner,),
            f"{block}.ssm_a": (inner, state),
            f"{block}.ssm_d": (inner,),
            f"{block}.ssm_out.weight": (EMBEDDING, inner),
        }


def hybrid(writer: gguf.GGUFWriter, tensors: Shapes) -> None:
    """A short convolution, then attention."""
    heads(writer, [0, HEADS])
    writer.add_shortconv_l_cache(3)
    writer.add_rope_dimension_count(EMBEDDING // HEADS)
    width = EMBEDDING // HEADS
    tensors["token_embd_norm.weight"] = (EMBEDDING,)
    tensors |= feed_forward("blk.0") | feed_forward("blk.1")
    tensors |= {
        "blk.0.attn_norm.weight": (EMBEDDING,),
        "blk.0.shortconv.conv.weight": (EMBEDDING, 3),
        "blk.0.shortconv.in_proj.weight": (3 * EMBEDDING, EMBEDDING),
        "blk.0.shortconv.out_proj.weight": (EMBEDDING, EMBEDDING),
    }
    tensors |= attention_layer("blk.1")
    tensors |= {
        "blk.1.attn_q_norm.weight": (width,),
        "blk.1.attn_k_norm.weight": (width,),
    }


def infill(writer: gguf.GGUFWriter, tensors: Shapes) -> None:
    """With three tokens that mark the parts of a text with a gap."""
    attention(writer, tensors)
    for token, part in enumerate(("pre", "suf", "mid"), start=3):
        writer.add_uint32(f"tokenizer.ggml.fim_{part}_token_id", token)


KINDS = {
    "attention": ("llama", attention),
    "window": ("gemma3", sliding_window),
    "recurrent": ("mamba", recurrent),
    "hybrid": ("lfm2", hybrid),
}
OTHERS = {"infill": ("llama", infill)}
