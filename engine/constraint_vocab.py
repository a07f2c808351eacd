"""A model's vocabulary as llguidance wants it: a trie of token bytes, built once per model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from llguidance import LLTokenizer, TokenizerWrapper

from engine.vocabulary_file import VocabularyFile

LONGEST_MATCH = 32


class Vocabulary(Protocol):
    """What is needed of a tokenizer."""

    n_vocab: int
    control: frozenset[int]
    end_of_generation: frozenset[int]

    def token_bytes(self, token: int) -> bytes: ...

    def encode(
        self, text: str, *, add_special: bool = False, parse_special: bool = True
    ) -> list[int]: ...


class TokenTrie:
    """Builds in a thread of its own from the moment it is made; `get` waits for the result.

    At 49,152 tokens the build takes 0.2 s, nearly all of it outside the interpreter lock. It
    cannot be kept: llguidance has no form of it for a file. The tokens' bytes are, in `file`.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        text_tokens: frozenset[int] = frozenset(),
        file: VocabularyFile | None = None,
    ) -> None:
        self._vocabulary, self._file = vocabulary, file
        self._text_tokens = text_tokens
        self._result: LLTokenizer | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._build, name="token-trie", daemon=True)
        self._thread.start()

    def get(self) -> LLTokenizer:
        """The trie; raises what the build raised."""
        self.wait()
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    def wait(self) -> None:
        """Until the build has ended, well or not."""
        self._thread.join()

    @property
    def ready(self) -> bool:
        return not self._thread.is_alive()

    def _build(self) -> None:
        vocabulary = self._vocabulary
        try:
            adapter = _Adapter(self._tokens(), vocabulary, self._text_tokens)
            self._result = LLTokenizer(
                TokenizerWrapper(adapter), eos_token=sorted(vocabulary.end_of_generation)
            )
        except BaseException as error:  # noqa: BLE001 - it is raised where the trie is wanted
            # Without the frames, which hold this object and with it the whole vocabulary.
            self._error = error.with_traceback(None)

    def _tokens(self) -> list[bytes]:
        """The bytes of each token, from the file if it has them."""
        vocabulary = self._vocabulary
        tokens = self._file.read(vocabulary) if self._file else None
        if tokens is None:
            tokens = [vocabulary.token_bytes(t) for t in range(vocabulary.n_vocab)]
            if self._file:
                self._file.write(vocabulary, tokens)
        return tokens


class _Adapter:
    """The attributes that llguidance's wrapper reads, and the canonical tokens of forced bytes."""

    def __init__(
        self, tokens: list[bytes], vocabulary: Vocabulary, text_tokens: frozenset[int]
    ) -> None:
        self.tokens = tokens
        self.eos_token_id = min(vocabulary.end_of_generation)
        self.bos_token_id = None
        special = (vocabulary.control - text_tokens) | vocabulary.end_of_generation
        self.special_token_ids = sorted(special)
        self._special = special
        self._encode: Callable[..., list[int]] = vocabulary.encode
        self._ids: dict[bytes, int] | None = None

    def __call__(self, data: bytes | str) -> list[int]:
        """Tokens whose bytes are exactly `data`, as the model's own tokenizer cuts it."""
        if isinstance(data, str):
            data = data.encode()
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return self._longest_matches(data)
        # Markers that are tokens of their own come as such, unless the text holds a forbidden one.
        for before, parse_special in (("", True), ("", False), ("\n", False)):
            tokens = self._encode(before + text, parse_special=parse_special)
            if parse_special and not self._special.isdisjoint(tokens):
                continue
            for start in range(min(len(tokens), 3) + 1):
                if b"".join(map(self.tokens.__getitem__, tokens[start:])) == data:
                    return tokens[start:]
        return self._longest_matches(data)

    def _longest_matches(self, data: bytes) -> list[int]:
        if self._ids is None:
            tokens = enumerate(self.tokens)
            self._ids = {t: i for i, t in tokens if t and i not in self._special}
        out, at = [], 0
        while at < len(data):
            for size in range(min(LONGEST_MATCH, len(data) - at), 0, -1):
                token = self._ids.get(data[at : at + size])
                if token is not None:
                    out.append(token)
                    at += size
                    break
            else:
                return out  # no token spells this byte: what follows cannot be forced
        return out
