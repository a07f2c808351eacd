"""Thoughts of a model whose template knows them: apart from the content, or left in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.request import Request, TokenOutput
from engine.settings import ModelSettings
from server.config import ModelConfig, ServerConfig
from tests.server.asgi import Client
from tests.server.fakes import INFO, FakeEngine, answer, done

pytestmark = pytest.mark.anyio

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)
ANSWER = "<think>\nhm, yes\n</think>\n\nHello"


@pytest.fixture
def config() -> ServerConfig:
    settings = ModelSettings(path=Path("fake.gguf"))
    model = ModelConfig(name="fake-model", settings=settings, chat_template=TEMPLATE)
    return ServerConfig(models=(model,))


@pytest.fixture
async def engine() -> FakeEngine:
    return FakeEngine(answer(ANSWER), info=msgspec.structs.replace(INFO, context=4096))


async def message(client: Client, **fields: Any) -> Any:
    return (await client.chat(**fields)).json()["choices"][0]["message"]


async def test_thoughts_are_apart(client: Client) -> None:
    body = (await client.chat()).json()
    answered = body["choices"][0]["message"]
    assert answered["content"] == "Hello"
    assert answered["reasoning_content"] == answered["reasoning"] == "hm, yes"
    details = body["usage"]["completion_tokens_details"]
    assert details["reasoning_tokens"] == len(ANSWER) - len("Hello")


async def test_thoughts_stay_where_they_are_wanted(client: Client) -> None:
    answered = await message(client, separate_reasoning=False)
    assert answered["content"] == ANSWER
    assert "reasoning_content" not in answered


async def test_thoughts_in_the_stream(client: Client) -> None:
    response = await client.chat(stream=True, n=2, stream_options={"include_usage": True})
    *chunks, last, _ = response.events()
    for index in range(2):
        deltas = [c["choices"][0]["delta"] for c in chunks if c["choices"][0]["index"] == index]
        thought = "".join(delta.get("reasoning_content", "") for delta in deltas)
        assert thought == "".join(delta.get("reasoning", "") for delta in deltas) == "hm, yes"
        assert "".join(delta.get("content", "") for delta in deltas) == "Hello"
    assert last["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0


async def test_no_token_loses_its_logprob(client: Client) -> None:
    *chunks, _ = (await client.chat(stream=True, logprobs=True)).events()
    tokens = [c["choices"][0]["logprobs"] for c in chunks if c["choices"][0]["logprobs"]]
    assert "".join(item["token"] for token in tokens for item in token["content"]) == ANSWER


async def test_effort_none_turns_thinking_off(client: Client, engine: FakeEngine) -> None:
    engine.script = answer("Hello")
    answered = await message(client, reasoning_effort="none")
    prompt = engine.tokenizer.decode(engine.requests[0].prompt)
    assert prompt.endswith("<think>\n\n</think>\n\n")
    assert answered["content"] == "Hello"
    assert "reasoning_content" not in answered


async def test_a_thought_that_was_cut_off(client: Client, engine: FakeEngine) -> None:
    engine.script = answer("<think>\nhm")
    answered = await message(client)
    assert answered["content"] == ""
    assert answered["reasoning_content"] == "hm"


async def test_a_thought_that_is_sent_back_reaches_the_prompt(
    client: Client, engine: FakeEngine
) -> None:
    for name in ("reasoning_content", "reasoning", "thought"):
        history = [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello", name: "they greet"},
            {"role": "user", "content": "Bye"},
        ]
        await client.chat(messages=history)
        assert "they greet" in engine.tokenizer.decode(engine.requests[-1].prompt)


async def test_text_that_is_held_back_comes_in_the_end(client: Client, engine: FakeEngine) -> None:
    def script(request: Request) -> list[Any]:
        end = TokenOutput(index=0, text="i", n_tokens=1, finish_reason="length")  # type: ignore[arg-type]
        return [TokenOutput(index=0, text="<th", n_tokens=2), end, done()]

    engine.script = script
    assert (await message(client))["content"] == "<thi"
    *chunks, _ = (await client.chat(stream=True)).events()
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == "<thi"
