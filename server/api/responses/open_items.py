"""Output items while they grow: the events of their beginning, their text and their end."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Protocol

from msgspec import UNSET

from server.api.responses.items import seal
from server.custom_tools import InputReader
from server.protocol import response_events as events
from server.protocol.chat_completions import TokenLogprob
from server.protocol.responses import (
    CustomCallItem,
    FunctionCallItem,
    MessageItem,
    OutputItem,
    OutputText,
    ReasoningItem,
    ReasoningText,
    SummaryText,
)

Events = Iterator[events.StreamEvent]


class Numbers(Protocol):
    """Who counts the events of one stream."""

    def number(self) -> int:
        """The next sequence number."""


class OpenItem(ABC):
    """Base: an item at `index` of the output, with its text so far."""

    prefix = ""

    def __init__(self, numbers: Numbers, index: int) -> None:
        self.index = index
        self.id = f"{self.prefix}_{uuid.uuid4().hex}"
        self._numbers = numbers
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        """What it says so far."""
        return "".join(self._pieces)

    @abstractmethod
    def item(self, status: str) -> OutputItem:
        """As it stands."""

    def begin(self) -> Events:
        """After the item itself was announced."""
        return iter(())

    @abstractmethod
    def add(self, text: str, logprobs: list[TokenLogprob] | None = None) -> Events:
        """More text."""

    @abstractmethod
    def end(self) -> Events:
        """Before the whole item is given."""

    def _next(self) -> int:
        return self._numbers.number()


class OpenMessage(OpenItem):
    """Text, with the logprobs of its tokens where there are any."""

    prefix = "msg"

    def __init__(self, numbers: Numbers, index: int) -> None:
        super().__init__(numbers, index)
        self._logprobs: list[TokenLogprob] = []

    def item(self, status: str) -> MessageItem:
        parts = [] if status == "in_progress" else [self._part()]
        return MessageItem(id=self.id, status=status, content=parts)

    def _part(self) -> OutputText:
        return OutputText(text=self.text, logprobs=self._logprobs)

    def begin(self) -> Events:
        yield events.PartAdded(
            sequence_number=self._next(),
            item_id=self.id,
            output_index=self.index,
            part=OutputText(text=""),
        )

    def grow(self, text: str) -> None:
        """More text, which whoever calls this tells the client."""
        self._pieces.append(text)

    def add(self, text: str, logprobs: list[TokenLogprob] | None = None) -> Events:
        self.grow(text)
        self._logprobs += logprobs or ()
        yield events.TextDelta(
            sequence_number=self._next(),
            item_id=self.id,
            output_index=self.index,
            delta=text,
            logprobs=logprobs or [],
        )

    def end(self) -> Events:
        yield events.TextDone(
            sequence_number=self._next(),
            item_id=self.id,
            output_index=self.index,
            text=self.text,
            logprobs=self._logprobs,
        )
        yield events.PartDone(
            sequence_number=self._next(),
            item_id=self.id,
            output_index=self.index,
            part=self._part(),
        )


class OpenReasoning(OpenItem):
    """A thought; `summary`: the same once more under that name; `sealed`: to be carried back."""

    prefix = "rs"

    def __init__(self, numbers: Numbers, index: int, *, summary: bool, sealed: bool) -> None:
        super().__init__(numbers, index)
        self._summary, self._sealed = summary, sealed

    def item(self, status: str) -> ReasoningItem:
        whole = status != "in_progress"
        return ReasoningItem(
            id=self.id,
            status=status,
            summary=[SummaryText(self.text)] if whole and self._summary else [],
            content=[ReasoningText(self.text)] if whole else [],
            encrypted_content=seal(self.text) if whole and self._sealed else UNSET,
        )

    def begin(self) -> Events:
        yield events.PartAdded(
            sequence_number=self._next(),
            item_id=self.id,
            output_index=self.index,
            part=ReasoningText(""),
        )
        if self._summary:
            yield events.SummaryPartAdded(
                sequence_number=self._next(),
                item_id=self.id,
                output_index=self.index,
                part=SummaryText(""),
            )

    def add(self, text: str, logprobs: list[TokenLogprob] | None = None) -> Events:
        self._pieces.append(text)
        yield events.ReasoningDelta(
            sequence_number=self._next(), item_id=self.id, output_index=self.index, delta=text
        )
        if self._summary:
            yield events.SummaryDelta(
                sequence_number=self._next(), item_id=self.id, output_index=self.index, delta=text
            )

    def end(self) -> Events:
        text = self.text
        yield events.ReasoningDone(
            sequence_number=self._next(), item_id=self.id, output_index=self.index, text=text
        )
        yield events.PartDone(
            sequence_number=self._next(),
            item_id=self.id,
            output_index=self.index,
            part=ReasoningText(text),
        )
        if self._summary:
            yield events.SummaryDone(
                sequence_number=self._next(), item_id=self.id, output_index=self.index, text=text
            )
            yield events.SummaryPartDone(
                sequence_number=self._next(),
                item_id=self.id,
                output_index=self.index,
                part=SummaryText(text),
            )


class OpenCall(OpenItem):
    """A call of a function."""

    prefix = "fc"

    def __init__(self, numbers: Numbers, index: int, call_id: str, name: str) -> None:
        super().__init__(numbers, index)
        self._call_id, self._name = call_id, name

    def item(self, status: str) -> OutputItem:
        return FunctionCallItem(
            id=self.id,
            status=status,
            call_id=self._call_id,
            name=self._name,
            arguments=self.text,
        )

    def add(self, text: str, logprobs: list[TokenLogprob] | None = None) -> Events:
        if text:
            self._pieces.append(text)
            yield events.ArgumentsDelta(
                sequence_number=self._next(), item_id=self.id, output_index=self.index, delta=text
            )

    def end(self) -> Events:
        yield events.ArgumentsDone(
            sequence_number=self._next(),
            item_id=self.id,
            output_index=self.index,
            name=self._name,
            arguments=self.text,
        )


class OpenCustomCall(OpenCall):
    """A call of a custom tool: its one argument as plain text."""

    prefix = "ctc"

    def __init__(self, numbers: Numbers, index: int, call_id: str, name: str) -> None:
        super().__init__(numbers, index, call_id, name)
        self._reader = InputReader()

    def item(self, status: str) -> CustomCallItem:
        return CustomCallItem(
            id=self.id, status=status, call_id=self._call_id, name=self._name, input=self.text
        )

    def add(self, text: str, logprobs: list[TokenLogprob] | None = None) -> Events:
        return self._give(self._reader.read(text))

    def _give(self, text: str) -> Events:
        if text:
            self._pieces.append(text)
            yield events.InputDelta(
                sequence_number=self._next(), item_id=self.id, output_index=self.index, delta=text
            )

    def end(self) -> Events:
        yield from self._give(self._reader.finish())
        yield events.InputDone(
            sequence_number=self._next(), item_id=self.id, output_index=self.index, input=self.text
        )
