"""Malformed requests on every route: typed refusals, no crash, no hang, nothing lost.

INGLE_FUZZ=20000 runs the long form; INGLE_FUZZ_FROM=700 begins with request 700. A request for
which the server takes more processor time than MAX_CPU, or that brings no byte for HANG, hangs.
"""

from __future__ import annotations

import itertools
import os
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from server.app import create_app
from server.config import ServerConfig
from server.models import Models
from tests.e2e import noise_model
from tests.e2e.footprint import Footprint
from tests.e2e.server_process import ServerProcess
from tests.fuzz.requests import READS, SEEDS, Bad, bad_requests

REQUESTS = int(os.environ.get("INGLE_FUZZ", "400"))
FROM = int(os.environ.get("INGLE_FUZZ_FROM", "0"))
WORKERS = 4
HANG = 300
"""Seconds."""
MAX_CPU = 60
"""Seconds, of all that run at the same time."""
MAX_GROWTH = 150
"""MiB."""
POOL = 8
"""Threads that asyncio may still start, and files that may be closing."""
GOOD = {"messages": [{"role": "user", "content": "Name a fruit."}], "max_tokens": 8}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("fuzz")
    model = noise_model.write(folder / "noise.gguf")
    flags = ("--parallel", "4", "--context", "512", "--log-level", "warning")
    files = ("--model", str(model), "--store", str(folder / "store.sqlite3"))
    with ServerProcess((*flags, *files)) as process:
        yield process


def test_every_route_is_fuzzed(tmp_path: Path) -> None:
    config = ServerConfig(models=(), store=tmp_path / "store.sqlite3")
    app = create_app(config, Models((), lambda *_: pytest.fail("nothing is loaded")))
    posts, others = set(), set()
    for route in app.routes:
        methods = getattr(route, "methods", None) or ()
        (posts if "POST" in methods else others).add(route.path)  # type: ignore[attr-defined]
    known = {path.replace("/none", "/{id}") for path in SEEDS}
    assert posts - with_short_forms(known) - NO_BODY == set()
    assert others - posts - with_short_forms(set(READS)) == set()


def with_short_forms(paths: set[str]) -> set[str]:
    return paths | {path.removeprefix("/v1") for path in paths}


NO_BODY = {
    *("/v1/models/reload", "/models/reload"),
    *("/v1/responses/{id}/cancel", "/responses/{id}/cancel"),
    # Whatever comes is a 501.
    *("/api/push", "/api/blobs/{digest}"),
    # Another name of a route that is fuzzed.
    *("/v1/reranking", "/reranking"),
}


def test_malformed_requests_are_refused_and_nothing_else_happens(server: ServerProcess) -> None:
    before = answer(server)
    warm_up(server)
    held = Footprint.of(server.process.pid)
    requests = itertools.islice(bad_requests(random.Random(7)), REQUESTS)
    numbered = list(enumerate(requests))[FROM:]
    with ThreadPoolExecutor(WORKERS) as pool:
        parts = [numbered[start::WORKERS] for start in range(WORKERS)]
        statuses = sum(pool.map(lambda part: send(server, part), parts), Counter())
    assert statuses.total() == REQUESTS - FROM
    assert statuses[400] > statuses.total() / 4, statuses
    health = httpx.get(server.root_url + "/health").json()
    assert "restarts" not in health
    for model in health["models"].values():
        assert (model["running"], model["waiting"]) == (0, 0)
    assert answer(server) == before
    nothing_leaked(held, Footprint.of(server.process.pid))


def nothing_leaked(before: Footprint, after: Footprint) -> None:
    assert after.mib < before.mib + MAX_GROWTH, (before, after)
    assert after.threads <= before.threads + POOL, (before, after)
    assert after.files <= before.files + POOL, (before, after)


def warm_up(server: ServerProcess) -> None:
    """Every route once, so that what is made on first use is there."""
    with httpx.Client(base_url=server.root_url, timeout=HANG) as client:
        for path, bodies in SEEDS.items():
            for body in bodies:
                assert client.post(path, json=body).status_code != 500


def answer(server: ServerProcess) -> object:
    body = GOOD | {"temperature": 0}
    response = httpx.post(server.base_url + "/chat/completions", json=body, timeout=HANG)
    return response.raise_for_status().json()["choices"]


def send(server: ServerProcess, requests: list[tuple[int, Bad]]) -> Counter[int]:
    """Counts the statuses; a server error, or a refusal in another shape, fails."""
    statuses: Counter[int] = Counter()
    with httpx.Client(base_url=server.root_url, timeout=HANG) as client:
        for number, request in requests:
            try:
                response = exchange(server, client, request)
                check(request, response)
            except Exception as error:
                error.add_note(f"request {number}: {told(request)}")
                raise
            statuses[response.status_code] += 1
    return statuses


def exchange(server: ServerProcess, client: httpx.Client, request: Bad) -> httpx.Response:
    """The whole answer; an endless one is an error."""
    end = Footprint.of(server.process.pid).cpu + MAX_CPU
    response = client.send(built(client, request), stream=True)
    with closing(response):
        parts = []
        for part in response.iter_raw():
            parts.append(part)
            if Footprint.of(server.process.pid).cpu > end:
                raise TimeoutError(f"still no end after {len(parts)} parts")
    return httpx.Response(response.status_code, content=b"".join(parts))


def built(client: httpx.Client, request: Bad) -> httpx.Request:
    headers = [(name, value.encode("latin-1")) for name, value in request.headers.items()]
    # The bytes of the target as they are: httpx would make it a proper one.
    target = httpx.URL(str(client.base_url)).copy_with(raw_path=request.path.encode("latin-1"))
    return httpx.Request(
        request.method,
        target,
        headers=[*((name.encode(), value) for name, value in headers), (b"host", b"127.0.0.1")],
        content=request.body,
    )


def check(request: Bad, response: httpx.Response) -> None:
    # 501: what Ollama does with models, which a file does here.
    assert response.status_code < 500 or response.status_code == 501, response.text[:500]
    if response.status_code < 400 or request.method == "HEAD":
        return
    error = response.json()["error"]
    message = error if isinstance(error, str) else error["message"]
    assert message
    assert len(message) < 4000


def told(request: Bad) -> str:
    return f"{request.method} {request.path[:200]} {request.headers} {request.body[:2000]!r}"
