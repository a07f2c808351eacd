"""A vocabulary's bytes between two starts: kept, checked, dropped where they are not its own."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from engine import vocabulary_file
from engine.constraint_vocab import TokenTrie
from engine.vocabulary_file import VocabularyFile
from tests.engine.test_constraint import ByteVocabulary

HEADER = 64


class Silent(ByteVocabulary):
    """Cannot be asked for its bytes."""

    def token_bytes(self, token: int) -> bytes:
        raise AssertionError("asked although the file has them")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(bytes(range(HEADER)) + b"weights")
    return path


@pytest.fixture
def file(tmp_path: Path, model: Path) -> VocabularyFile:
    return VocabularyFile(tmp_path / "cache", model, HEADER)


def only_file(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "cache" / "vocabulary").iterdir()
    return path


def test_the_second_start_asks_for_no_token(file: VocabularyFile) -> None:
    first = TokenTrie(ByteVocabulary(), file=file).get()
    second = TokenTrie(Silent(), file=file).get()
    for token in range(Silent().n_vocab):
        assert first.decode_bytes([token]) == second.decode_bytes([token])


def test_bytes_come_back_as_they_were(file: VocabularyFile) -> None:
    vocabulary = ByteVocabulary([b"", b"\xff" * 70_000, "né".encode(), b"<x>", b"<end>"])
    file.write(vocabulary, vocabulary.tokens)
    assert file.read(vocabulary) == vocabulary.tokens


@pytest.mark.parametrize("place", [0, 12, 45, 200, 1_500, -40, -1])
def test_a_damaged_byte_drops_the_file(file: VocabularyFile, tmp_path: Path, place: int) -> None:
    vocabulary = ByteVocabulary()
    file.write(vocabulary, vocabulary.tokens)
    path = only_file(tmp_path)
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)
    assert file.read(vocabulary) is None
    assert not path.exists()
    TokenTrie(vocabulary, file=file).get()
    assert file.read(Silent()) == vocabulary.tokens


@pytest.mark.parametrize("size", [0, 7, 60, 1_000, -1])
def test_a_file_cut_short_is_dropped(file: VocabularyFile, tmp_path: Path, size: int) -> None:
    vocabulary = ByteVocabulary()
    file.write(vocabulary, vocabulary.tokens)
    path = only_file(tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    assert file.read(vocabulary) is None
    assert not path.exists()


def test_other_control_tokens_are_another_vocabulary(file: VocabularyFile) -> None:
    vocabulary = ByteVocabulary()
    file.write(vocabulary, vocabulary.tokens)
    other = ByteVocabulary()
    other.control = frozenset((3,))
    assert file.read(other) is None


def test_another_header_or_build_is_another_file(
    file: VocabularyFile, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary = ByteVocabulary()
    file.write(vocabulary, vocabulary.tokens)
    model.write_bytes(bytes(range(HEADER)) + b"other weights")
    assert file.read(vocabulary) == vocabulary.tokens
    monkeypatch.setattr(vocabulary_file, "build_identity", lambda: ["another build"])
    assert file.read(vocabulary) is None
    monkeypatch.undo()
    model.write_bytes(bytes(range(1, HEADER + 1)) + b"weights")
    assert file.read(vocabulary) is None


def test_there_are_never_many_files(tmp_path: Path) -> None:
    vocabulary = ByteVocabulary()
    for number in range(vocabulary_file.KEPT + 3):
        model = tmp_path / f"{number}.gguf"
        model.write_bytes(bytes([number]) * HEADER)
        file = VocabularyFile(tmp_path / "cache", model, HEADER)
        file.write(vocabulary, vocabulary.tokens)
        (written,) = (tmp_path / "cache" / "vocabulary").glob(f"{number}-*")
        os.utime(written, (number, number))
    names = {p.name.partition("-")[0] for p in (tmp_path / "cache" / "vocabulary").iterdir()}
    assert names == {str(n) for n in range(3, vocabulary_file.KEPT + 3)}


def test_a_directory_that_cannot_be_written_costs_a_warning(
    tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_bytes(b"a file in the way")
    file = VocabularyFile(tmp_path / "cache", model, HEADER)
    with caplog.at_level(logging.WARNING, "ingle.vocabulary"):
        assert TokenTrie(ByteVocabulary(), file=file).get().vocab_size == Silent().n_vocab
    assert "cannot be kept" in caplog.text
