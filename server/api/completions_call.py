"""Completion request → one engine request for each prompt, and what the answer needs to know."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from engine.request import Request
from server import conversation, prepare
from server.api.chat_call import include_usage
from server.config import ServerConfig
from server.constraints import OutputGrammar, Wanted, read_response_format
from server.errors import InvalidRequest, Loc, UnsupportedField, quote
from server.models import ServedModel
from server.protocol.completions import CompletionRequest, Prompt

DEFAULT_MAX_TOKENS = 16
"""OpenAI's."""
MAX_LOGPROBS = 5
MAX_CHOICES = 2048
"""Of all prompts together."""
_MARK = "\u263a"
PROMPT_LOC: Loc = ("body", "prompt")


class Echo(Struct, frozen=True):
    """A prompt as it is repeated before its continuations."""

    text: str
    first: bytes
    """Of the first token, which has no log probability."""
    hidden: bool
    """The text does not show the first token: the vocabulary has added it."""
    lead: int
    """Characters that the tokens have before the text, such as a space."""


class CompletionCall(Struct, frozen=True, kw_only=True):
    """One request on its way: the engine's part, and what the answer is made with."""

    id: str
    requests: list[Request]
    """One for each prompt, each with `best_of` choices."""
    n: int
    """Choices of each prompt that are returned."""
    echoes: list[Echo] | None
    """By prompt; None where they are not repeated."""
    logprobs: int | None
    control: frozenset[int]
    """Tokens without text in a continuation."""
    model: str
    created: int
    fingerprint: str
    include_usage: bool
    ignored: tuple[str, ...]

    @property
    def best_of(self) -> int:
        """Choices of each prompt that are generated."""
        return self.requests[0].n


def check_completion(wire: CompletionRequest) -> None:
    """What can be refused before any model is asked. Raises InvalidRequest."""
    prepare.check(_chat_like(wire))
    prepare.check_metadata(wire.metadata)
    include_usage(wire)
    _check_logprobs(wire.logprobs)
    _check_best_of(wire)
    n_prompts, n_each = len(read_prompts(wire.prompt)), wire.best_of or wire.n or 1
    if n_prompts * n_each > MAX_CHOICES:
        raise InvalidRequest(
            f"a request makes at most {MAX_CHOICES} choices, but {n_prompts} prompts with {n_each}"
            f" each make {n_prompts * n_each}",
            loc=PROMPT_LOC,
        )
    if wire.suffix and wire.echo:
        raise InvalidRequest("echo cannot be combined with suffix", loc=("body", "echo"))


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
    prompts = [item for item in wire if not isinstance(item, int)]
    if tokens:
        raise InvalidRequest(
            "prompt must be one list of tokens, or a list of prompts: it has both tokens and"
            " prompts in it",
            loc=PROMPT_LOC,
        )
    return prompts


async def prepare_completion(
    wire: CompletionRequest, model: ServedModel, config: ServerConfig, client: prepare.Client
) -> CompletionCall:
    """Raises InvalidRequest, ContextLengthExceeded, EngineUnavailable."""
    info = model.engine.info
    output = await _output_grammar(wire, model)
    id = f"cmpl-{uuid.uuid4().hex}"
    options, best_of = _chat_like(wire), wire.best_of or wire.n or 1
    prompts = read_prompts(wire.prompt)
    tokens = [await _tokens(wire, model, *item) for item in enumerate(prompts)]
    ranked = best_of > (wire.n or 1)
    requests = [
        prepare.request(
            options,
            prompt,
            id=f"{id}-{place}",
            context=info.context,
            n_vocab=info.n_vocab,
            defaults=model.config.sampling,
            client=client,
            logprobs=(wire.logprobs or 0) if ranked else wire.logprobs,
            grammar=output.grammar if output is not None else None,
        )
        for place, prompt in enumerate(tokens)
    ]
    changes: dict[str, object] = {"n": best_of}
    if asked_tokens(wire) == 0:
        changes["max_tokens"] = 0
    if wire.echo:
        changes["prompt_logprobs"] = wire.logprobs
    unused = ("metadata",) if wire.metadata else ()
    return CompletionCall(
        id=id,
        requests=[replace(request, **changes) for request in requests],
        n=wire.n or 1,
        echoes=_echoes(prompts, tokens, model) if wire.echo else None,
        logprobs=wire.logprobs,
        control=model.engine.tokenizer.control,
        model=model.name,
        created=int(time.time()),
        fingerprint=info.fingerprint,
        include_usage=include_usage(wire),
        ignored=(*unused, *(output.ignored if output is not None else ())),
    )


def asked_tokens(wire: CompletionRequest) -> int | None:
    """Whichever limit counts."""
    if wire.max_completion_tokens is not None:
        return wire.max_completion_tokens
    return wire.max_tokens


