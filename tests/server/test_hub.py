"""Model files from a hub, which is a server of this process on a loopback port."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from engine.errors import ModelFileNotFound
from server.hub import HubSource, choose, is_model, parts_of

ROOT = Path(__file__).parents[2]
COMMIT = "0" * 40
FILES = {
    "README.md": b"# tiny",
    "tiny-Q4_K_M.gguf": b"GGUF" + b"4" * 100_000,
    "tiny-Q8_0.gguf": b"GGUF" + b"8" * 200_000,
    "parts/tiny-F16-00001-of-00002.gguf": b"GGUF first",
    "parts/tiny-F16-00002-of-00002.gguf": b"GGUF second",
}


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a download asks for."""

    asked: ClassVar[list[str]]
    tokens: ClassVar[list[str | None]]
    url: ClassVar[str]

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        self.asked.append(f"{self.command} {self.path}")
        self.tokens.append(self.headers.get("authorization"))
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/user/tiny"):
            listing = [
                {"type": "file", "path": name, "size": len(FILES[name]), "oid": "0"}
                for name in FILES
            ]
            about = {
                "id": "user/tiny",
                "sha": COMMIT,
                "siblings": [{"rfilename": name} for name in FILES],
            }
            self._send(json.dumps(listing if "/tree/" in path else about).encode(), with_body)
        elif path.startswith("/user/tiny/resolve/"):
            self._send(FILES[path.split("/", 5)[5]], with_body)
        else:
            self.send_response(404)
            self.send_header("x-error-code", "RepoNotFound")
            self.send_header("content-length", "0")
            self.end_headers()

    def _send(self, data: bytes, with_body: bool) -> None:
        self.send_response(200)
        self.send_header("etag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("x-repo-commit", COMMIT)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if with_body:
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


@pytest.fixture
def hub() -> Iterator[type[Hub]]:
    class Recording(Hub):
        asked: ClassVar[list[str]] = []
        tokens: ClassVar[list[str | None]] = []
        url: ClassVar[str] = ""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Recording)
    Recording.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Recording
    server.shutdown()
    thread.join()
    server.server_close()


FETCH = """
import json, sys
from server.hub import HubSource, fetch
from engine.errors import ModelLoadError
steps = []
try:
    for text in sys.argv[1:]:
        path = str(fetch(HubSource.parse(text), lambda step, done: steps.append((step, done))))
    print(json.dumps({"path": path, "steps": steps}))
except ModelLoadError as error:
    print(json.dumps({"error": type(error).__name__, "message": str(error)}))
"""


@pytest.fixture
def fetch(hub, tmp_path):
    """In a process of its own: huggingface_hub reads its environment when it is imported."""

    def run(*sources: str, endpoint: str = "", **environ: str) -> dict:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        settings = {"HF_ENDPOINT": endpoint or hub.url, "HF_HOME": str(tmp_path), "NO_PROXY": "*"}
        output = subprocess.run(
            [sys.executable, "-c", FETCH, *sources],
            cwd=ROOT,
            env=clean | settings | environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        return json.loads(output)

    return run


def test_download_with_progress_and_then_from_the_cache(hub, fetch):
    found = fetch("user/tiny:q8_0")
    assert Path(found["path"]).read_bytes() == FILES["tiny-Q8_0.gguf"]
    step, fraction = found["steps"][-1]
    assert (step, fraction) == ("downloading 0 MB: 100 %", 1.0)
    assert hub.tokens == [None] * len(hub.tokens)
    hub.asked.clear()
    assert fetch("user/tiny:Q8_0") == {"path": found["path"], "steps": []}
    assert hub.asked == []
    assert Path(fetch("user/tiny:Q4_K_M", HF_TOKEN="hf_secret")["path"]).name == "tiny-Q4_K_M.gguf"
    assert set(hub.tokens[-2:]) == {"Bearer hf_secret"}


def test_model_in_parts(fetch):
    path = Path(fetch("user/tiny:F16")["path"])
    assert path.read_bytes() == b"GGUF first"
    assert path.with_name("tiny-F16-00002-of-00002.gguf").read_bytes() == b"GGUF second"


@pytest.mark.parametrize(
    ("source", "environ", "kind", "message"),
    [
        (
            "user/tiny:Q2_K",
            {},
            "ModelFileNotFound",
            "user/tiny has no file for user/tiny:Q2_K",
        ),
        (
            "../..",
            {},
            "ModelLoadError",
            "../.. cannot be downloaded: Repo id must",
        ),
        (
            "user/none",
            {},
            "ModelFileNotFound",
            "the hub has no repository user/none, or it",
        ),
        (
            "user/tiny",
            {"HF_ENDPOINT": "http://127.0.0.1:9"},
            "ModelLoadError",
            "user/tiny cannot",
        ),
        (
            "user/tiny",
            {"HF_HUB_OFFLINE": "1"},
            "ModelLoadError",
            "user/tiny cannot",
        ),
    ],
)
def test_refusals_are_one_line(fetch, source, environ, kind, message):
    found = fetch(source, **environ)
    assert found["error"] == kind
    assert found["message"].startswith(message)
    assert "\n" not in found["message"]


NAMES = [
    "m-Q4_K_M.gguf",
    "m-Q4_K_S.gguf",
    "m-IQ4_XS.gguf",
    "m.Q8_0.gguf",
    "mmproj-m-F16.gguf",
    "big/m-BF16-00001-of-00002.gguf",
    "big/m-BF16-00002-of-00002.gguf",
    "config.json",
]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (HubSource("u/r"), "m-Q4_K_M.gguf"),
        (HubSource("u/r", "q4_k_s"), "m-Q4_K_S.gguf"),
        (HubSource("u/r", "Q8_0"), "m.Q8_0.gguf"),
        (HubSource("u/r", "BF16"), "big/m-BF16-00001-of-00002.gguf"),
        (HubSource("u/r", None, "m-IQ4_XS.gguf"), "m-IQ4_XS.gguf"),
    ],
)
def test_choice_of_the_file(wanted, expected):
    assert choose(wanted, NAMES) == expected


@pytest.mark.parametrize(
    ("wanted", "names", "message"),
    [
        (HubSource("u/r", "Q4_XS"), NAMES, "no file for u/r:Q4_XS; there is: big/"),
        (HubSource("u/r", "Q4_K"), NAMES, "no file"),
        (HubSource("u/r", "F16"), NAMES, "no file"),
        (HubSource("u/r", "Q8_0"), ["a-Q8_0.gguf", "b-Q8_0.gguf"], "several files"),
        (HubSource("u/r"), ["a-Q2_K.gguf", "a-Q3_K.gguf"], "several files, name one of: a-Q2"),
        (HubSource("u/r"), ["model.safetensors"], "no GGUF file at all"),
    ],
)
def test_no_choice(wanted, names, message):
    with pytest.raises(ModelFileNotFound, match=message):
        choose(wanted, names)


def test_parts():
    assert [name for name in NAMES if not is_model(name)] == [NAMES[4], NAMES[6], NAMES[7]]
    assert parts_of(NAMES[5]) == NAMES[5:7]


@pytest.mark.parametrize("text", ["", "repo", "a/b/c", "a/", "a b/c"])
def test_names_of_repositories(text):
    with pytest.raises(ValueError, match="expected user/repo"):
        HubSource.parse(text)
