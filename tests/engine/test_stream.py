"""The way of a request's events on the loop: through the iterator, or past it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from engine.request import Event, RequestDone, Timings, TokenOutput, Usage
from engine.stream import Stream

DONE = RequestDone(Usage(1, 1, 0), Timings(0, 0, 0))


def output(text: str) -> TokenOutput:
    return TokenOutput(index=0, text=text, n_tokens=1)


class Reader:
    """What comes out of a stream by either way."""

    def __init__(self, take: Callable[[str], bool] = lambda text: True) -> None:
        self.stream = Stream(lambda: None)
        self.stream.divert(self._take)
        self.diverted: list[str] = []
        self.iterated: list[Event] = []
        self._wants = take

    def _take(self, event: TokenOutput) -> bool:
        taken = self._wants(event.text)
        if taken:
            self.diverted.append(event.text)
        return taken

    async def run(self) -> None:
        async for event in self.stream:
            self.iterated.append(event)


async def _turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_a_waiting_reader_sleeps_until_the_last_event() -> None:
    async def main() -> None:
        reader = Reader()
        task = asyncio.create_task(reader.run())
        await _turn()
        for text in "abc":
            reader.stream.put(output(text))
            assert reader.diverted[-1] == text
        reader.stream.put(DONE)
        await task
        assert reader.diverted == ["a", "b", "c"]
        assert reader.iterated == [DONE]

    asyncio.run(main())


def test_outputs_stay_in_order_where_nobody_waits_or_one_is_declined() -> None:
    async def main() -> None:
        reader = Reader(lambda text: text != "d")
        for text in "ab":
            reader.stream.put(output(text))
        task = asyncio.create_task(reader.run())
        await _turn()
        for text in "cdef":
            reader.stream.put(output(text))
        await _turn()
        reader.stream.put(output("g"))
        reader.stream.put(DONE)
        await task
        # After the declined one the reader is busy: what comes then queues up behind it.
        assert reader.diverted == ["c", "g"]
        assert reader.iterated == [*map(output, "abdef"), DONE]

    asyncio.run(main())


def test_what_a_sink_raises_reaches_the_reader() -> None:
    def fail(text: str) -> bool:
        raise ValueError(text)

    async def main() -> None:
        reader = Reader(fail)
        task = asyncio.create_task(reader.run())
        await _turn()
        reader.stream.put(output("a"))
        with pytest.raises(ValueError, match="a"):
            await task

    asyncio.run(main())
