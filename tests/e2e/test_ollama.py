"""The official ollama client on the real server: chats, streams, embeds, lists and raises."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest
from ollama import AsyncClient, Client, ResponseError

from tests.e2e.chat import MODEL
from tests.e2e.server_process import ServerProcess

pytestmark = pytest.mark.anyio

QUESTION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Name three colours."},
]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"type": "integer", "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}


def forecast(city: str, days: int = 1) -> str:
    """Forecast the weather.

    Args:
        city: where
        days: how many
    """
    return f"{city} {days}"


@pytest.fixture
def ollama(server: ServerProcess) -> Iterator[Client]:
    with Client(host=server.root_url) as client:
        yield client


def options(**more: Any) -> dict[str, Any]:
    return {"temperature": 0, "num_predict": 8} | more


def ask(client: Client, **fields: Any) -> Any:
    return client.chat(**({"model": MODEL, "messages": QUESTION, "options": options()} | fields))


def test_chat(ollama: Client, http: httpx.Client) -> None:
    answer = ask(ollama)
    assert answer.message.role == "assistant"
    assert answer.message.content
    assert (answer.done, answer.done_reason, answer.eval_count) == (True, "length", 8)
    assert answer.prompt_eval_count > 10
    durations = answer.load_duration + answer.prompt_eval_duration + answer.eval_duration
    assert 0 < durations <= answer.total_duration < 60e9
    openai = {"model": MODEL, "messages": QUESTION, "max_tokens": 8, "temperature": 0}
    same = http.post("/v1/chat/completions", json=openai).json()
    assert same["choices"][0]["message"]["content"] == answer.message.content
    assert same["usage"]["prompt_tokens"] == answer.prompt_eval_count


def test_a_stream_adds_up_to_the_answer(ollama: Client) -> None:
    parts = list(ask(ollama, stream=True))
    assert "".join(part.message.content for part in parts) == ask(ollama).message.content
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert len(parts) > 4
    assert parts[-1].eval_count == 8


def test_generate(ollama: Client) -> None:
    whole = ollama.generate(MODEL, "Once upon a time", raw=True, options=options())
    assert (whole.done_reason, whole.eval_count) == ("length", 8)
    parts = ollama.generate(MODEL, "Once upon a time", raw=True, options=options(), stream=True)
    assert "".join(part.response for part in parts) == whole.response
    framed = ollama.generate(MODEL, "Name three colours.", system="Be brief.", options=options())
    assert framed.response == ask(ollama).message.content
    assert framed.prompt_eval_count > whole.prompt_eval_count


def test_a_format_is_enforced(ollama: Client) -> None:
    hot = options(temperature=1.5, num_predict=200)
    for seed in range(2):
        answer = ask(ollama, format=SCHEMA, options=hot | {"seed": seed})
        jsonschema.validate(json.loads(answer.message.content), SCHEMA)
    raw = ollama.generate(MODEL, "A trip:", raw=True, format=SCHEMA, options=hot)
    jsonschema.validate(json.loads(raw.response), SCHEMA)
    assert ask(ollama, format="json").message.content.startswith("{")


def test_options_have_their_effect(ollama: Client) -> None:
    def said(**more: Any) -> str:
        return str(ask(ollama, options=options(**more)).message.content)

    seeds = [said(temperature=2, top_p=1, top_k=0, seed=seed) for seed in (3, 3, 4)]
    assert seeds[0] == seeds[1] != seeds[2]
    assert said(temperature=2, top_k=1) == said()
    word = said(num_predict=20).split()[1]
    assert word not in said(num_predict=20, stop=[word])


def test_tools_and_their_results(ollama: Client) -> None:
    call = {"function": {"name": "forecast", "arguments": {"city": "Rome", "days": 2}}}
    history = [
        *QUESTION,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_name": "forecast", "content": "sunny"},
    ]
    with_tools = ask(ollama, messages=history, tools=[forecast], options=options(num_predict=1))
    assert with_tools.prompt_eval_count > ask(ollama).prompt_eval_count + 40
    for called in with_tools.message.tool_calls or ():
        assert isinstance(called.function.arguments, dict)


def test_logprobs(ollama: Client) -> None:
    answer = ask(ollama, logprobs=True, top_logprobs=2)
    assert "".join(each.token for each in answer.logprobs) == answer.message.content
    assert all(each.top_logprobs[0].logprob == each.logprob for each in answer.logprobs)


def test_lists(ollama: Client, server: ServerProcess) -> None:
    [listed] = ollama.list().models
    assert listed.model == "smollm2-135m-instruct:latest"
    assert listed.size > 90_000_000
    assert (listed.details.family, listed.details.quantization_level) == ("llama", "Q4_1")
    [running] = ollama.ps().models
    assert (running.model, running.context_length) == (listed.model, 1024)
    assert running.size > listed.size and running.digest == listed.digest
    shown = ollama.show(listed.model)
    assert shown.capabilities == ["completion", "tools"]
    assert shown.modelinfo["llama.context_length"] == 8192
    assert "im_start" in shown.template
    assert ask(ollama, model=listed.model).model == listed.model


def test_loading_without_a_prompt(ollama: Client) -> None:
    assert ollama.generate(MODEL).done_reason == "load"
    assert ask(ollama, messages=[], keep_alive="10m").done_reason == "load"


def test_errors(ollama: Client) -> None:
    with pytest.raises(ResponseError) as missing:
        ask(ollama, model="nobody")
    assert (missing.value.status_code, "nobody" in missing.value.error) == (404, True)
    with pytest.raises(ResponseError) as long:
        next(iter(ask(ollama, messages=[{"role": "user", "content": "so " * 2000}], stream=True)))
    assert (long.value.status_code, "1024" in long.value.error) == (400, True)
    with pytest.raises(ResponseError, match=r"options\.temperature"):
        ask(ollama, options={"temperature": 9})
    with pytest.raises(ResponseError, match="does not support thinking"):
        ask(ollama, think=True)
    with pytest.raises(ResponseError, match="writes text") as embeds:
        ollama.embed(MODEL, "x")
    assert embeds.value.status_code == 400
    with pytest.raises(ResponseError, match=r"models\.toml") as created:
        ollama.create("new", from_=MODEL)
    assert created.value.status_code == 501
    assert ollama.pull(MODEL).status == "success"


def test_thinking(thinker: ServerProcess) -> None:
    with Client(host=thinker.root_url) as client:
        off = ask(client, think=False)
        assert off.message.content and not off.message.thinking
        parts = list(ask(client, think=True, stream=True))
        assert any(part.message.thinking for part in parts)
        shown = client.show(MODEL)
        assert "thinking" in shown.capabilities


async def test_many_at_once(server: ServerProcess) -> None:
    async def count(client: AsyncClient, number: int) -> str:
        text = ""
        prompt = f"{number}, {number + 1}, {number + 2},"
        parts = await client.generate(MODEL, prompt, raw=True, stream=True, options=options())
        async for part in parts:
            text += part.response
        return text

    async with AsyncClient(host=server.root_url) as client:
        texts = await asyncio.gather(*(count(client, number) for number in (10, 40, 70)))
    assert [str(number + 3) in text for number, text in zip((10, 40, 70), texts, strict=True)] == [
        True
    ] * 3
