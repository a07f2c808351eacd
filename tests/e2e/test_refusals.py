"""Bad input through the official client: the right exception, naming the field."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from openai import BadRequestError, NotFoundError, OpenAI

from tests.e2e.chat import MODEL, QUESTION, ask, post

USER = QUESTION[-1]
BAD: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "wizard", "content": "Hi"}]}, "messages[0].role"),
    ({"messages": [USER, {"role": "tool", "content": "1"}]}, "messages[1].tool_call_id"),
    (
        {"messages": [{"role": "user", "content": [{"type": "smell", "smell": 1}]}]},
        "messages[0].content[0].type",
    ),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_completion_tokens": -1}, "max_completion_tokens"),
    ({"context_length_exceeded_behavior": "shrug"}, "context_length_exceeded_behavior"),
    ({"temperature": 2.5}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_k": -2}, "top_k"),
    ({"min_p": 1.5}, "min_p"),
    ({"seed": "x"}, "seed"),
    ({"presence_penalty": 3}, "presence_penalty"),
    ({"frequency_penalty": -3}, "frequency_penalty"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"logit_bias": {"49152": 1}}, "logit_bias.49152"),
    ({"logit_bias": {"x": 1}}, "logit_bias.x"),
    ({"n": 129}, "n"),
    ({"stop": ""}, "stop"),
    ({"stop": ["x"] * 17}, "stop"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"service_tier": "scale"}, "service_tier"),
    ({"metadata": {"k": "v" * 513}}, "metadata.k"),
    ({"reasoning_effort": "extreme"}, "reasoning_effort"),
    ({"prediction": {"type": "content", "content": 3}}, "prediction.content"),
    ({"prediction": {"type": "content", "content": "word " * 1100}}, "prediction.content"),
    ({"fallbacks": ["x"]}, "fallbacks[0]"),
    ({"audio": {"voice": "alloy", "format": "wav"}}, "audio"),
    ({"modalities": ["audio"]}, "modalities[0]"),
    ({"web_search_options": {}}, "web_search_options"),
]


@pytest.mark.parametrize(("fields", "param"), BAD, ids=[param for _, param in BAD])
def test_bad_request(client: OpenAI, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        ask(client, **fields)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


@pytest.mark.parametrize("stream", [True, False])
def test_unknown_model(client: OpenAI, stream: bool) -> None:
    with pytest.raises(NotFoundError) as caught:
        ask(client, model="gpt-9", stream=stream)
    assert caught.value.code == "model_not_found"
    assert MODEL in caught.value.message or "smollm2" in caught.value.message


def test_unknown_model_in_the_list(client: OpenAI) -> None:
    with pytest.raises(NotFoundError):
        client.models.retrieve("gpt-9")


def test_error_body_has_both_shapes(http: httpx.Client) -> None:
    response = post(http, messages=[{"role": "wizard", "content": "Hi"}])
    body = response.json()
    assert response.status_code == 400
    assert body["error"]["type"] == "invalid_request_error"
    assert body["error"]["code"] == "invalid_value"
    assert body["error"]["param"] == "messages[0].role"
    assert "wizard" in body["error"]["message"]
    (detail,) = body["detail"]
    assert detail["loc"] == ["body", "messages", 0, "role"]
    assert detail["msg"] == body["error"]["message"]
    assert detail["type"]
