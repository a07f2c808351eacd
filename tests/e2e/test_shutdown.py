"""SIGTERM: what runs is finished, what comes is refused, and the process ends well."""

from __future__ import annotations

import httpx
import pytest
from openai import OpenAI

from tests.e2e.chat import MODEL, messages
from tests.e2e.server_process import ServerProcess

TOKENS = 40


def test_sigterm_drains() -> None:
    with (
        ServerProcess(["--parallel", "1", "--context", "256"]) as server,
        OpenAI(base_url=server.base_url, api_key="none", max_retries=0) as client,
    ):
        stream = client.chat.completions.create(
            model=MODEL,
            messages=messages("Tell a story."),
            max_tokens=TOKENS,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
        seen = 0
        for chunk in stream:
            if seen == 1:
                server.terminate()
                server.wait_for_line("SIGTERM")
            seen += bool(chunk.choices and chunk.choices[0].delta.content)
        assert chunk.usage is not None
        assert chunk.usage.completion_tokens == TOKENS
        assert server.process.wait(30) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.root_url}/health")
