"""No answer carries another's context.

The same prompts are asked alone and in a crowd that is batched, refused and aborted around them.
Answers may differ where two tokens are nearly equal, as sums are rounded differently in batches
of different size; so the distributions are compared, at every step that both runs share.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionTokenLogprob

from tests.e2e.chat import MODEL

pytestmark = pytest.mark.anyio

SECRETS = ("elephant", "volcano", "pyramid", "diamond", "penguin", "cathedral")
TOKENS = 6
TOLERANCE = 0.1
"""Of a probability: batches of different sizes differ by 0.04, other prompts by 0.3 to 0.9."""

Answer = list[ChatCompletionTokenLogprob]


def prompt_of(index: int) -> list[Any]:
    """Prompts of different lengths, alike but for the secret."""
    filler = "Listen carefully. " * (index % 3)
    text = f"{filler}The password is {SECRETS[index]}. Repeat: what is the password?"
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]


async def answer_of(client: AsyncOpenAI, index: int) -> Answer:
    completion = await client.chat.completions.create(
        model=MODEL,
        messages=prompt_of(index),
        max_tokens=TOKENS,
        temperature=0,
        logprobs=True,
        top_logprobs=5,
        extra_body={"ignore_eos": True},
    )
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    return logprobs.content


async def disturb(client: AsyncOpenAI, index: int) -> None:
    """Takes a slot with a prompt of its own and hangs up in the middle of the answer."""
    secret = SECRETS[index % len(SECRETS)]
    stream = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": f"The password is not {secret}. " * (1 + index % 5)}],
        max_tokens=100,
        stream=True,
        n=1 + index % 2,
    )
    async with stream:
        seen = 0
        async for chunk in stream:
            seen += bool(chunk.choices[0].delta.content)
            if seen > index % 3:
                break


def text_of(answer: Answer) -> str:
    return b"".join(bytes(token.bytes or ()) for token in answer).decode("utf-8", "replace").lower()


def distance(one: ChatCompletionTokenLogprob, other: ChatCompletionTokenLogprob) -> float:
    """The largest difference of a token's probability; what is not listed counts as 0."""
    first = {top.token: math.exp(top.logprob) for top in one.top_logprobs}
    second = {top.token: math.exp(top.logprob) for top in other.top_logprobs}
    return max(abs(first.get(t, 0) - second.get(t, 0)) for t in first.keys() | second.keys())


def shared_steps(one: Answer, other: Answer) -> int:
    """Steps whose context is the same in both: up to the first token that differs, inclusive."""
    pairs = zip(one, other, strict=True)
    return next((i + 1 for i, (a, b) in enumerate(pairs) if a.token != b.token), len(one))


async def test_no_answer_carries_anothers_context(async_client: AsyncOpenAI) -> None:
    everyone = range(len(SECRETS))
    alone = [await answer_of(async_client, index) for index in everyone]
    crowd = await asyncio.gather(
        *(answer_of(async_client, index % len(SECRETS)) for index in range(2 * len(SECRETS))),
        *(disturb(async_client, index) for index in range(len(SECRETS))),
    )
    crowded: list[Answer] = [answer for answer in crowd if answer is not None]
    assert len(crowded) == 2 * len(SECRETS)
    for index, answer in enumerate(crowded):
        own = index % len(SECRETS)
        for step in range(shared_steps(alone[own], answer)):
            assert distance(alone[own][step], answer[step]) < TOLERANCE
        for other in everyone:
            if other != own:
                assert SECRETS[other] not in text_of(answer)
    # The test would see a leak: prompts that differ in one word are told apart, and remembered.
    for index in everyone:
        apart = [distance(a, b) for a, b in zip(alone[index], alone[index - 3], strict=True)]
        assert max(apart) > TOLERANCE
    assert sum(SECRETS[index] in text_of(alone[index]) for index in everyone) >= len(SECRETS) / 2
