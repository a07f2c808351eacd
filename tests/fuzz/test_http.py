"""Malformed requests on every route: typed refusals, no crash, no hang, nothing lost.

INGLE_FUZZ=20000 runs the long form.
"""

from __future__ import annotations

import itertools
import os
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from server.app import create_app
from server.config import ServerConfig
from server.models import Models
from tests.e2e.server_process import ServerProcess
from tests.fuzz.requests import SEEDS, Bad, bad_requests

REQUESTS = int(os.environ.get("INGLE_FUZZ", "400"))
WORKERS = 4
HANG = 60
"""Seconds."""
GOOD = {"messages": [{"role": "user", "content": "Name a fruit."}], "max_tokens": 8}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    store = tmp_path_factory.mktemp("fuzz") / "store.sqlite3"
    flags = ("--parallel", "4", "--context", "512", "--log-level", "warning")
    with ServerProcess((*flags, "--store", str(store))) as process:
        yield process


def test_every_route_that_takes_a_body_is_fuzzed(tmp_path: Path) -> None:
    config = ServerConfig(models=(), store=tmp_path / "store.sqlite3")
    app = create_app(config, Models((), lambda *_: pytest.fail("nothing is loaded")))
    posts = {
        route.path  # type: ignore[attr-defined]
        for route in app.routes
        if "POST" in (getattr(route, "methods", None) or ())
    }
    known = {path.replace("/none", "/{id}") for path in SEEDS}
    known |= {path.removeprefix("/v1") for path in known}
    assert posts - known - NO_BODY == set()


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
    requests = list(itertools.islice(bad_requests(random.Random(7)), REQUESTS))
    with ThreadPoolExecutor(WORKERS) as pool:
        parts = [requests[start::WORKERS] for start in range(WORKERS)]
        statuses = sum(pool.map(lambda part: send(server, part), parts), Counter())
    assert sum(statuses.values()) == REQUESTS
    assert statuses[400] > REQUESTS / 4, statuses
    health = httpx.get(server.root_url + "/health").json()
    assert "restarts" not in health
    for model in health["models"].values():
        assert (model["running"], model["waiting"]) == (0, 0)
    assert answer(server) == before


def answer(server: ServerProcess) -> object:
    body = GOOD | {"temperature": 0}
    response = httpx.post(server.base_url + "/chat/completions", json=body, timeout=HANG)
    return response.raise_for_status().json()["choices"]


def send(server: ServerProcess, requests: list[Bad]) -> Counter[int]:
    """Counts the statuses; a server error, or a refusal in another shape, fails."""
    statuses: Counter[int] = Counter()
    with httpx.Client(base_url=server.root_url, timeout=HANG) as client:
        for request in requests:
            try:
                response = client.send(built(client, request))
            except httpx.TransportError as error:
                pytest.fail(f"{error!r} of {told(request)}")
            statuses[response.status_code] += 1
            check(request, response)
    return statuses


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
    fine = response.status_code < 500 or response.status_code == 501
    assert fine, f"{response.status_code} {response.text[:500]} to {told(request)}"
    if response.status_code < 400 or request.method == "HEAD":
        return
    error = response.json()["error"]
    message = error if isinstance(error, str) else error["message"]
    assert message, told(request)
    assert len(message) < 4000, told(request)


def told(request: Bad) -> str:
    return f"{request.method} {request.path[:200]} {request.headers} {request.body[:2000]!r}"
