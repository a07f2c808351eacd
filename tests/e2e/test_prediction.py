"""Predicted outputs through the official client: the same answer in fewer steps."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.e2e.chat import MODEL, ask, messages, text_of
from tests.e2e.server_process import ServerProcess

COUNT = "1, 2, 3, 4, 5,"
"""What comes next is so sure that rows of one pass, which other kernels compute, say the same."""
LENGTH = 96


def count_on(client: OpenAI, **fields: Any) -> Any:
    """The assistant counts on for 96 tokens."""
    turns = [*messages("Count from 1 to 60."), {"role": "assistant", "content": COUNT}]
    prediction = fields.pop("prediction", None)
    extra: dict[str, Any] = {"continue_final_message": True}
    if prediction is not None:
        extra["prediction"] = {"type": "content", "content": prediction}
    asked = {"model": MODEL, "messages": turns, "max_tokens": LENGTH, "temperature": 0} | fields
    create: Any = client.chat.completions.create
    return create(**asked, extra_body=extra)


@pytest.fixture(scope="module")
def said(server: ServerProcess) -> str:
    """The answer without a prediction."""
    with OpenAI(base_url=server.base_url, api_key="none") as client:
        return text_of(count_on(client))


def counts(completion: Any) -> tuple[int, int]:
    """(accepted, rejected)"""
    details = completion.usage.completion_tokens_details
    return details.accepted_prediction_tokens, details.rejected_prediction_tokens


def doing(http: httpx.Client) -> dict[str, int]:
    """Counters of the engine."""
    models: dict[str, Any] = http.get("/v1/engine").json()["models"]
    [model] = models.values()
    now: dict[str, int] = model["now"]
    return now


def test_a_right_prediction_saves_steps(client: OpenAI, http: httpx.Client, said: str) -> None:
    before = doing(http)
    completion = count_on(client, prediction=said)
    after = doing(http)
    assert text_of(completion) == said
    assert completion.usage.completion_tokens == LENGTH
    accepted, rejected = counts(completion)
    # The prompt was there before, logits and all: the first token costs no step.
    assert after["steps"] - before["steps"] == LENGTH - 1 - accepted < LENGTH / 8
    assert rejected == 0
    assert after["accepted_tokens"] - before["accepted_tokens"] == accepted
    assert after["draft_tokens"] - before["draft_tokens"] == accepted


def test_an_edited_prediction_is_found_again(client: OpenAI, said: str) -> None:
    edited = [{"type": "text", "text": said.replace(" 15,", " fifteen of them,")}]
    completion = count_on(client, prediction=edited)
    assert text_of(completion) == said
    accepted, rejected = counts(completion)
    assert accepted > LENGTH / 2
    assert rejected > 0


def test_a_prediction_of_something_else_changes_nothing(client: OpenAI, said: str) -> None:
    completion = count_on(client, prediction="def main():\n    return 42\n" * 20)
    assert text_of(completion) == said
    assert counts(completion) == (0, 0)


def test_streams_count_the_same(client: OpenAI, said: str) -> None:
    stream = count_on(client, prediction=said, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == said
    assert counts(chunks[-1]) == counts(count_on(client, prediction=said))
    assert len(chunks) < LENGTH / 4, "what came in one step comes in one chunk"


def test_whatever_else_is_asked(client: OpenAI, said: str) -> None:
    fields = {"temperature": 0.3, "seed": 5, "n": 2, "logprobs": True, "frequency_penalty": 0.01}
    completion = count_on(client, prediction=said, **fields)
    for choice in completion.choices:
        assert choice.message.content == said
        assert "".join(each.token for each in choice.logprobs.content) == said
    assert counts(completion)[0] > LENGTH


def test_a_document_held_to_its_schema(client: OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"colours": {"type": "array", "items": {"enum": ["red", "green", "blue"]}}},
        "required": ["colours"],
        "additionalProperties": False,
    }
    format = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    predicted = json.dumps({"colours": ["blue", "red", "green", "red", "blue", *["blue"] * 9]})
    completion = ask(
        client,
        messages=messages("Name colours as JSON."),
        max_tokens=60,
        response_format=format,
        prediction={"type": "content", "content": predicted},
    )
    text = text_of(completion)
    assert text.startswith('{"colours": [')
    if completion.choices[0].finish_reason == "stop":
        assert set(json.loads(text)["colours"]) <= {"red", "green", "blue"}
    assert sum(counts(completion)) > 0


def test_the_next_turn_finds_the_answer_in_the_cache(client: OpenAI, said: str) -> None:
    turns = [*messages("Count from 1 to 60."), {"role": "assistant", "content": COUNT}]
    count_on(client, prediction=said + " And so on and on.")
    turns[-1] = {"role": "assistant", "content": COUNT + said}
    after = count_on(client, messages=turns, max_tokens=24)
    details = after.usage.prompt_tokens_details
    assert details.cached_tokens > LENGTH
    assert text_of(after).startswith(" ") and text_of(after)[1:3].isdigit()
