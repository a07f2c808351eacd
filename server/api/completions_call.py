"""Completion request → one engine request for each prompt, and what the answer needs to know."""

from __future__ import annotations

import asyncio
import time
import uuid

from msgspec import Struct
from msgspec.structs import replace

from engine.request import Grammar, Request
from server import prepare
from server.api.chat_call import include_usage
from server.api.completions_prompts import PROMPT_LOC, Echo, encode_prompts, read_prompts
from server.config import ServerConfig
from server.constraints import OutputGrammar, Wanted, read_response_format
from server.errors import InvalidRequest, Loc, quote
from server.models import ServedModel
from server.protocol.completions import CompletionRequest

DEFAULT_MAX_TOKENS = 16
"""OpenAI's."""
MAX_LOGPROBS = 5
MAX_CHOICES = 2048
"""Of all prompts together."""


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
    _check_limits(wire)
    prepare.check(with_limit(wire, least=1))
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


async def prepare_completion(
    wire: CompletionRequest, model: ServedModel, config: ServerConfig, client: prepare.Client
) -> CompletionCall:
    """Raises InvalidRequest, ContextLengthExceeded, EngineUnavailable."""
    output = await _output_grammar(wire, model)
    prompts = await encode_prompts(wire, model)
    default = min(DEFAULT_MAX_TOKENS, config.max_tokens or DEFAULT_MAX_TOKENS)
    requests = _requests(
        with_limit(wire, default),
        [each.tokens for each in prompts],
        model=model,
        client=client,
        grammar=output.grammar if output is not None else None,
    )
    unused = ("metadata",) if wire.metadata else ()
    return CompletionCall(
        id=requests[0].id.rpartition("-")[0],
        requests=requests,
        n=wire.n or 1,
        echoes=[each.echo for each in prompts if each.echo is not None] or None,
        logprobs=wire.logprobs,
        control=model.engine.tokenizer.control,
        model=model.name,
        created=int(time.time()),
        fingerprint=model.engine.info.fingerprint,
        include_usage=include_usage(wire),
        ignored=(*unused, *(output.ignored if output is not None else ())),
    )


def _requests(
    wire: CompletionRequest,
    prompts: list[list[int]],
    *,
    model: ServedModel,
    client: prepare.Client,
    grammar: Grammar | None,
) -> list[Request]:
    """They differ in prompt, limit and id only: all else is checked once."""
    n, best_of = wire.n or 1, wire.best_of or wire.n or 1
    options, asked = with_limit(wire, least=1), _asked_tokens(wire)
    info = model.engine.info
    first = prepare.request(
        options,
        prompts[0],
        id=f"cmpl-{uuid.uuid4().hex}-0",
        context=info.context,
        n_vocab=info.n_vocab,
        defaults=model.config.sampling,
        client=client,
        logprobs=(wire.logprobs or 0) if best_of > n else wire.logprobs,
        grammar=grammar,
    )
    first = replace(first, n=best_of, prompt_logprobs=wire.logprobs if wire.echo else None)

    def request(place: int, prompt: list[int]) -> Request:
        limit = prepare.max_tokens(options, len(prompt), info.context, cap=None)
        id = f"{first.id.removesuffix('-0')}-{place}"
        return replace(first, id=id, prompt=prompt, max_tokens=min(limit, asked or 0))

    return [request(*item) for item in enumerate(prompts)]


def with_limit(
    wire: CompletionRequest, default: int = DEFAULT_MAX_TOKENS, least: int = 0
) -> CompletionRequest:
    """With a number of tokens: `default` where none is given, and at least `least`; `prepare`
    knows no request for 0."""
    name = "max_tokens" if wire.max_completion_tokens is None else "max_completion_tokens"
    asked = _asked_tokens(wire)
    limit = default if asked is None else asked
    return replace(wire, **{name: least if limit == 0 else limit})


def _asked_tokens(wire: CompletionRequest) -> int | None:
    """Whichever limit counts."""
    if wire.max_completion_tokens is not None:
        return wire.max_completion_tokens
    return wire.max_tokens


def _check_limits(wire: CompletionRequest) -> None:
    """0 is a limit here, unlike elsewhere."""
    for name in ("max_tokens", "max_completion_tokens"):
        asked = getattr(wire, name)
        if asked is not None and asked < 0:
            raise InvalidRequest(
                f"{name} must be at least 0, but is {quote(asked)}", loc=("body", name)
            )


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
