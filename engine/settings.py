"""How a model is to be loaded and run: filled by the front end, read by the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from msgspec import Struct

from engine.request import LoraScale

KVType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]
SplitMode = Literal["none", "layer", "row", "tensor"]

Task = Literal["generate", "embed", "rerank"]
"""What a file is made for: its pooling type says so."""

ALL_LAYERS = -1
AUTO_LAYERS = -2


class LoraAdapter(Struct, frozen=True):
    """A LoRA GGUF that is applied to every request of the model that does not say otherwise."""

    path: Path
    scale: float = 1.0
    name: str = ""
    """What requests call it; "" stands for the file's name without its ending."""

    @property
    def label(self) -> str:
        """The name, given or not."""
        return self.name or self.path.stem


class ModelSettings(Struct, frozen=True, kw_only=True):
    """Settings of one model; `None` leaves the choice to the probe or to the model's file."""

    path: Path
    context: int | None = None
    """Tokens (prompt and output) of one request; None: the trained length, at most 8192."""
    parallel: int = 4
    """Sequences that run at the same time; `context × parallel` cells of KV cache are allocated."""
    max_queue: int = 256
    """Requests that may wait for a slot."""
    threads: int | None = None
    batch_size: int = 2048
    """Most tokens of one step (n_batch)."""
    ubatch_size: int | None = None
    """Most tokens of one pass through the graph (n_ubatch)."""
    prefix_cache_mib: int = 1024
    """Host memory for prefixes of prompts that no slot holds any more; 0 keeps none."""
    prefix_cache_dir: Path | None = None
    """Directory for prefixes that leave host memory, across restarts; None keeps none."""
    prefix_cache_disk_mib: int = 4096
    """What the directory may hold, whichever models it serves."""
    max_stall: float = 0.15
    """Seconds a step may take while anyone is decoding; sizes the prompt part of a step."""
    deterministic: bool = False
    """The same seed gives the same text whatever else runs, at a price; not with `kv_unified`."""
    n_gpu_layers: int = AUTO_LAYERS
    """`ALL_LAYERS` (−1), `AUTO_LAYERS` (−2), or a number of layers."""
    main_gpu: int = 0
    split_mode: SplitMode = "layer"
    tensor_split: tuple[float, ...] = ()
    type_k: KVType = "f16"
    type_v: KVType = "f16"
    flash_attention: bool | None = None
    kv_unified: bool = False
    """One pool of cells for all sequences: less memory, slower beside long neighbours."""
    use_mmap: bool = True
    use_mlock: bool = False
    use_extra_bufts: bool | None = None
    """Repacked weights (AMX and the like); False where the probe saw them crash."""
    lora: tuple[LoraAdapter, ...] = ()


class ModelInfo(Struct, frozen=True, kw_only=True):
    """What a loaded model says of itself."""

    architecture: str
    description: str
    """llama.cpp's line, such as `llama 135M Q4_1`."""
    quantization: str
    n_params: int
    file_bytes: int
    kv_bytes: int
    context: int
    """Tokens of one request."""
    context_trained: int
    parallel: int
    n_vocab: int
    chat_template: str | None
    bos_token: str
    eos_token: str
    device: str
    """Where the layers run, such as `CPU` or `CUDA0 (24/32 layers)`."""
    fingerprint: str
    """Changes with the file, the build and the settings that change bits."""
    can_trim: bool = True
    """Whether the memory can forget a sequence's end; recurrent and hybrid ones cannot."""
    can_draft: bool = True
    """Whether predicted tokens are computed ahead: the memory must forget those that do not come,
    and a row's bits must not have to be the same in any company."""
    window: int = 0
    """Tokens that layers with a sliding window see; 0 where there are none."""
    lora: tuple[LoraScale, ...] = ()
    """The LoRA adapters by name, with the scale they have where a request names none."""
    task: Task = "generate"
    embedding_length: int = 0
    """Floats of one embedding; 0 where the model makes none."""
    rerank_template: str | None = None
    """Text around {query} and {document}, where a reranker has one."""
    scores_are_probabilities: bool = False
    """A reranker's score is one already, not a logit."""
