"""No answer carries another's context.

The same prompts are asked alone and in a crowd that is batched, refused and aborted around them.
Answers may differ where two tokens are nearly equal, as sums are rounded differently in batches
of different size; so the distributions are compared, at every step that both runs share.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionTokenLogprob

from tests.e2e.chat import MODEL
from tests.e2e.server_process import ServerProcess

log = logging.getLogger(__name__)

pytestmark = pytest.mark.anyio

SECRETS = ("elephant", "volcano", "pyramid", "diamond", "penguin", "cathedral")
TOKENS = 6
TOLERANCE = 0.1
"""Of a probability: batches of different sizes differ by 0.04, other prompts by 0.3 to 0.9."""

Answer = list[ChatCompletionTokenLogprob]


def prompt_of(index: int, fillers: int | None = None) -> list[Any]:
    """Prompts of different lengths, alike but for the secret."""
    filler = "Listen carefully. " * (index % 3 if fillers is None else fillers)
    text = f"{filler}The password is {SECRETS[index]}. Repeat: what is the password?"
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]


async def answer_of(client: AsyncOpenAI, index: int, fillers: int | None = None) -> Answer:
    completion = await client.chat.completions.create(
        model=MODEL,
        messages=prompt_of(index, fillers),
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


CLIENTS = 16
FILLERS = (0, 2, 12, 30, 60)


class Crowd:
    """Clients that ask, hang up while they are answered, and hang up while their prompt is read."""

    def __init__(self, client: AsyncOpenAI, alone: dict[tuple[int, int], Answer]) -> None:
        self._client = client
        self._alone = alone
        self.worst = 0.0
        self.asked = self.left = 0

    async def visit(self, number: int, until: float) -> None:
        rng = random.Random(number)
        while time.monotonic() < until:
            index, fillers = rng.randrange(len(SECRETS)), rng.choice(FILLERS)
            what = rng.random()
            if what < 0.6:
                self._check(await answer_of(self._client, index, fillers), index, fillers)
                self.asked += 1
                continue
            self.left += 1
            if what < 0.8:
                await disturb(self._client, rng.randrange(30))
            else:
                await self._leave_in_prefill(rng)

    async def _leave_in_prefill(self, rng: random.Random) -> None:
        words = " ".join(rng.choice(SECRETS) for _ in range(rng.randrange(50, 250)))
        request = self._client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": words}], max_tokens=50
        )
        task = asyncio.ensure_future(request)
        await asyncio.wait([task], timeout=rng.random() / 2)
        task.cancel()

    def _check(self, answer: Answer, index: int, fillers: int) -> None:
        expected = self._alone[index, fillers]
        for step in range(shared_steps(expected, answer)):
            self.worst = max(self.worst, distance(expected[step], answer[step]))
        for other, secret in enumerate(SECRETS):
            if other != index and secret not in text_of(expected):
                assert secret not in text_of(answer)


@pytest.mark.skipif(not os.environ.get("INGLE_LONG"), reason="takes minutes: set INGLE_LONG")
async def test_a_crowd_for_minutes(tmp_path: Path) -> None:
    """Sixteen clients on four slots, with so little host memory that prefixes go to disk and
    come back all the time."""
    flags = "--parallel 4 --context 1024 --prefix-cache-mib 40"
    directory = ("--prefix-cache-dir", str(tmp_path))
    with ServerProcess([*flags.split(), *directory]) as server:
        async with AsyncOpenAI(base_url=server.base_url, api_key="none", max_retries=0) as client:
            alone = {
                (index, fillers): await answer_of(client, index, fillers)
                for index in range(len(SECRETS))
                for fillers in FILLERS
            }
            crowd = Crowd(client, alone)
            until = time.monotonic() + float(os.environ.get("INGLE_LONG_SECONDS", "180"))
            await asyncio.gather(*(crowd.visit(number, until) for number in range(CLIENTS)))
    log.info("%d answers, %d left, %.3f apart at most", crowd.asked, crowd.left, crowd.worst)
    assert crowd.worst < TOLERANCE
    assert crowd.asked > CLIENTS
    assert list(tmp_path.glob("*/*.prefix"))