def _chat_like(wire: CompletionRequest) -> CompletionRequest:
    """With a limit that `prepare` knows: here there is a default, and 0 is allowed."""
    asked = asked_tokens(wire)
    limit = DEFAULT_MAX_TOKENS if asked is None else max(asked, 1) if asked >= 0 else asked
    return replace(wire, max_tokens=limit, max_completion_tokens=None)


def _check_logprobs(logprobs: int | None) -> None:
    if logprobs is not None and not 0 <= logprobs <= MAX_LOGPROBS:
        raise InvalidRequest(
            f"logprobs must be between 0 and {MAX_LOGPROBS}, but is {logprobs}",
            loc=("body", "logprobs"),
        )


def _check_best_of(wire: CompletionRequest) -> None:
    best_of, n = wire.best_of, wire.n or 1
    if best_of is None:
        return
    loc: Loc = ("body", "best_of")
    if best_of < n:
        raise InvalidRequest(f"best_of must be at least n, {n}, but is {best_of}", loc=loc)
    if best_of > n and wire.stream:
        raise InvalidRequest(
            f"best_of is {best_of}, more than n, {n}: which are best is known at the end, so they"
            " cannot be streamed",
            loc=loc,
        )


async def _output_grammar(wire: CompletionRequest, model: ServedModel) -> OutputGrammar | None:
    form = read_response_format(wire.response_format)
    if form is None:
        return None
    return await asyncio.to_thread(model.constrain, Wanted(form=form))


async def _tokens(
    wire: CompletionRequest, model: ServedModel, place: int, prompt: Prompt
) -> list[int]:
    if wire.suffix:
        return await _infill(model, prompt, wire.suffix)
    if isinstance(prompt, str):
        found = await conversation.encode(model, prompt, add_special=True, parse_special=True)
        return found or _document_start(model)
    if not prompt:
        raise InvalidRequest("a prompt must have tokens", loc=(*PROMPT_LOC, place))
    n_vocab = model.engine.info.n_vocab
    for token in (min(prompt), max(prompt)):
        if not 0 <= token < n_vocab:
            raise InvalidRequest(
                f"prompt: tokens must be 0 to {n_vocab - 1}, but one is {token}",
                loc=_token_loc(wire, place, prompt.index(token)),
                code="invalid_token",
            )
    return prompt


def _token_loc(wire: CompletionRequest, place: int, index: int) -> Loc:
    several = isinstance(wire.prompt, list) and isinstance(wire.prompt[0], list | str)
    return (*PROMPT_LOC, place, index) if several else (*PROMPT_LOC, index)


def _document_start(model: ServedModel) -> list[int]:
    tokenizer = model.engine.tokenizer
    start = tokenizer.bos if tokenizer.bos >= 0 else tokenizer.eos
    if start < 0:
        raise InvalidRequest("the prompt has no tokens", loc=PROMPT_LOC)
    return [start]


async def _infill(model: ServedModel, prompt: Prompt, suffix: str) -> list[int]:
    """Prefix, suffix, then the model's turn in the middle: the order models are trained on."""
    tokenizer = model.engine.tokenizer
    infill = tokenizer.infill
    if infill is None:
        raise UnsupportedField(
            f"suffix: the model {quote(model.name)} has no tokens for infilling",
            loc=("body", "suffix"),
        )

    async def encoded(text: Prompt) -> list[int]:
        if not isinstance(text, str):
            return text
        return await conversation.encode(model, text, add_special=False, parse_special=False)

    start = [tokenizer.bos] if tokenizer.adds_bos and tokenizer.bos >= 0 else []
    before, after = await encoded(prompt), await encoded(suffix)
    if tokenizer.decode(after) != suffix:
        # Some vocabularies put a space before every text; inside a text there must be none.
        mark = await encoded(_MARK)
        marked = await encoded(_MARK + suffix)
        after = marked[len(mark) :] if marked[: len(mark)] == mark else after
    return [*start, infill.prefix, *before, infill.suffix, *after, infill.middle]


def _echoes(
    prompts: Sequence[Prompt], tokens: Sequence[list[int]], model: ServedModel
) -> list[Echo]:
    tokenizer = model.engine.tokenizer

    def echo(prompt: Prompt, encoded: list[int]) -> Echo:
        first = tokenizer.token_bytes(encoded[0])
        if not isinstance(prompt, str):
            return Echo(tokenizer.decode(encoded), first, hidden=False, lead=0)
        hidden = encoded[0] == tokenizer.bos and not prompt.startswith(first.decode())
        shown = len(tokenizer.decode(encoded[hidden:]))
        return Echo(prompt, first, hidden, shown - len(prompt))

    return [echo(*pair) for pair in zip(prompts, tokens, strict=True)]
