"""A template that opens a thought: what reaches it, and where the thought goes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.e2e.chat import ask
from tests.e2e.server_process import ServerProcess


@pytest.fixture
def client(thinker: ServerProcess) -> Iterator[OpenAI]:
    with OpenAI(base_url=thinker.base_url, api_key="none", max_retries=0) as openai:
        yield openai


def parts(client: OpenAI, **fields: Any) -> tuple[str | None, str | None]:
    """Content and thought of an answer."""
    message = ask(client, **fields).choices[0].message
    assert message.model_extra is not None
    thought = message.model_extra.get("reasoning_content")
    assert message.model_extra.get("reasoning") == thought
    return message.content, thought


def test_thought_is_separate(client: OpenAI) -> None:
    content, thought = parts(client)
    assert content == ""
    assert thought


def test_separate_reasoning_false_leaves_it_in_the_content(client: OpenAI) -> None:
    _, thought = parts(client)
    content, none = parts(client, separate_reasoning=False)
    assert none is None
    assert content is not None
    assert thought is not None
    assert thought.strip() == content.strip()


@pytest.mark.parametrize(
    "off",
    [
        {"enable_thinking": False},
        {"reasoning_effort": "none"},
        {"chat_template_kwargs": {"enable_thinking": False}},
    ],
)
def test_thinking_can_be_turned_off(client: OpenAI, off: dict[str, Any]) -> None:
    content, thought = parts(client, **off)
    assert content
    assert thought is None


def test_reasoning_tokens_are_counted(client: OpenAI) -> None:
    usage = ask(client).usage
    assert usage is not None
    assert usage.completion_tokens_details is not None
    assert usage.completion_tokens_details.reasoning_tokens == usage.completion_tokens
    usage = ask(client, reasoning_effort="none").usage
    assert usage is not None
    assert usage.completion_tokens_details is not None
    assert usage.completion_tokens_details.reasoning_tokens == 0


def test_a_budget_closes_the_thought(client: OpenAI) -> None:
    answer = ask(client, reasoning_budget=5, max_tokens=30, ignore_eos=True)
    message, usage = answer.choices[0].message, answer.usage
    assert message.content
    assert message.model_extra["reasoning_content"]
    assert 5 <= usage.completion_tokens_details.reasoning_tokens <= 12
    content, thought = parts(client, reasoning_budget=0, max_tokens=10)
    assert content
    assert thought is None


def test_a_schema_holds_from_where_the_thought_closes(client: OpenAI) -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    schema["additionalProperties"] = False
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    content, thought = parts(client, response_format=form, reasoning_budget=8, max_tokens=60)
    assert thought
    assert content in ('{"ok": true}', '{"ok": false}')


def test_thought_in_the_stream(client: OpenAI) -> None:
    chunks = list(ask_stream(client))
    deltas = [chunk.choices[0].delta for chunk in chunks]
    _, thought = parts(client)
    assert "".join((d.model_extra or {}).get("reasoning_content", "") for d in deltas) == thought
    assert not any(delta.content for delta in deltas)


def ask_stream(client: OpenAI) -> Any:
    return ask(client, stream=True)


def test_variables_reach_the_template(thinker: ServerProcess) -> None:
    body = {
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello", "reasoning_content": "they greet"},
            {"role": "user", "content": "Bye"},
        ],
        "verbosity": "low",
        "chat_template_kwargs": {"persona": "pirate"},
    }
    prompt = httpx.post(f"{thinker.root_url}/apply-template", json=body).json()["prompt"]
    assert "[verbosity low][persona pirate]<|im_start|>assistant\n<think>\n" in prompt
    assert "they greet" in prompt
