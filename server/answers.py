"""How the answers of one model are read: what of its text is content, and what a thought."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.request import TokenOutput
from server.chat.deltas import ContentDelta, Delta, ReasoningDelta
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
        self.special_tokens = _control_tokens(format, tokenizer) if self.marked else frozenset()
        """Control tokens that mark the parts: their text must reach the parser."""

    def reader(self, prompt: str, *, separate: bool, seed: str) -> ChoiceReader:
        """For one choice of the answer to `prompt`; `separate` takes thoughts out of it."""
        if not (separate and self.marked):
            return ChoiceReader(None)
        return ChoiceReader(self._format.parser([], prompt, seed))


class ChoiceReader:
    """One choice's text as it comes → deltas."""

    def __init__(self, parser: OutputParser | None) -> None:
        self._parser = parser
        self._undecided = 0
        self._thinking = False
        self.reasoning_tokens = 0

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
        return deltas

    def _count(self, deltas: list[Delta], n_tokens: int) -> None:
        """Tokens that bring nothing, as markers do, belong to a thought before or after them."""
        if not deltas:
            self._undecided += n_tokens
            return
        thinking = isinstance(deltas[-1], ReasoningDelta)
        if thinking or self._thinking:
            self.reasoning_tokens += self._undecided + (n_tokens if thinking else 0)
        self._undecided, self._thinking = 0, thinking


def _control_tokens(format: ChatFormat, tokenizer: Tokenizer) -> frozenset[int]:
    learned = format.learned
    markers = [learned.thought.open, learned.thought.close, *learned.ends]
    markers += [learned.content_open, learned.content_close, learned.header]
    if learned.channels is not None:
        markers += [learned.channels.channel_tag, learned.channels.message_tag]
    found = {token for marker in markers for token in tokenizer.encode(marker)}
    return frozenset(found & tokenizer.control - tokenizer.end_of_generation)
