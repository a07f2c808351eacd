"""What the engine says → text completions, whole or in chunks; pure."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence

import msgspec

from engine.request import Event, RequestDone, RequestFailed, TokenLogprob, TokenOutput
from server import sse
from server.api.chat_answer import LOWEST_LOGPROB, extra_fields, timings, usage
from server.api.completions_call import CompletionCall
from server.api.completions_prompts import Echo
from server.dispatch import Admission, Submitted, Trail
from server.errors import error_body
from server.generation import GeneratedChoice
from server.protocol.completions import ChunkHead, Completion, CompletionChoice, Logprobs

_encoder = msgspec.json.Encoder()


class LogprobLists:
    """Log probabilities of one choice in the old shape; knows where in its text the next is."""

    def __init__(self, control: frozenset[int]) -> None:
        """Tokens in `control` have no text in a continuation."""
        self._control = control
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._length = 0
        self.begun = False
        """The prompt is listed."""

    def prompt(self, echo: Echo, tokens: Sequence[TokenLogprob]) -> Logprobs:
        """Of a prompt that is repeated: nothing comes before its first token."""
        lists = Logprobs([0], [None], [token_text(echo.first)], [None])
        if not echo.hidden:
            self._place(echo.first)
        for token in tokens:
            _append(lists, max(0, self._place(token.data) - echo.lead), token)
        self._decoder.reset()
        self._length = len(echo.text)
        self.begun = True
        return lists

    def add(self, tokens: Iterable[TokenLogprob]) -> Logprobs:
        """Of what was generated."""
        lists = Logprobs([], [], [], [])
        for token in tokens:
            hidden = token.token in self._control
            _append(lists, self._length if hidden else self._place(token.data), token)
        return lists

    def _place(self, data: bytes) -> int:
        """Where the text of a token begins; it is counted."""
        place = self._length
        self._length += len(self._decoder.decode(data))
        return place


def token_text(data: bytes) -> str:
    """A token as OpenAI's old API writes it: bytes that are no text of their own in hexadecimal,
    so that no two tokens look alike."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def completion(
    call: CompletionCall, choices: Sequence[GeneratedChoice], done: RequestDone, trail: Trail
) -> Completion:
    """The whole answer."""
    chosen = [
        (place, choice)
        for place in range(len(call.requests))
        for choice in _best(choices[place * call.best_of : (place + 1) * call.best_of], call.n)
    ]
    leaders = choices[:: call.best_of]
    return Completion(
        id=call.id,
        created=call.created,
        model=call.model,
        choices=[
            _choice(call, index, place, choice, leaders[place].prompt_logprobs)
            for index, (place, choice) in enumerate(chosen)
        ],
        usage=usage(done, 0),
        system_fingerprint=call.fingerprint,
        timings=timings(done, len(choices)),
        extra_fields=extra_fields(trail),
    )


def mean_logprob(choice: GeneratedChoice) -> float:
    """By token; what says nothing is last."""
    tokens = choice.logprobs
    return sum(token.logprob for token in tokens) / len(tokens) if tokens else LOWEST_LOGPROB


