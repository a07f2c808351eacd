"""Prefixes in files: found again after a restart, and never trusted when anything is wrong."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import engine.disk_cache
from engine.disk_cache import DiskCache
from engine.engine import Engine
from engine.errors import ModelLoadError
from engine.kv_cache import KVCache
from engine.prefix_index import Held
from engine.request import LoraScale, Request, RequestDone, SamplingParams, TokenOutput
from engine.settings import ModelSettings
from tests.engine.fakes import FakeRunner, Harness, continuation, make_core

pytestmark = pytest.mark.usefixtures("copying_pays")

TOKENS = [i % 60 + 1 for i in range(100)]
OTHER = [i % 50 + 7 for i in range(100)]
DATA = bytes(range(256)) * 4
GREEDY = SamplingParams(temperature=0)

Open = Callable[..., DiskCache]


@pytest.fixture
def disk(tmp_path: Path) -> Open:
    def open_cache(fingerprint: str = "fp_1", **fields: object) -> DiskCache:
        options: dict[str, object] = {
            "budget": 1 << 20,
            "most_tokens": 1000,
            "least_tokens": 10,
        }
        return DiskCache(tmp_path, fingerprint=fingerprint, **(options | fields))  # type: ignore[arg-type]

    return open_cache


def store(cache: DiskCache, *held: Held) -> None:
    """Write, and wait until it is done."""
    for each in held:
        cache.store(each, memoryview(DATA))
    cache.close(10)


def fetched(cache: DiskCache, tokens: list[int]) -> bytearray | None:
    """What reading the best file for `tokens` gives."""
    entry = cache.candidates(Held(tokens))[0]
    fetch = cache.fetch(entry)
    while fetch.pending:
        cache.wait(10)
        cache.poll()
    return fetch.data


def the_file(root: Path) -> Path:
    (path,) = root.glob("*/*.prefix")
    return path


def test_a_prefix_is_found_again_under_its_model_and_adapters(disk: Open) -> None:
    lora = (LoraScale("red", 0.5),)
    store(disk(), Held(TOKENS, n_prompt=40), Held(OTHER, lora))
    again = disk()
    (entry,) = again.candidates(Held([*TOKENS[:80], 63]))
    assert entry.held == Held(TOKENS, n_prompt=40)
    assert fetched(again, TOKENS) == DATA
    assert again.has(Held(OTHER, lora))
    assert not again.has(Held(OTHER)), "other adapters, another prefix"
    assert not disk("fp_2").candidates(Held(TOKENS))
    assert not disk(most_tokens=99).candidates(Held(TOKENS)), "it would fit no slot"


def test_what_is_stored_is_found_at_once(disk: Open) -> None:
    cache = disk()
    cache.store(Held(TOKENS), memoryview(DATA))
    while not cache.has(Held(TOKENS)):
        cache.wait(10)
        cache.poll()
    assert fetched(cache, TOKENS) == DATA


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("at", [0, 9, 40, 200])
def test_a_damaged_header_is_deleted_at_start(disk: Open, tmp_path: Path, at: int) -> None:
    store(disk(), Held(TOKENS))
    flip(the_file(tmp_path), at)
    assert not disk().candidates(Held(TOKENS))
    assert not list(tmp_path.glob("*/*"))


@pytest.mark.parametrize("at", [-1, -512, -1024])
def test_a_damaged_payload_is_deleted_and_not_restored(disk: Open, tmp_path: Path, at: int) -> None:
    store(disk(), Held(TOKENS))
    flip(the_file(tmp_path), at)
    cache = disk()
    assert fetched(cache, TOKENS) is None
    assert not cache.candidates(Held(TOKENS))
    assert not list(tmp_path.glob("*/*"))


@pytest.mark.parametrize("length", [0, 5, 11, 100, 1000])
def test_a_truncated_file_is_deleted(disk: Open, tmp_path: Path, length: int) -> None:
    store(disk(), Held(TOKENS))
    os.truncate(the_file(tmp_path), length)
    assert not disk().candidates(Held(TOKENS))
    assert not list(tmp_path.glob("*/*"))


def test_a_file_of_another_model_in_this_ones_place(disk: Open, tmp_path: Path) -> None:
    store(disk("fp_2"), Held(TOKENS))
    foreign = the_file(tmp_path)
    cache = disk("fp_1")
    foreign.rename(tmp_path / "fp_1" / foreign.name)
    assert not disk("fp_1").candidates(Held(TOKENS))
    assert not list(tmp_path.glob("*/*.prefix"))
    cache.close(10)


def test_a_file_that_was_replaced_or_vanished_since(disk: Open, tmp_path: Path) -> None:
    store(disk(), Held(TOKENS))
    kept = the_file(tmp_path)
    cache = disk()
    store(disk(), Held(OTHER))
    next(path for path in tmp_path.glob("*/*.prefix") if path != kept).replace(kept)
    assert fetched(cache, TOKENS) is None
    store(disk(), Held(TOKENS))
    cache = disk()
    the_file(tmp_path).unlink()
    assert fetched(cache, TOKENS) is None
    assert not cache.candidates(Held(TOKENS))


def test_unfinished_files_are_nobodys_after_a_while(disk: Open, tmp_path: Path) -> None:
    store(disk(), Held(TOKENS))
    old, new = (tmp_path / "fp_1" / name for name in ("old.1.tmp", "new.2.tmp"))
    for path in (old, new):
        path.touch()
    os.utime(old, (1, 1))
    disk().close(10)
    assert (old.exists(), new.exists()) == (False, True)


def test_a_full_disk_is_told_once_and_reading_goes_on(
    disk: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store(disk(), Held(TOKENS))

    def full(*_: object) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(engine.disk_cache, "write", full)
    cache = disk()
    with caplog.at_level(logging.WARNING):
        for first in range(1, 5):
            cache.store(Held([first] * 50), memoryview(DATA))
        assert fetched(cache, TOKENS) == DATA
        cache.close(10)
    assert [record.getMessage() for record in caplog.records] == [
        "the prefix cache is written to disk no more: [Errno 28] No space left on device"
    ]


def test_nothing_is_left_of_a_file_that_did_not_fit(
    disk: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    store(disk(), Held(TOKENS))
    assert not list(tmp_path.glob("*/*"))


def test_the_bound_drops_the_least_recently_used_of_any_model(disk: Open, tmp_path: Path) -> None:
    store(disk("fp_2"), Held(TOKENS))
    size = the_file(tmp_path).stat().st_size
    os.utime(the_file(tmp_path), (time.time() - 100,) * 2)
    budget = 2 * size + len(DATA) // 2
    store(disk(budget=budget), Held(TOKENS), Held(OTHER))
    assert not disk("fp_2").candidates(Held(TOKENS))
    assert disk().has(Held(TOKENS))
    assert disk().has(Held(OTHER))
    store(disk(budget=len(DATA) - 1), Held([9] * 100))
    assert disk().has(Held(TOKENS)), "what never fits drives nothing out"


def test_files_that_others_delete_meanwhile_stop_nothing(
    disk: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Path.glob

    def glob(self: Path, pattern: str) -> list[Path]:
        return [self / "gone" / "gone.tmp", self / "gone" / "gone.prefix", *there(self, pattern)]

    cache = disk()
    monkeypatch.setattr(Path, "glob", glob)
    store(cache, Held(TOKENS))
    monkeypatch.setattr(Path, "glob", there)
    assert disk().has(Held(TOKENS))


def test_nobody_waits_for_a_file_that_can_be_neither_read_nor_deleted(
    disk: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(disk(), Held(TOKENS), Held(OTHER))
    cache = disk()

    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "read-only file system")

    monkeypatch.setattr(Path, "touch", read_only)
    monkeypatch.setattr(Path, "unlink", read_only)
    assert fetched(cache, TOKENS) == DATA, "that its time stays is no damage"
    monkeypatch.setattr(engine.disk_cache, "read", read_only)
    assert fetched(cache, OTHER) is None
    cache.poll()
    assert not cache.has(Held(OTHER))


def test_an_unforeseen_error_ends_neither_the_wait_nor_the_thread(
    disk: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store(disk(), Held(TOKENS))
    cache = disk()

    def no_memory(*_: object) -> bytearray:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(engine.disk_cache, "read", no_memory)
        assert fetched(cache, TOKENS) is None
    assert fetched(cache, TOKENS) == DATA
    assert "a job of the prefix cache failed" in caplog.text


def test_only_the_user_can_look_into_the_directories(disk: Open, tmp_path: Path) -> None:
    root = tmp_path / "new" / "cache"
    store(DiskCache(root, fingerprint="f", budget=1 << 20, most_tokens=1000), Held(OTHER * 2))
    path = the_file(root)
    modes = [each.stat().st_mode & 0o777 for each in (root, path.parent, path)]
    assert modes == [0o700, 0o700, 0o600]


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelLoadError, match="prefix_cache_dir"):
        DiskCache(tmp_path / "file", fingerprint="f", budget=1, most_tokens=9)


# Beneath the cache


def session(disk: DiskCache, prompts: list[list[int]], can_trim: bool) -> list[tuple[str, int]]:
    """A server's life: texts and cached tokens of `prompts`, one after the other."""
    runner = FakeRunner(slots=2)
    runner.can_trim = can_trim
    kv = KVCache(2, can_trim=can_trim, budget=400, bytes_per_token=1, disk=disk)
    harness = Harness(make_core(runner, kv_cache=kv))
    results = []
    for index, prompt in enumerate(prompts):
        request = Request(id=f"{index}", prompt=prompt, max_tokens=5, sampling=GREEDY)
        answer = harness.add(request)
        harness.run()
        assert isinstance(answer.end, RequestDone)
        results.append((answer.texts[0], answer.end.usage.cached_tokens))
    harness.core.close()
    return results


