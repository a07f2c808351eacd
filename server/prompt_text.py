"""A rendered prompt → tokens: what users write stays text, and what cannot fit is not encoded.

A template's markers are control tokens because they are spelled that way in its output. So would
be the same spelling in a user's message or in what a tool brought, which could then end the turn
and speak as somebody else. Such spellings are marked before the template prints them, and the
text is encoded in pieces that part each of them. Prompts without one are encoded as they are.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from engine.errors import ContextLengthExceeded

if TYPE_CHECKING:
    from engine.llama.tokenizer import Tokenizer

MARK = "\ufdd1"
"""Stands before a spelling that is text; a noncharacter, of which no text is made."""
STRANGERS = frozenset({"user", "tool", "function"})
"""Roles whose words come from outside: not the operator's, and not the model's own."""
CHARS_PER_TOKEN = 8
"""More than text has; only from there on it is worth asking how long tokens can be."""

_BRACKETED = re.compile(r"<[^<>\s]+>|\[[^\[\]\s]+\]")


class PromptText:
    """Of one model; threads may share it."""

    def __init__(self, tokenizer: Tokenizer, context: int, markup: Iterable[str] = ()) -> None:
        """`markup`: texts of the template, whose tokens need not be declared as control tokens."""
        self._tokenizer = tokenizer
        self._context = context
        self._longest = 0
        words = set(_spellings(tokenizer, markup))
        self._spelling = re.compile(f"(?={_any_of(words)})") if words else None

    def mark(self, messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The messages, with marks in what users and tools say; the input is not changed."""
        return [
            {**message, "content": self._marked(message.get("content"))}
            if message["role"] in STRANGERS
            else message
            for message in messages
        ]

    def encode(self, text: str) -> tuple[str, list[int]]:
        """(`text` without marks, its tokens with a bos where the vocabulary wants one).

        Raises ContextLengthExceeded where its length alone shows that it cannot fit.
        """
        self.check_length(text)
        tokenizer = self._tokenizer
        tokens = [token for piece in self._pieces(text) for token in tokenizer.encode(piece)]
        if tokenizer.adds_bos and tokens[:1] != [tokenizer.bos]:
            tokens.insert(0, tokenizer.bos)
        return text.replace(MARK, ""), tokens

    def check_length(self, text: str) -> None:
        """Raises ContextLengthExceeded: no token stands for more bytes than the longest does."""
        if len(text) <= CHARS_PER_TOKEN * self._context:
            return
        longest = self._longest = self._longest or self._measure()
        least = -(-(len(text) - text.count(MARK)) // longest)
        if least > self._context:
            raise ContextLengthExceeded(least, self._context, at_least=True)

    def _measure(self) -> int:
        tokenizer = self._tokenizer
        return max(len(tokenizer.token_bytes(token)) for token in range(tokenizer.n_vocab))

    def _marked(self, content: Any) -> Any:
        if self._spelling is None:
            return content
        if isinstance(content, str):
            return self._spelling.sub(MARK, content)
        if isinstance(content, list):
            return [
                {**part, "text": self._spelling.sub(MARK, part["text"])} if "text" in part else part
                for part in content
            ]
        return content

    def _pieces(self, text: str) -> Iterable[str]:
        """Parted after the first character of each spelling that is marked."""
        head, *marked = text.split(MARK)
        for part in marked:
            # A mark that lost its spelling on the way through the template parts nothing.
            if self._spelling is not None and self._spelling.match(part):
                yield head + part[0]
                head = part[1:]
            else:
                head += part
        yield head


def _spellings(tokenizer: Tokenizer, markup: Iterable[str]) -> Iterable[str]:
    """Texts that must not become tokens that steer: two characters at least, to be parted."""
    steering = {*tokenizer.control, *tokenizer.end_of_generation}
    declared = [tokenizer.token_bytes(t).decode("utf-8", "replace") for t in steering]
    own = [word for text in markup for word in _BRACKETED.findall(text)]
    return [
        *(word for word in declared if len(word) > 1 and not word.isspace()),
        *(word for word in own if len(tokenizer.encode(word)) == 1),
    ]


def _any_of(words: Iterable[str]) -> str:
    """A pattern for where one of `words` begins, as a tree: its cost does not grow with them."""
    tails = defaultdict(set)
    for word in words:
        if not word:
            return ""
        tails[word[0]].add(word[1:])
    branches = [re.escape(first) + _any_of(rest) for first, rest in sorted(tails.items())]
    return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"
