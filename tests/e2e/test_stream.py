"""Streams through the official client, synchronous and asynchronous."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from openai import APIError, AsyncOpenAI, BadRequestError, OpenAI
from openai.types.chat import ChatCompletionChunk

from tests.e2e.chat import MODEL, QUESTION, ask, text_of

GREEDY: dict[str, Any] = {
    "model": MODEL,
    "messages": QUESTION,
    "max_tokens": 8,
    "temperature": 0,
}


def joined(chunks: list[ChatCompletionChunk], index: int = 0) -> str:
    return "".join(
        choice.delta.content or ""
        for chunk in chunks
        for choice in chunk.choices
        if choice.index == index
    )


def test_stream_says_what_the_whole_answer_says(client: OpenAI) -> None:
    chunks = list(client.chat.completions.create(**GREEDY, stream=True))
    assert joined(chunks) == text_of(ask(client))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "length"
    assert all(chunk.usage is None for chunk in chunks)
    assert len({chunk.id for chunk in chunks}) == 1


def test_usage_in_the_last_chunk(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            **GREEDY, stream=True, stream_options={"include_usage": True}
        )
    )
    usage = ask(client).usage
    assert usage is not None
    last = chunks[-1]
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.prompt_tokens == usage.prompt_tokens
    assert last.usage.completion_tokens == usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_choices_in_one_stream(client: OpenAI) -> None:
    chunks = list(client.chat.completions.create(**GREEDY, stream=True, n=3))
    expected = text_of(ask(client))
    for index in range(3):
        assert joined(chunks, index) == expected


def test_stop_string_never_shows(client: OpenAI) -> None:
    whole = text_of(ask(client, max_tokens=12))
    stop = whole[4:11]
    fields = GREEDY | {"max_tokens": 12}
    chunks = list(client.chat.completions.create(**fields, stream=True, stop=[stop]))
    assert joined(chunks) == whole[: whole.index(stop)]
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_logprobs_in_the_stream(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(**GREEDY, stream=True, logprobs=True, top_logprobs=2)
    )
    tokens = [
        token
        for chunk in chunks
        for choice in chunk.choices
        if choice.logprobs is not None
        for token in choice.logprobs.content or ()
    ]
    assert len(tokens) == 8
    assert b"".join(bytes(t.bytes or ()) for t in tokens).decode() == joined(chunks)
    assert all(len(token.top_logprobs) == 2 for token in tokens)


def test_the_clients_stream_helper(client: OpenAI) -> None:
    """It refuses an answer that was cut off, so this one ends at a stop string."""
    whole = text_of(ask(client))
    with client.chat.completions.stream(**GREEDY, stop=whole[4:]) as stream:
        events = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "content.delta" in events
    assert final.choices[0].message.content == whole[:4]


def test_raw_stream_ends_with_done(http: httpx.Client) -> None:
    with http.stream("POST", "/v1/chat/completions", json=GREEDY | {"stream": True}) as response:
        lines = list(response.iter_lines())
    assert response.headers["content-type"].startswith("text/event-stream")
    assert int(response.headers["openai-processing-ms"]) >= 0
    assert lines[-2:] == ["data: [DONE]", ""]
    assert all(line == "" or line.startswith("data: ") for line in lines)


@pytest.mark.anyio
async def test_asynchronous_answer(async_client: AsyncOpenAI, client: OpenAI) -> None:
    completion = await async_client.chat.completions.create(**GREEDY)
    assert completion.choices[0].message.content == text_of(ask(client))


@pytest.mark.anyio
async def test_asynchronous_stream(async_client: AsyncOpenAI, client: OpenAI) -> None:
    stream = await async_client.chat.completions.create(**GREEDY, stream=True)
    assert joined([chunk async for chunk in stream]) == text_of(ask(client))


def test_failure_midway_is_an_exception_of_the_client(client: OpenAI) -> None:
    """Every token of the vocabulary is banned: no answer is possible."""
    banned = {str(token): -100 for token in range(49152)}
    with pytest.raises(BadRequestError) as refused:
        client.chat.completions.create(**GREEDY, logit_bias=banned)
    assert refused.value.code == "no_token_possible"
    with pytest.raises(APIError) as failed:
        list(client.chat.completions.create(**GREEDY, logit_bias=banned, stream=True))
    assert failed.value.code == "no_token_possible"
    assert failed.value.param == "logit_bias"