@pytest.mark.parametrize("can_trim", [True, False])
def test_a_restart_keeps_what_slots_and_memory_held(disk: Open, can_trim: bool) -> None:
    # A prompt of 100 tokens and 4 of its answer, whose fifth was never computed.
    prompts = [[first] * 50 + TOKENS[:50] for first in range(1, 6)]
    session(disk(), prompts, can_trim)
    following = [
        [*prompt, *(ord(c) - 64 for c in continuation(prompt, 5)), 9] for prompt in prompts
    ]
    again = session(disk(), following, can_trim)
    assert again == [(continuation(prompt, 5), 104) for prompt in following]


def test_a_damaged_file_costs_time_and_nothing_else(disk: Open, tmp_path: Path) -> None:
    session(disk(), [TOKENS], True)
    flip(the_file(tmp_path), -1)
    assert session(disk(), [TOKENS], True) == [(continuation(TOKENS, 5), 0)]


def test_a_failed_step_makes_what_was_read_suspect(disk: Open, tmp_path: Path) -> None:
    session(disk(), [TOKENS], True)
    runner = FakeRunner(slots=2)
    kv = KVCache(2, can_trim=True, budget=400, bytes_per_token=1, disk=disk())
    harness = Harness(make_core(runner, kv_cache=kv))
    harness.add(Request(id="a", prompt=TOKENS, max_tokens=50, sampling=GREEDY))
    while not any(runner.memory.values()):
        harness.step()
    runner.fail_next = True
    with pytest.raises(RuntimeError):
        harness.step()
    harness.core.fail_all()
    harness.core.close()
    assert not list(tmp_path.glob("*/*.prefix"))


def test_the_real_model_after_a_restart(smollm2: Path, tmp_path: Path) -> None:
    settings = ModelSettings(
        path=smollm2,
        context=512,
        parallel=2,
        threads=1,
        flash_attention=False,
        prefix_cache_dir=tmp_path,
    )

    async def life() -> tuple[str, int]:
        engine = Engine.load(settings)
        engine.start(asyncio.get_running_loop())
        prompt = engine.tokenizer.encode("The lighthouse keeper wrote in his book: " * 20)
        text, cached = "", -1
        request = Request(id="x", prompt=prompt, max_tokens=12, sampling=GREEDY)
        async for event in engine.generate(request):
            if isinstance(event, TokenOutput):
                text += event.text
            elif isinstance(event, RequestDone):
                cached = event.usage.cached_tokens
        await asyncio.to_thread(engine.close)
        return text, cached

    first, cached = asyncio.run(life())
    assert cached == 0
    again, cached = asyncio.run(life())
    assert again == first
    assert cached > 128
