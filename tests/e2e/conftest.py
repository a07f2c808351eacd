"""Real servers on the embedded model, and the official client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.e2e.server_process import ServerProcess

KEY = "e2e-key"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    """Eight slots of 1024 tokens."""
    flags = ("--parallel", "8", "--context", "1024")
    with ServerProcess(flags) as process:
        yield process


@pytest.fixture(scope="session")
def narrow() -> Iterator[ServerProcess]:
    """One slot of 256 tokens, a cap on answers, and a key."""
    flags = "--parallel 1 --context 256 --max-tokens 5"
    with ServerProcess([*flags.split(), "--api-key", KEY]) as process:
        yield process


@pytest.fixture
def client(server: ServerProcess) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.base_url, api_key="none", max_retries=0) as openai:
        yield openai


@pytest.fixture
def narrow_client(narrow: ServerProcess) -> Iterator[OpenAI]:
    with OpenAI(base_url=narrow.base_url, api_key=KEY, max_retries=0) as openai:
        yield openai


@pytest.fixture
async def async_client(server: ServerProcess) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=server.base_url, api_key="none", max_retries=0) as openai:
        yield openai


@pytest.fixture
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.root_url, timeout=120) as plain:
        yield plain
