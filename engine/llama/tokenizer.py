"""Text ↔ token ids by the model's own vocabulary."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterable

from msgspec import Struct

from engine.errors import EngineUnavailable, InvalidToken
from engine.llama.library import library

_CONTROL = 1 << 3
_UNKNOWN_OR_UNUSED = (1 << 0) | (1 << 1)


class Lease:
    """Counts the threads inside a native object, so that it is freed only once they have left."""

    def __init__(self) -> None:
        self._users = 0
        self._ended = False
        self._changed = threading.Condition()

    def __enter__(self) -> None:
        """Raises EngineUnavailable after `end`."""
        with self._changed:
            if self._ended:
                raise EngineUnavailable("stopped")
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._users -= 1
            if self._ended and not self._users:
                self._changed.notify_all()

    def end(self) -> None:
        """Let nobody in from now on, and wait for those inside."""
        with self._changed:
            self._ended = True
            self._changed.wait_for(lambda: not self._users)


class InfillTokens(Struct, frozen=True):
    """What marks the parts of a text with a gap; the model writes after `middle`."""

    prefix: int
    suffix: int
    middle: int


class Tokenizer:
    """The vocabulary of one model. It never changes, so any thread may call it until `close`."""

    def __init__(self, vocab: ctypes.c_void_p) -> None:
        self._vocab = vocab
        self._api = library().api
        self._pieces: dict[int, bytes] = {}
        self._lease = Lease()
        self.n_vocab: int = self._api.llama_vocab_n_tokens(vocab)
        self.bos: int = self._api.llama_vocab_bos(vocab)
        self.eos: int = self._api.llama_vocab_eos(vocab)
        self.adds_bos: bool = self._api.llama_vocab_get_add_bos(vocab)
        self._sep: int = self._api.llama_vocab_sep(vocab)
        self._adds_eos: bool = self._api.llama_vocab_get_add_eos(vocab)
        self._adds_sep: bool = self._api.llama_vocab_get_add_sep(vocab) and self._sep >= 0
        marks = [
            getattr(self._api, f"llama_vocab_fim_{part}")(vocab) for part in ("pre", "suf", "mid")
        ]
        self.infill = InfillTokens(*marks) if min(marks) >= 0 else None
        """None where the vocabulary has no tokens for infilling."""
        is_eog = self._api.llama_vocab_is_eog
        get_attr = self._api.llama_vocab_get_attr
        attributes = [get_attr(vocab, token) for token in range(self.n_vocab)]
        self.control: frozenset[int] = frozenset(
            token for token, attr in enumerate(attributes) if attr & _CONTROL
        )
        """Tokens that steer the model and are not text."""
        self.end_of_generation: frozenset[int] = frozenset(
            token
            for token, attr in enumerate(attributes)
            if attr & ~(1 << 2) and is_eog(vocab, token)
        ) | ({self.eos} if self.eos >= 0 else set())
        """Every token that ends an answer, not only eos."""

    def close(self) -> None:
        """The model is about to be freed: waits for the threads that are inside its vocabulary.

        From then on `encode` and `token_bytes` raise EngineUnavailable.
        """
        self._lease.end()
        # Whoever still holds a finished request holds this object, and need not hold the pieces.
        self._pieces = {}

    def encode(
        self, text: str, *, add_special: bool = False, parse_special: bool = True
    ) -> list[int]:
        """Token ids of `text`; with `add_special` a bos (or eos) where the vocabulary wants one,
        with `parse_special` the spelling of a control token becomes that token."""
        data = text.encode("utf-8", "replace")
        size = len(data) + 8
        with self._lease:
            out = (ctypes.c_int32 * size)()
            count = self._api.llama_tokenize(
                self._vocab, data, len(data), out, size, add_special, parse_special
            )
            if count < 0:
                out = (ctypes.c_int32 * -count)()
                count = self._api.llama_tokenize(
                    self._vocab, data, len(data), out, -count, add_special, parse_special
                )
        return out[:count]

    def pair(self, query: list[int], document: list[int]) -> list[int]:
        """Both with the tokens between and around them that the vocabulary wants: BERT's
        [CLS] query [SEP] document [SEP], RoBERTa's <s> query </s></s> document </s>."""
        end = [self.eos if self.eos >= 0 else self._sep] if self._adds_eos else []
        start = [self.bos] if self.adds_bos else []
        between = [self._sep] if self._adds_sep else []
        return [*start, *query, *end, *between, *document, *(end or between)]

    def token_bytes(self, token: int) -> bytes:
        """The bytes of `token`, control tokens in their spelling; raises InvalidToken."""
        piece = self._pieces.get(token)
        if piece is None:
            with self._lease:
                piece = self._pieces[token] = self._read_piece(token)
        return piece

    def _read_piece(self, token: int) -> bytes:
        self.check(token)
        size = 64
        while True:
            out = ctypes.create_string_buffer(size)
            count = self._api.llama_token_to_piece(self._vocab, token, out, size, 0, True)
            if count >= 0:
                return out.raw[:count]
            size = -count

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of `tokens`; bytes that are no UTF-8 become U+FFFD."""
        return b"".join(map(self.token_bytes, tokens)).decode("utf-8", "replace")

    def check(self, token: int) -> None:
        """Raise InvalidToken unless `token` is an id of this vocabulary."""
        if not 0 <= token < self.n_vocab:
            raise InvalidToken(f"token id {token} is not below the vocabulary's {self.n_vocab}")

    def spelling(self, token: int) -> str:
        """The text of a control token such as bos, or "" where the vocabulary has none."""
        return self.token_bytes(token).decode("utf-8", "replace") if token >= 0 else ""
