"""How the answers of one model are read: what of its text is content, and what a thought."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engine.request import TokenOutput
from server.chat.deltas import CallDelta, ContentDelta, Delta, ReasoningDelta
from server.chat.format import ChatFormat
from server.chat.parser import OutputParser

if TYPE_CHECKING:
    from engine.llama.tokenizer import Tokenizer


class AnswerFormat:
    """Built once per model; threads may share it."""

    def __init__(self, format: ChatFormat, tokenizer: Tokenizer) -> None:
        learned = format.learned
        self._format = format
        self.marked = bool(learned.thought.learned or learned.channels or learned.content_open)
        """Whether answers have parts; where they do not, text passes as it is."""
        self.markers = marker_tokens(format, tokenizer)
        """Control tokens that mark parts and calls."""

    def special_tokens(self, tools: Sequence[Mapping[str, Any]]) -> frozenset[int]:
        """Control tokens whose text must reach the parser of an answer with these tools."""
        return self.markers if self.marked or tools else frozenset()

    def reader(
        self, prompt: str, *, separate: bool, seed: str, tools: Sequence[Mapping[str, Any]] = ()
    ) -> ChoiceReader:
        """For one choice of the answer to `prompt`; `separate` takes thoughts out of it."""
        if not tools and not (separate and self.marked):
            return ChoiceReader(None)
        return ChoiceReader(self._format.parser(tools, prompt, seed), separate=separate)


class ChoiceReader:
    """One choice's text as it comes → deltas."""

    def __init__(self, parser: OutputParser | None, *, separate: bool = True) -> None:
        self._parser = parser
        self._separate = separate
        self._called = False
        self._undecided = 0
        self._thinking = False
        self.reasoning_tokens = 0

    @property
    def called(self) -> bool:
        """Tools have been called, all calls with their ends."""
        return self._called and not (self._parser is not None and self._parser.cut)

    def read(self, output: TokenOutput) -> list[Delta]:
        """What is certain after one step; all that is left with the last one."""
        if self._parser is None:
            return [ContentDelta(output.text)] if output.text else []
        deltas = self._parser.feed(output.text) if output.text else []
        if output.finish_reason is not None:
            deltas += self._parser.finish()
        self._count(deltas, output.n_tokens)
        if output.finish_reason is not None and self._thinking:
            self.reasoning_tokens += self._undecided
        self._called = self._called or any(isinstance(delta, CallDelta) for delta in deltas)
        return deltas if self._separate else [_as_content(delta) for delta in deltas]

    def piece(self, output: TokenOutput) -> str | list[Delta]:
        """As `read`; the text alone where the output is nothing but a piece of content, which is
        most of every stream."""
        if self._parser is not None:
            deltas = self.read(output)
            return _plain_text(output, deltas) or deltas
        if output.text and output.finish_reason is None and not output.logprobs:
            return output.text
        return self.read(output)

    def _count(self, deltas: list[Delta], n_tokens: int) -> None:
        """Tokens that bring nothing, as markers do, belong to a thought before or after them."""
        if not deltas:
            self._undecided += n_tokens
            return
        thinking = isinstance(deltas[-1], ReasoningDelta)
        if thinking or self._thinking:
            self.reasoning_tokens += self._undecided + (n_tokens if thinking else 0)
        self._undecided, self._thinking = 0, thinking


def _plain_text(output: TokenOutput, deltas: Sequence[Delta]) -> str:
    """The text of an output that is nothing but a piece of content; else ""."""
    if len(deltas) != 1 or output.finish_reason is not None or output.logprobs:
        return ""
    [delta] = deltas
    return delta.text if isinstance(delta, ContentDelta) else ""


def _as_content(delta: Delta) -> Delta:
    return ContentDelta(delta.text) if isinstance(delta, ReasoningDelta) else delta


def marker_tokens(format: ChatFormat, tokenizer: Tokenizer) -> frozenset[int]:
    """The control tokens that a format's markers are made of, but for those that end an answer."""
    found = {token for marker in format.markers() for token in tokenizer.encode(marker)}
    return frozenset(found & tokenizer.control - tokenizer.end_of_generation)
