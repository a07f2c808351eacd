"""The same text with and without the cache, over mixed conversations on the real models.

Bits are equal as long as only computed prompts are reused, since prompts are cut where no kernel
treats a row differently. Reused answers are another matter: their tokens were computed one by one,
without the cache they come as rows of a prompt, through other kernels, whose sums are rounded
differently. There log probabilities must agree within `BOUND`, and the text may part only where
two tokens are closer than that.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec import Struct

from engine.engine import Engine
from engine.request import Request, RequestDone, SamplingParams, TokenLogprob, TokenOutput
from engine.settings import ModelSettings
from tests.stress_model import gemma

log = logging.getLogger(__name__)

LONG = bool(os.environ.get("INGLE_LONG"))
CONVERSATIONS = int(os.environ.get("INGLE_LONG_CONVERSATIONS", "200")) if LONG else 12
BOUND = 0.8
"""Of a log probability: a row computed alone moves logits by 0.43 (see the benchmarks' page), and
reused answers by 0.62 at most on Gemma."""
WORDS = ("river", "stone", "winter", "engine", "violin", "market", "captain", "harbour", "silver")
SPEAKERS = ("User", "Guest")
"""The next message is of the one whom the answer did not begin with: else a prompt would reuse an
answer by chance."""

GREEDY = SamplingParams(temperature=1e-5)
"""Choices that draw are computed each."""


class Turn(Struct, frozen=True):
    """A request: of which conversation, and what is new in it."""

    conversation: int
    system: str
    message: str
    n: int
    aborted: bool
    remembers: bool
    """The answers so far are part of the prompt."""


def text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(words))


def script(count: int) -> Iterator[Turn]:
    """Conversations in turn about, most beginning like others; every third one remembers."""
    rng = random.Random(count)
    systems = [text(rng, words) for words in (40, 60, 30)]
    left = {index: rng.choice((1, 1, 2, 3)) for index in range(count)}
    while left:
        index = rng.choice(list(left)[:5])
        left[index] -= 1
        if left[index] == 0:
            del left[index]
        yield Turn(
            conversation=index,
            system=text(rng, 300) if index % 25 == 20 else systems[index % 3],
            message=text(rng, rng.randrange(3, 20)),
            n=2 if rng.random() < 0.15 else 1,
            aborted=rng.random() < 0.15,
            remembers=index % 3 == 0,
        )


Choice = list[TokenLogprob]


class Talk:
    """Plays a script on an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._history: dict[int, list[int]] = {}
        self._said: dict[int, int] = {}
        self.cached = 0

    async def play(self, turn: Turn, number: int, answer: Choice | None) -> list[Choice]:
        """Asks; `answer` is what the conversation goes on with, whatever comes."""
        encode = self._engine.tokenizer.encode
        history = self._history.setdefault(turn.conversation, encode(f"System: {turn.system}\n"))
        history += encode(f"{self._speaker(turn.conversation)}: {turn.message}\nAssistant:")
        if turn.aborted:
            await self._abort(history + encode(text(random.Random(number), 60)), number)
        choices = await self._ask(list(history), number, turn.n)
        self._said[turn.conversation] = choices[0][0].token
        if turn.remembers:
            history += [each.token for each in answer or choices[0]]
        return choices

    def _speaker(self, conversation: int) -> str:
        said = self._said.get(conversation)
        return SPEAKERS[self._engine.tokenizer.encode(SPEAKERS[0])[0] == said]

    async def _ask(self, prompt: list[int], number: int, n: int) -> list[Choice]:
        request = Request(
            id=f"{number}",
            prompt=prompt,
            max_tokens=4,
            sampling=GREEDY,
            n=n,
            logprobs=20,
            ignore_eos=True,
        )
        choices: list[Choice] = [[] for _ in range(n)]
        async for event in self._engine.generate(request):
            if isinstance(event, TokenOutput):
                choices[event.index] += event.logprobs
            elif isinstance(event, RequestDone):
                self.cached += event.usage.cached_tokens
        return choices

    async def _abort(self, prompt: list[int], number: int) -> None:
        """Hang up in the middle of the prompt or of the answer."""
        stream = self._engine.submit(Request(id=f"{number}-gone", prompt=prompt, max_tokens=50))
        if number % 2:
            await anext(aiter(stream))
        stream.cancel()
        while self._engine.stats().running:
            await asyncio.sleep(0.001)


@asynccontextmanager
async def running(model: Path, *, cache: bool) -> AsyncIterator[Engine]:
    engine = Engine.load(
        ModelSettings(
            path=model,
            context=2048,
            parallel=3,
            threads=1,
            flash_attention=False,
            prefix_cache_mib=24,
        )
    )
    if not cache:
        core = engine._core
        core._kv._retain, core._kv._copies._budget, core._rows._budget = False, 0, 0
    engine.start(asyncio.get_running_loop())
    try:
        yield engine
    finally:
        await asyncio.to_thread(engine.close)


def plainly(choice: Choice) -> list[object]:
    """All of it but whose vocabulary it is."""
    return [(each.token, each.data, each.logprob, each.ranked) for each in choice]


def compare(got: Choice, expected: Choice) -> float:
    """The largest difference of a likely token's log probability, up to where the texts part."""
    worst = 0.0
    for one, other in zip(got, expected, strict=True):
        there = {top.token: top.logprob for top in other.top}
        both = [(top.logprob, there[top.token]) for top in one.top[:3] if top.token in there]
        worst = max(worst, *(abs(a - b) for a, b in both))
        if one.token != other.token:
            # Both are likeliest somewhere, so that they are near each other in both.
            assert there[other.token] - there[one.token] < 2 * BOUND
            break
    return worst


@pytest.fixture(params=["smollm2", "gemma"])
def model(request: pytest.FixtureRequest, smollm2: Path) -> Path:
    return smollm2 if request.param == "smollm2" else gemma()


def test_the_same_text_with_the_cache_on_and_off(model: Path) -> None:
    async def scenario() -> None:
        async with running(model, cache=False) as off, running(model, cache=True) as on:
            plain, cached = Talk(off), Talk(on)
            same = parted = 0
            worst = 0.0
            for number, turn in enumerate(script(CONVERSATIONS)):
                expected = await plain.play(turn, number, None)
                got = await cached.play(turn, number, expected[0])
                for choice in got:
                    if turn.remembers:
                        worst = max(worst, compare(choice, expected[0]))
                        parted += [t.token for t in choice] != [t.token for t in expected[0]]
                    else:
                        assert plainly(choice) == plainly(expected[0]), "bit by bit"
                        same += 1
            assert plain.cached == 0
            assert cached.cached > 500
            log.info(
                "%s: %d answers equal in every bit; with reused answers log probabilities within"
                " %.2f, %d texts parted; %d tokens cached",
                *(model.name, same, worst, parted, cached.cached),
            )
            assert worst < BOUND

    asyncio.run(scenario())
