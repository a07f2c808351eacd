"""Adapters by name on the wire, and prefixes that a restart of the server keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError, OpenAI
from openai.types.chat import ChatCompletion

from tests.e2e.chat import MODEL
from tests.e2e.server_process import ServerProcess
from tests.engine.tiny_models import write_lora

QUESTION = "Tell me about the sea. " * 30


def ask(client: OpenAI, **extra: Any) -> tuple[str, int]:
    """The answer, and how many tokens of the prompt were cached."""
    completion: ChatCompletion = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=8,
        temperature=0,
        extra_body=extra,
    )
    assert completion.usage is not None
    assert completion.usage.prompt_tokens_details is not None
    cached = completion.usage.prompt_tokens_details.cached_tokens
    return completion.choices[0].message.content or "", cached or 0


def test_adapters_by_name_and_a_restart(tmp_path: Path) -> None:
    lora = write_lora(tmp_path / "l.gguf", 1, layers=30, n_in=576, n_out=192, strength=0.3)
    flags = ["--context", "512", "--parallel", "2", "--lora", f"red:{lora}=0"]
    flags += ["--prefix-cache-dir", str(tmp_path / "cache")]
    red = {"lora": [{"name": "red"}]}
    with ServerProcess(flags) as server, OpenAI(base_url=server.base_url, api_key="x") as client:
        plain, cached = ask(client)
        assert cached == 0
        other, cached = ask(client, **red)
        assert cached == 0
        assert other != plain
        with pytest.raises(BadRequestError, match="'green'; there is: red"):
            ask(client, lora=[{"name": "green"}])
        card = client.models.retrieve(MODEL)
        assert card.model_dump()["meta"]["lora"] == [{"name": "red", "scale": 0.0}]
        server.terminate()
        assert server.process.wait(60) == 0
    with ServerProcess(flags) as server, OpenAI(base_url=server.base_url, api_key="x") as client:
        for extra, expected in ((red, other), ({}, plain)):
            again, cached = ask(client, **extra)
            assert again == expected
            assert cached > 128
