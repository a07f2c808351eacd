"""The installer's decisions: which flags, which wheel, and when there is nothing to do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from engine import install

GCC12 = {"__GNUC__": "12", "__x86_64__": "1", "__VERSION__": '"12.2.0"'}


@pytest.mark.parametrize(
    ("macros", "expected"),
    [
        (GCC12, True),
        (GCC12 | {"__GNUC__": "13"}, False),
        (GCC12 | {"__GNUC__": "9"}, True),
        (GCC12 | {"__GNUC__": "4", "__clang__": "1"}, False),
        (GCC12 | {"__INTEL_COMPILER": "2021"}, False),
        ({"__GNUC__": "12", "__aarch64__": "1"}, False),
        ({"_MSC_VER": "1940", "_M_X64": "1"}, False),
    ],
)
def test_who_miscompiles_amx(macros, expected):
    assert install.miscompiles_amx(macros) is expected


def test_flags_are_appended_to_the_users_once(monkeypatch):
    monkeypatch.setenv("CFLAGS", "-O2 -fno-dse")
    assert install.compile_flags("CFLAGS", GCC12) == "-O2 -fno-dse -fno-tree-dse"
    assert install.compile_flags("CFLAGS", GCC12 | {"__GNUC__": "14"}) == "-O2 -fno-dse"
    assert install.compile_flags("CFLAGS", None) == "-O2 -fno-dse"


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for CC and CXX that knows one processor."""
    script = tmp_path / "mycc"
    script.write_text(
        '#!/bin/sh\ncase "$*" in *-march=native*) exit 1;; esac\n'
        "echo '#define __GNUC__ 12'\necho '#define __x86_64__ 1'\necho '#define __AVX2__ 1'\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("CC", f"{script} --wrapped")
    monkeypatch.setenv("CXX", str(script))
    monkeypatch.delenv("CMAKE_ARGS", raising=False)
    return script


def test_the_compiler_is_asked_what_it_is(compiler):
    macros = install.native_macros("CC", "c")
    assert macros == {"__GNUC__": "12", "__x86_64__": "1", "__AVX2__": "1"}


def test_a_compiler_that_is_not_there_is_none(monkeypatch):
    monkeypatch.setenv("CC", "/no/such/compiler")
    assert install.native_macros("CC", "c") is None


def test_the_key_changes_with_all_that_shapes_the_wheel(compiler, monkeypatch):
    def key(requirement: str = "llama-cpp-python==1") -> str:
        return install.digest(install.build_inputs(requirement))

    first = key()
    assert key() == first
    keys = {first, key("llama-cpp-python==2")}
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_CUDA=on")
    keys.add(key())
    monkeypatch.setenv("CXXFLAGS", "-O1")
    keys.add(key())
    compiler.write_text(compiler.read_text().replace("__AVX2__", "__AVX512F__"))
    keys.add(key())
    assert len(keys) == 5


def test_the_users_cmake_arguments_come_last(monkeypatch):
    monkeypatch.setenv("CMAKE_ARGS", "-DLLAVA_BUILD=ON")
    arguments = install.build_inputs("x==1")["cmake_args"].split()
    assert arguments[-1] == "-DLLAVA_BUILD=ON"


def test_dependencies_stand_in_pyproject_alone():
    dependencies, dev = install.read_dependencies()
    assert re.fullmatch(r"llama-cpp-python==[\d.]+", install.pinned(dependencies))
    assert any(item.startswith("pytest") for item in dev)


@pytest.fixture
def stamped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A finished development install in a directory of its own; returns what it was for."""
    monkeypatch.setattr(install, "VENV", tmp_path)
    monkeypatch.setattr(install, "STAMP", tmp_path / "stamp.json")
    install.venv_python().parent.mkdir(parents=True)
    install.venv_python().touch()
    wanted = {"dependencies": ["a"], "dev": ["b"], "build": {"compilers": ["x", "y"]}}
    install.STAMP.write_text(json.dumps(wanted))
    return wanted


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"dev": None}, True),
        ({"dev": ["c"]}, False),
        ({"dependencies": ["a", "z"]}, False),
        ({"build": {"compilers": ["x", "z"]}}, False),
        ({"build": {"compilers": None}}, True),
    ],
)
def test_when_there_is_nothing_to_do(stamped, change, expected):
    assert install.is_current(stamped | change) is expected


def test_a_damaged_stamp_or_venv_is_not_current(stamped):
    install.STAMP.write_text("{")
    assert install.is_current(stamped) is False
    install.STAMP.write_text(json.dumps(stamped))
    install.venv_python().unlink()
    assert install.is_current(stamped) is False


def test_an_earlier_wheel_is_taken_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(install, "cache_directory", lambda: tmp_path)
    inputs = {"requirement": "x==1", "compilers": None}
    wheel = tmp_path / "wheels" / install.digest(inputs) / "x.whl"
    wheel.parent.mkdir(parents=True)
    wheel.touch()
    assert install.cached_wheel(inputs, force=False) == wheel


@pytest.mark.skipif(os.name == "nt", reason="CMake finds Microsoft's compiler by itself")
def test_no_compiler_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(install, "cache_directory", lambda: tmp_path)
    with pytest.raises(install.InstallError, match=r"^no C and C\+\+ compiler found: install one"):
        install.cached_wheel({"requirement": "x==1", "compilers": None}, force=False)


def test_the_build_is_watched_and_its_first_error_found(tmp_path, capsys):
    log = tmp_path / "build.log"
    script = "for i in range(1, 11): print(f'  [{i}/10] cc')\nprint('x.c:1: fatal error: no.h')"
    code = install.watch_build([sys.executable, "-c", script], dict(os.environ), log)
    assert code == 0
    assert "install: compiling: 50 %" in capsys.readouterr().err
    assert install.last_error(log) == "x.c:1: fatal error: no.h"
    log.write_text("nothing to see")
    assert install.last_error(log) == "see the end of the log"


def test_an_old_python_is_told_so(monkeypatch):
    monkeypatch.setattr(install.sys, "version_info", (3, 10, 1))
    with pytest.raises(install.InstallError, match=r"^Python 3\.11 or newer is needed"):
        install.install(dev=False, force=False)


def test_the_script_runs_without_the_project_on_its_path(tmp_path):
    result = subprocess.run(
        [sys.executable, str(Path(install.__file__)), "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--force" in result.stdout