class ChunkEncoder:
    """The same answer as server-sent events; what is constant is encoded once."""

    def __init__(self, admission: Admission[Submitted[CompletionCall]]) -> None:
        call = self._call = admission.value.call
        self._trail = admission.trail
        head = _encoder.encode(ChunkHead(call.id, call.created, call.model, call.fingerprint))
        counts = b',"usage":null' if call.include_usage else b""
        self._head = b"data: " + head[:-1] + b',"choices":['
        self._tail = b"]" + counts + b"}\n\n"
        self._n_choices = len(call.requests) * call.n
        self._lists = [LogprobLists(call.control) for _ in range(self._n_choices)]
        self._frames = [
            sse.Frame(self._chunk(CompletionChoice(sse.HOLE, index)))
            for index in range(self._n_choices)
        ]

    def opening(self) -> bytes:
        """The prompts, where they are repeated and their log probabilities are not awaited."""
        if self._call.echoes is None or self._call.logprobs is not None:
            return b""
        n = self._call.n
        texts = (self._call.echoes[index // n].text for index in range(self._n_choices))
        return b"".join(self._chunk(CompletionChoice(*item[::-1])) for item in enumerate(texts))

    def feed(self, event: Event) -> bytes:
        """Chunks of one event; the last one brings the counts and `[DONE]`."""
        match event:
            case TokenOutput():
                return self._echo(event) + self._output(event)
            case RequestDone():
                return self._counts(event) + sse.DONE
            case RequestFailed():
                return sse.event(_encoder.encode(error_body(event.error)))

    def _echo(self, output: TokenOutput) -> bytes:
        """The prompt of all its choices, with the first output of the first."""
        call, n = self._call, self._call.n
        if call.echoes is None or call.logprobs is None or output.index % n:
            return b""
        if self._lists[output.index].begun:
            return b""
        echo = call.echoes[output.index // n]
        return b"".join(
            self._chunk(
                CompletionChoice(
                    echo.text, index, self._lists[index].prompt(echo, output.prompt_logprobs)
                )
            )
            for index in range(output.index, output.index + n)
        )

    def _output(self, output: TokenOutput) -> bytes:
        if output.text and output.finish_reason is None and not output.logprobs:
            return self._frames[output.index].fill(output.text)
        listed = self._lists[output.index].add(output.logprobs) if output.logprobs else None
        if not output.text and listed is None and output.finish_reason is None:
            return b""
        choice = CompletionChoice(output.text, output.index, listed)
        if output.finish_reason is not None:
            choice.finish_reason, choice.stop_reason = output.finish_reason, output.stop_reason
        return self._chunk(choice)

    def _chunk(self, choice: CompletionChoice) -> bytes:
        return b"".join((self._head, _encoder.encode(choice), self._tail))

    def _counts(self, done: RequestDone) -> bytes:
        counts: dict[str, object] = {}
        if self._call.include_usage:
            counts["usage"] = usage(done, 0)
            counts["timings"] = timings(done, self._n_choices)
        if self._trail.has_fallbacks:
            counts["extra_fields"] = extra_fields(self._trail)
        if not counts:
            return b""
        return b"".join((self._head, b"],", _encoder.encode(counts)[1:], b"\n\n"))


def _best(choices: Sequence[GeneratedChoice], n: int) -> Sequence[GeneratedChoice]:
    if n == len(choices):
        return choices
    return sorted(choices, key=mean_logprob, reverse=True)[:n]


def _choice(
    call: CompletionCall,
    index: int,
    place: int,
    choice: GeneratedChoice,
    of_prompt: Sequence[TokenLogprob],
) -> CompletionChoice:
    echo = call.echoes[place] if call.echoes is not None else None
    return CompletionChoice(
        text=choice.content if echo is None else echo.text + choice.content,
        index=index,
        logprobs=None if call.logprobs is None else _logprobs(call, choice, echo, of_prompt),
        finish_reason=choice.finish_reason,
        stop_reason=choice.stop_reason,
    )


def _logprobs(
    call: CompletionCall,
    choice: GeneratedChoice,
    echo: Echo | None,
    of_prompt: Sequence[TokenLogprob],
) -> Logprobs:
    lists = LogprobLists(call.control)
    if echo is None:
        return lists.add(choice.logprobs)
    before, after = lists.prompt(echo, of_prompt), lists.add(choice.logprobs)
    return Logprobs(
        before.text_offset + after.text_offset,
        before.token_logprobs + after.token_logprobs,
        before.tokens + after.tokens,
        before.top_logprobs + after.top_logprobs,
    )


def _append(lists: Logprobs, place: int, token: TokenLogprob) -> None:
    lists.text_offset.append(place)
    lists.token_logprobs.append(max(token.logprob, LOWEST_LOGPROB))
    lists.tokens.append(token_text(token.data))
    lists.top_logprobs.append(_top(token))


def _top(token: TokenLogprob) -> dict[str, float]:
    """The likeliest tokens and the one that came; of two that look alike, the likelier."""
    found: dict[str, float] = {}
    for data, logprob in (
        *((top.data, top.logprob) for top in token.top),
        (token.data, token.logprob),
    ):
        found.setdefault(token_text(data), max(logprob, LOWEST_LOGPROB))
    return found
