"""Real servers on the embedded model, and the official client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.e2e.server_process import ServerProcess

KEY = "e2e-key"
THINKING_TEMPLATE = """\
{%- for m in messages %}<|im_start|>{{ m.role }}
{% if m.reasoning_content %}<think>
{{ m.reasoning_content }}
</think>

{% endif %}{{ m.content }}<|im_end|>
{% endfor %}
{%- if verbosity is defined %}[verbosity {{ verbosity }}]{% endif %}
{%- if persona is defined %}[persona {{ persona }}]{% endif %}
{%- if add_generation_prompt %}<|im_start|>assistant
<think>
{% if enable_thinking is defined and not enable_thinking %}
</think>

{% endif %}{% endif %}"""


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Eight slots of 1024 tokens, and a store of its own."""
    store = tmp_path_factory.mktemp("store") / "store.sqlite3"
    flags = ("--parallel", "8", "--context", "1024", "--store", str(store))
    with ServerProcess(flags) as process:
        yield process


@pytest.fixture(scope="session")
def narrow() -> Iterator[ServerProcess]:
    """One slot of 256 tokens, a cap on answers, and a key."""
    flags = "--parallel 1 --context 256 --max-tokens 5"
    with ServerProcess([*flags.split(), "--api-key", KEY]) as process:
        yield process


@pytest.fixture(scope="session")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One slot of 256 tokens, on a template that opens a thought."""
    path: Path = tmp_path_factory.mktemp("template") / "thinker.jinja"
    path.write_text(THINKING_TEMPLATE)
    flags = ["--parallel", "1", "--context", "256", "--chat-template-file", str(path)]
    with ServerProcess(flags) as process:
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
