"""What the `ollama` command line sends, in its order, and what it reads of the answers.

A replay: its client is written in Go, whose structs decide which fields are in a body, and a
missing field in an answer is a crash where it is asserted on (`digest[:12]`, `model_info`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from tests.e2e.server_process import ServerProcess

AGENT = "ollama/0.13.0 (amd64 linux) Go/go1.24.1"
MODEL = "smollm2-135m-instruct"
TAGGED = f"{MODEL}:latest"


class CommandLine:
    """One `ollama` command after another; each begins with a look whether the server is there."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def heartbeat(self) -> None:
        answer = self._send("HEAD", "/", accept="application/json")
        assert answer.status_code == 200 and not answer.content

    def do(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """A whole answer; raises RuntimeError with `error`, as all the command prints of it."""
        answer = self._send(method, path, body, accept="application/json")
        if answer.status_code >= 400:
            raise RuntimeError(answer.status_code, answer.json()["error"])
        return answer.json() if answer.content else None

    def stream(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        """NDJSON: the first line with `error` ends it."""
        answer = self._send("POST", path, body, accept="application/x-ndjson")
        lines = [json.loads(line) for line in answer.text.splitlines()]
        for line in lines:
            if error := line.get("error"):
                raise RuntimeError(answer.status_code, error)
        assert answer.status_code < 400 and lines
        return lines

    def _send(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, accept: str
    ) -> httpx.Response:
        headers = {"User-Agent": AGENT, "Accept": accept, "Content-Type": "application/json"}
        content = None if body is None else json.dumps(body, separators=(",", ":"))
        return self._http.request(method, path, headers=headers, content=content)


@pytest.fixture
def cli(http: httpx.Client) -> CommandLine:
    command_line = CommandLine(http)
    command_line.heartbeat()
    return command_line


@pytest.fixture
def thinking(thinker: ServerProcess) -> Iterator[CommandLine]:
    """On a server that is used by few tests, so that its model may leave for a moment."""
    with httpx.Client(base_url=thinker.root_url, timeout=120) as http:
        yield CommandLine(http)


def show_request(model: str = MODEL, *, older: bool = False) -> dict[str, Any]:
    """Versions of before 2025 put the model into `name`."""
    named = {"model": "", "name": model} if older else {"model": model, "name": ""}
    return {"system": "", "template": "", "verbose": False, "options": None} | named


def generate_request(prompt: str = "", **fields: Any) -> dict[str, Any]:
    """`context` and `stream` are left out where they are empty, these strings are not."""
    empty: dict[str, Any] = {"suffix": "", "system": "", "template": "", "options": None}
    return {"model": MODEL, "prompt": prompt} | empty | fields


def chat_request(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    options = {"num_predict": 8, "temperature": 0}
    return {"model": MODEL, "messages": list(messages), "options": options} | fields


def moment(text: str) -> datetime:
    """RFC 3339, as Go's time.Time reads it."""
    return datetime.fromisoformat(text)


def test_version(cli: CommandLine) -> None:
    major, minor, _ = cli.do("GET", "/api/version")["version"].split(".")
    assert (int(major), int(minor)) >= (0, 13)


def test_list(cli: CommandLine) -> None:
    [model] = cli.do("GET", "/api/tags")["models"]
    assert model["name"] == TAGGED
    assert len(model["digest"][:12]) == 12 and int(model["digest"], 16)
    assert isinstance(model["size"], int) and model["size"] > 90_000_000
    assert moment(model["modified_at"]) < datetime.now(UTC)


def test_ps(cli: CommandLine) -> None:
    [model] = cli.do("GET", "/api/ps")["models"]
    assert (model["name"], model["context_length"]) == (TAGGED, 1024)
    assert len(model["digest"][:12]) == 12
    assert model["size"] > 0 and model["size_vram"] == 0
    assert moment(model["expires_at"]) > datetime.now(UTC)


@pytest.mark.parametrize("older", [False, True])
def test_show(cli: CommandLine, older: bool) -> None:
    shown = cli.do("POST", "/api/show", show_request(older=older))
    info, architecture = shown["model_info"], shown["model_info"]["general.architecture"]
    assert architecture == shown["details"]["family"] == "llama"
    assert info["general.parameter_count"] == 134_515_008
    assert info[f"{architecture}.context_length"] == 8192
    assert info[f"{architecture}.embedding_length"] == 576
    assert shown["details"]["quantization_level"] == "Q4_1"
    assert {"completion", "tools"} <= set(shown["capabilities"])
    assert all(len(line.split(maxsplit=1)) == 2 for line in shown["parameters"].splitlines())
    assert "im_start" in shown["template"] and shown["modelfile"].startswith("FROM ")
    assert not shown.get("projector_info") and not shown.get("remote_host")


def test_run_with_a_prompt(cli: CommandLine) -> None:
    shown = cli.do("POST", "/api/show", show_request())
    assert "thinking" not in shown["capabilities"]
    body = generate_request("Name a colour.", options={"num_predict": 8, "temperature": 0})
    lines = cli.stream("/api/generate", body)
    assert "".join(line["response"] for line in lines)
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    last = lines[-1]
    assert (last["done_reason"], last["eval_count"], last["model"]) == ("length", 8, MODEL)
    timed = ("total", "load", "prompt_eval", "eval")
    assert all(isinstance(last[f"{name}_duration"], int) for name in timed)
    assert last["prompt_eval_count"] > 4
    assert moment(last["created_at"]) <= datetime.now(UTC)


def test_run_with_a_format(cli: CommandLine) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}
    for format in ("json", schema | {"additionalProperties": False}):
        body = generate_request("Invent.", format=format, options={"num_predict": 64})
        last = "".join(line["response"] for line in cli.stream("/api/generate", body))
        assert last.lstrip().startswith("{")
    assert json.loads(last)["a"] in (1, 2)


def test_run_without_a_prompt_is_a_chat(cli: CommandLine) -> None:
    cli.do("POST", "/api/show", show_request())
    [loaded] = cli.stream("/api/generate", generate_request())
    assert (loaded["done"], loaded["done_reason"], loaded["response"]) == (True, "load", "")
    first = {"role": "user", "content": "Name a colour."}
    lines = cli.stream("/api/chat", chat_request(first))
    said = "".join(line["message"]["content"] for line in lines)
    assert said and {line["message"]["role"] for line in lines} == {"assistant"}
    history = (first, {"role": "assistant", "content": said}, {"role": "user", "content": "More."})
    again = cli.stream("/api/chat", chat_request(*history, keep_alive="5m0s"))
    assert again[-1]["prompt_eval_count"] > lines[-1]["prompt_eval_count"]


def test_thinking_is_asked_for_where_show_says_so(thinking: CommandLine) -> None:
    assert "thinking" in thinking.do("POST", "/api/show", show_request())["capabilities"]
    thinking.stream("/api/generate", generate_request(think=True))
    asked = chat_request({"role": "user", "content": "Why?"}, think=True)
    lines = thinking.stream("/api/chat", asked)
    assert "".join(line["message"].get("thinking", "") for line in lines)


def test_an_unknown_model_is_pulled_which_says_where_models_come_from(cli: CommandLine) -> None:
    with pytest.raises(RuntimeError) as missing:
        cli.do("POST", "/api/show", show_request("nobody"))
    assert missing.value.args[0] == 404
    body = {"model": "nobody", "username": "", "password": "", "name": ""}
    with pytest.raises(RuntimeError, match=r"models\.toml"):
        cli.stream("/api/pull", body)
    assert cli.stream("/api/pull", body | {"model": MODEL})[-1]["status"] == "success"


def test_models_are_not_managed_here(cli: CommandLine) -> None:
    for method, path, body in (
        ("POST", "/api/copy", {"source": MODEL, "destination": "other"}),
        ("DELETE", "/api/delete", {"model": MODEL, "name": ""}),
    ):
        with pytest.raises(RuntimeError, match=r"models\.toml") as refused:
            cli.do(method, path, body)
        assert refused.value.args[0] == 501
    with pytest.raises(RuntimeError, match=r"models\.toml"):
        cli.stream("/api/create", {"model": "new", "from": MODEL})


def test_stop_unloads_and_the_next_request_keeps_the_model_again(thinking: CommandLine) -> None:
    cli = thinking
    before = cli.do("GET", "/api/ps")["models"][0]["expires_at"]
    cli.do("POST", "/api/show", show_request())
    [stopped] = cli.stream("/api/generate", generate_request(keep_alive="0s"))
    assert stopped["done_reason"] == "unload"
    shown = cli.do("POST", "/api/show", show_request())
    assert shown["model_info"]["general.parameter_count"] == 134_515_008
    cli.stream("/api/generate", generate_request("Hi", options={"num_predict": 1}))
    [running] = cli.do("GET", "/api/ps")["models"]
    assert moment(running["expires_at"]).year == moment(before).year > datetime.now(UTC).year + 50
