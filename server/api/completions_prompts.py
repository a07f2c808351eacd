"""The prompts of a completion request: read, encoded, and repeated where `echo` asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from server import conversation
from server.checks import check_tokens
from server.errors import InvalidRequest, Loc, UnsupportedField, quote
from server.models import ServedModel
from server.protocol.completions import CompletionRequest, Prompt

if TYPE_CHECKING:
    from engine.llama.tokenizer import Tokenizer

PROMPT_LOC: Loc = ("body", "prompt")
_MARK = "\u263a"


class Echo(Struct, frozen=True):
    """A prompt as it is repeated before its continuations."""

    text: str
    first: bytes
    """Of the first token, which has no log probability."""
    hidden: bool
    """The text does not show the first token: the vocabulary has added it."""
    lead: int
    """Characters that the tokens have before the text, such as a space."""


class Encoded(Struct, frozen=True):
    """One prompt as the engine reads it."""

    tokens: list[int]
    echo: Echo | None


def read_prompts(wire: str | Sequence[str | int | list[int]] | None) -> list[Prompt]:
    """The prompts in order; without one, a new document begins. Raises InvalidRequest."""
    if wire is None:
        return [""]
    if isinstance(wire, str):
        return [wire]
    if not wire:
        raise InvalidRequest("prompt must not be an empty list", loc=PROMPT_LOC)
    tokens = [item for item in wire if isinstance(item, int)]
    if len(tokens) == len(wire):
        return [tokens]
    if tokens:
        raise InvalidRequest(
            "prompt must be one list of tokens, or a list of prompts: it has both tokens and"
            " prompts in it",
            loc=PROMPT_LOC,
        )
    return [item for item in wire if not isinstance(item, int)]


async def encode_prompts(wire: CompletionRequest, model: ServedModel) -> list[Encoded]:
    """Raises InvalidRequest, ContextLengthExceeded, EngineUnavailable."""
    prompts = read_prompts(wire.prompt)
    size = sum(map(len, prompts)) + len(wire.suffix or "") * len(prompts)

    def run() -> list[Encoded]:
        return [_encode(wire, model, *item) for item in enumerate(prompts)]

    return await conversation.off_loop_if(size, run)


def _encode(wire: CompletionRequest, model: ServedModel, place: int, prompt: Prompt) -> Encoded:
    tokenizer = model.engine.tokenizer
    if isinstance(prompt, str):
        model.prompt_text.check_length(prompt)
    else:
        _check_tokens(wire, model, place, prompt)
    if wire.suffix:
        return Encoded(_infill(model, prompt, wire.suffix), None)
    tokens = _document(tokenizer, prompt) if isinstance(prompt, str) else prompt
    return Encoded(tokens, _echo(tokenizer, prompt, tokens) if wire.echo else None)


def _check_tokens(
    wire: CompletionRequest, model: ServedModel, place: int, prompt: list[int]
) -> None:
    assert isinstance(wire.prompt, list)
    several = isinstance(wire.prompt[0], list | str)
    loc = (*PROMPT_LOC, place) if several else PROMPT_LOC
    if not prompt:
        raise InvalidRequest("a prompt must have tokens", loc=loc)
    check_tokens(prompt, model.engine.info.n_vocab, loc)


def _document(tokenizer: Tokenizer, text: str) -> list[int]:
    """The beginning of a document: with the token that begins one, but not twice, and without the
    one that ends it, which some vocabularies would add."""
    tokens = tokenizer.encode(text)
    start = _start(tokenizer)
    if start and tokens[:1] != start:
        return [*start, *tokens]
    if not tokens:
        tokens = [token for token in (tokenizer.bos, tokenizer.eos) if token >= 0][:1]
    if not tokens:
        raise InvalidRequest("the prompt has no tokens", loc=PROMPT_LOC)
    return tokens


def _start(tokenizer: Tokenizer) -> list[int]:
    return [tokenizer.bos] if tokenizer.adds_bos and tokenizer.bos >= 0 else []


def _infill(model: ServedModel, prompt: Prompt, suffix: str) -> list[int]:
    """Prefix, suffix, then the model's turn in the middle: the order models are trained on."""
    tokenizer = model.engine.tokenizer
    marks = tokenizer.infill
    if marks is None:
        raise UnsupportedField(
            f"suffix: the model {quote(model.name)} has no tokens for infilling",
            loc=("body", "suffix"),
        )
    before = prompt if not isinstance(prompt, str) else _plain(tokenizer, prompt)
    after = _inner(tokenizer, suffix)
    return [*_start(tokenizer), marks.prefix, *before, marks.suffix, *after, marks.middle]


def _plain(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, parse_special=False)


def _inner(tokenizer: Tokenizer, text: str) -> list[int]:
    """As inside of a longer text: some vocabularies begin every text with a space of their own."""
    tokens = _plain(tokenizer, text)
    if tokenizer.decode(tokens) == text:
        return tokens
    mark, marked = _plain(tokenizer, _MARK), _plain(tokenizer, _MARK + text)
    return marked[len(mark) :] if marked[: len(mark)] == mark else tokens


def _echo(tokenizer: Tokenizer, prompt: Prompt, tokens: list[int]) -> Echo:
    first = tokenizer.token_bytes(tokens[0])
    if not isinstance(prompt, str):
        return Echo(tokenizer.decode(tokens), first, hidden=False, lead=0)
    hidden = tokens[0] == tokenizer.bos and not prompt.startswith(first.decode())
    shown = len(tokenizer.decode(tokens[hidden:]))
    return Echo(prompt, first, hidden, shown - len(prompt))
