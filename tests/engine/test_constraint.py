"""Masks, forced tokens and forks over a vocabulary of bytes and a few longer tokens."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest

import grammars
from engine.constraint import ConstraintCompiler, TokenConstraint
from engine.constraint_vocab import TokenTrie
from engine.errors import InvalidGrammar, NoTokenPossible
from engine.request import Grammar

WORDS = [b'{"', b'": ', b"name", b"nam", b"age", b"true", b"null", b"12", b'", "', b"\xc3\xa9t"]
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"enum": [12, 125, 7]}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


class ByteVocabulary:
    """Tokens 0..255 are the bytes, then WORDS, then one control token and the end."""

    def __init__(self, tokens: list[bytes] | None = None) -> None:
        self.tokens = tokens or [*(bytes([b]) for b in range(256)), *WORDS, b"<x>", b"<end>"]
        self.n_vocab = len(self.tokens)
        self.control = frozenset((self.n_vocab - 2, self.n_vocab - 1))
        self.end_of_generation = frozenset((self.n_vocab - 1,))

    def token_bytes(self, token: int) -> bytes:
        return self.tokens[token]

    def encode(
        self, text: str, *, add_special: bool = False, parse_special: bool = True
    ) -> list[int]:
        """The longest token first."""
        data, out = text.encode(), []
        words = sorted(set(range(self.n_vocab)) - self.control, key=lambda t: -len(self.tokens[t]))
        while data:
            token = next(t for t in words if data.startswith(self.tokens[t]))
            out.append(token)
            data = data[len(self.tokens[token]) :]
        return out

    def text(self, tokens: list[int]) -> str:
        return b"".join(self.tokens[t] for t in tokens).decode()


VOCABULARY = ByteVocabulary()
END = VOCABULARY.n_vocab - 1


@pytest.fixture(scope="module")
def compiler() -> ConstraintCompiler:
    return ConstraintCompiler(VOCABULARY)


def grammar(schema: object) -> Grammar:
    compiled = grammars.compile(schema)
    return Grammar(compiled.gbnf, compiled.lark)


def allowed(constraint: TokenConstraint) -> set[bytes]:
    return {VOCABULARY.tokens[t] for t in np.flatnonzero(constraint.mask())}


def feed(constraint: TokenConstraint, text: str) -> None:
    for token in VOCABULARY.encode(text):
        constraint.accept(token)


def test_the_mask_is_what_may_come_next(compiler: ConstraintCompiler) -> None:
    constraint = compiler.compile(grammar({"enum": [True, None, "né", 12]}))
    assert allowed(constraint) == {b"t", b"true", b"n", b"null", b'"', b"1", b"12"}
    row = np.ones(VOCABULARY.n_vocab, np.float32)
    constraint.restrict(row)
    assert np.isneginf(row[END]) and row[VOCABULARY.tokens.index(b"true")] == 1
    assert np.isfinite(row).sum() == 7


def test_the_end_is_allowed_where_the_text_is_whole(compiler: ConstraintCompiler) -> None:
    constraint = compiler.compile(grammar({"enum": [12, 125]}))
    feed(constraint, "1")
    assert not constraint.can_end
    feed(constraint, "2")
    assert constraint.can_end and not constraint.finished
    assert allowed(constraint) == {b"5", b"<end>"}
    feed(constraint, "5")
    assert constraint.can_end and constraint.finished


def test_forced_tokens_are_cut_as_the_tokenizer_cuts(compiler: ConstraintCompiler) -> None:
    constraint = compiler.compile(grammar(PERSON))
    forced = constraint.forced()
    assert VOCABULARY.text(forced).startswith('{"name": ')
    assert [VOCABULARY.tokens[t] for t in forced[:3]] == [b'{"', b"name", b'": ']
    for token in forced:
        constraint.accept(token)
    rest = VOCABULARY.text(forced).removeprefix('{"name": ')
    feed(constraint, '"x"'[len(rest) :])
    forced = constraint.forced()
    assert VOCABULARY.text(forced).startswith(', "age": ')


def test_a_run_by_masks_and_forced_tokens_makes_valid_json(compiler: ConstraintCompiler) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        constraint, out = compiler.compile(grammar(PERSON)), []
        while not constraint.finished and len(out) < 400:
            for token in constraint.forced():
                constraint.accept(token)
                out.append(token)
            if constraint.finished:
                break
            row = rng.standard_normal(VOCABULARY.n_vocab).astype(np.float32)
            row[VOCABULARY.tokens.index(b'"')] += 4
            constraint.restrict(row)
            token = int(row.argmax())
            if token == END:
                break
            constraint.accept(token)
            out.append(token)
        value = json.loads(VOCABULARY.text(out))
        assert set(value) == {"name", "age"} and value["age"] in (12, 125, 7)


def test_forks_go_their_own_ways(compiler: ConstraintCompiler) -> None:
    constraint = compiler.compile(grammar({"enum": ["ab", "ac"]}))
    feed(constraint, '"a')
    other = constraint.fork()
    feed(other, 'b"')
    assert other.finished and not constraint.finished
    assert allowed(constraint) == {b"b", b"c"}


def test_the_same_text_is_compiled_once(compiler: ConstraintCompiler) -> None:
    first = compiler.compile(grammar({"enum": ["xyz", "xyw"]}))
    feed(first, '"xyz')
    second = compiler.compile(grammar({"enum": ["xyz", "xyw"]}))
    assert allowed(second) == {b'"'}


def test_a_token_that_is_not_allowed_is_an_error(compiler: ConstraintCompiler) -> None:
    constraint = compiler.compile(grammar({"type": "null"}))
    with pytest.raises(InvalidGrammar):
        constraint.accept(VOCABULARY.tokens.index(b"true"))
    with pytest.raises(InvalidGrammar):
        constraint.mask()


@pytest.mark.parametrize("lark", ["", "start: nope", "start: (", "start: /[/"])
def test_a_text_that_is_no_grammar_is_an_error(compiler: ConstraintCompiler, lark: str) -> None:
    with pytest.raises(InvalidGrammar):
        compiler.compile(Grammar("", lark))


def test_control_tokens_are_no_text(compiler: ConstraintCompiler) -> None:
    compiled = grammars.compile_regex("<x>|<y>")
    constraint = compiler.compile(Grammar(compiled.gbnf, compiled.lark))
    assert allowed(constraint) == {b"<"}


def test_a_vocabulary_without_the_letters_has_no_token() -> None:
    poor = ByteVocabulary([b"a", b"b", b"<x>", b"<end>"])
    compiled = grammars.compile_regex("a(b|c)d")
    constraint = ConstraintCompiler(poor).compile(Grammar(compiled.gbnf, compiled.lark))
    with pytest.raises((NoTokenPossible, InvalidGrammar)):
        for token in (0, 1):
            constraint.mask()
            constraint.accept(token)
        constraint.mask()


def test_the_trie_is_built_in_a_thread_of_its_own() -> None:
    asked: set[str] = set()

    class Watched(ByteVocabulary):
        def token_bytes(self, token: int) -> bytes:
            asked.add(threading.current_thread().name)
            return super().token_bytes(token)

    trie = TokenTrie(Watched())
    assert trie.get().vocab_size == VOCABULARY.n_vocab
    assert trie.ready and asked == {"token-trie"}


def test_closing_waits_for_the_build() -> None:
    """Its memory is the model's: until it has ended, the model is not unloaded."""
    proceed = threading.Event()

    class Slow(ByteVocabulary):
        def token_bytes(self, token: int) -> bytes:
            assert proceed.wait(10)
            return super().token_bytes(token)

    compiler = ConstraintCompiler(Slow())
    closing = threading.Thread(target=compiler.close)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive() and not compiler.ready
    proceed.set()
    closing.join(10)
    assert compiler.ready and not closing.is_alive()


def test_what_breaks_the_build_is_raised_where_the_trie_is_wanted() -> None:
    class Broken(ByteVocabulary):
        def token_bytes(self, token: int) -> bytes:
            raise RuntimeError("no bytes")

    with pytest.raises(RuntimeError, match="no bytes"):
        TokenTrie(Broken()).get()
