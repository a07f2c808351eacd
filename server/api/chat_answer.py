"""What the engine says → a chat completion, whole or in chunks; pure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import msgspec
from msgspec import UNSET, UnsetType

from engine import request as engine
from engine.request import Event, FinishReason, RequestDone, RequestFailed, TokenOutput
from server import sse
from server.api.chat_call import ChatCall
from server.chat import deltas as chat
from server.custom_tools import InputReader
from server.dispatch import Admission, Submitted, Trail
from server.errors import error_body
from server.generation import GeneratedChoice
from server.protocol.chat_completions import (
    AssistantMessage,
    ChatCompletion,
    Choice,
    ChunkChoice,
    ChunkHead,
    CompletionTokensDetails,
    CustomDelta,
    Delta,
    ExtraFields,
    FunctionDelta,
    Logprobs,
    PromptTokensDetails,
    Timings,
    TokenLogprob,
    ToolCallDelta,
    TopLogprob,
    Usage,
)
from server.protocol.messages import CustomCall, CustomToolCall, ToolCall

LOWEST_LOGPROB = -9999.0
"""Stands for −inf, which JSON does not have; the value that OpenAI sends."""

_encoder = msgspec.json.Encoder()


def completion(
    call: ChatCall, choices: Sequence[GeneratedChoice], done: RequestDone, trail: Trail
) -> ChatCompletion:
    """The whole answer."""
    return ChatCompletion(
        id=call.request.id,
        created=call.created,
        model=call.model,
        choices=[_choice(index, choice, call) for index, choice in enumerate(choices)],
        usage=usage(done, sum(choice.reasoning_tokens for choice in choices)),
        service_tier=call.service_tier,
        system_fingerprint=call.fingerprint,
        metadata=UNSET if call.metadata is None else call.metadata,
        timings=timings(done, call.request.n),
        extra_fields=extra_fields(trail),
    )


class ChunkEncoder:
    """The same answer as server-sent events; what is constant is encoded once."""

    def __init__(self, admission: Admission[Submitted[ChatCall]]) -> None:
        call = self._call = admission.value.call
        self._trail = admission.trail
        head = _encoder.encode(
            ChunkHead(
                call.request.id, call.created, call.model, call.service_tier, call.fingerprint
            )
        )
        usage = b',"usage":null' if call.include_usage else b""
        self._head = b"data: " + head[:-1] + b',"choices":['
        self._tail = b"]" + usage + b"}\n\n"
        self._readers = [call.new_reader(index) for index in range(call.request.n)]
        self._frames = [
            sse.Frame(self._chunk(ChunkChoice(index, Delta(content=sse.HOLE))))
            for index in range(call.request.n)
        ]
        self._inputs: dict[tuple[int, int], InputReader] = {}
        """Of the custom tools' calls: by choice and number of the call."""

    def opening(self) -> bytes:
        """The role of each choice."""
        delta = Delta(role="assistant", content="", refusal=None)
        return b"".join(self._chunk(ChunkChoice(i, delta)) for i in range(self._call.request.n))

    def feed(self, event: Event) -> bytes:
        """Chunks of one event; the last one brings the counts and `[DONE]`."""
        match event:
            case TokenOutput():
                return self._output(event)
            case RequestDone():
                return self._counts(event) + sse.DONE
            case RequestFailed():
                return sse.event(_encoder.encode(error_body(event.error)))

    def _output(self, output: TokenOutput) -> bytes:
        index = output.index
        reader = self._readers[index]
        piece = reader.piece(output)
        if isinstance(piece, str):
            return self._frames[index].fill(piece)
        chunks = [ChunkChoice(index, self._delta(index, delta)) for delta in piece]
        if output.logprobs:
            chunks = chunks or [ChunkChoice(index, Delta(content=""))]
            chunks[-1].logprobs = token_logprobs(output.logprobs)
        if output.finish_reason is not None:
            legacy = self._call.legacy_functions
            reason = finish_reason(output.finish_reason, reader.called, legacy)
            end = ChunkChoice(index, Delta(), None, reason, output.stop_reason)
            chunks.append(end)
        return b"".join(map(self._chunk, chunks))

    def _delta(self, choice: int, delta: chat.Delta) -> Delta:
        if isinstance(delta, chat.CallDelta):
            key = (choice, delta.index)
            if delta.name in self._call.customs:
                self._inputs[key] = InputReader()
            if reader := self._inputs.get(key):
                return _custom_delta(delta, reader.read(delta.arguments))
        return _delta(delta, self._call.legacy_functions)

    def _chunk(self, choice: ChunkChoice) -> bytes:
        return b"".join((self._head, _encoder.encode(choice), self._tail))

    def _counts(self, done: RequestDone) -> bytes:
        counts: dict[str, object] = {}
        if self._call.include_usage:
            thought = sum(reader.reasoning_tokens for reader in self._readers)
            counts["usage"] = usage(done, thought)
            counts["timings"] = timings(done, self._call.request.n)
        if self._trail.has_fallbacks:
            counts["extra_fields"] = extra_fields(self._trail)
        return (
            b"".join((self._head, b"],", _encoder.encode(counts)[1:], b"\n\n")) if counts else b""
        )


def usage(done: RequestDone, reasoning_tokens: int) -> Usage:
    """Token counts in OpenAI's words."""
    counts = done.usage
    return Usage(
        prompt_tokens=counts.prompt_tokens,
        completion_tokens=counts.completion_tokens,
        total_tokens=counts.prompt_tokens + counts.completion_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=counts.cached_tokens),
        completion_tokens_details=CompletionTokensDetails(
            reasoning_tokens=reasoning_tokens,
            accepted_prediction_tokens=counts.accepted_prediction_tokens,
            rejected_prediction_tokens=counts.rejected_prediction_tokens,
        ),
    )


def extra_fields(trail: Trail) -> ExtraFields | UnsetType:
    """Which model answered and which did not, where fallbacks were possible."""
    if not trail.has_fallbacks:
        return UNSET
    latency = round((time.monotonic() - trail.began) * 1000)
    return ExtraFields("ingle", trail.requested, latency, trail.attempts)


def timings(done: RequestDone, n: int) -> Timings:
    """Seconds → milliseconds and rates; the first token of each choice belongs to the prefill."""
    computed = done.usage.prompt_tokens - done.usage.cached_tokens
    generated = done.usage.completion_tokens
    queued, prefill, decode = done.timings.queued, done.timings.prefill, done.timings.decode
    return Timings(
        queue_ms=_milliseconds(queued),
        prompt_n=computed,
        prompt_ms=_milliseconds(prefill),
        prompt_per_second=_rate(computed, prefill),
        first_token_ms=_milliseconds(queued + prefill),
        predicted_n=generated,
        predicted_ms=_milliseconds(decode),
        predicted_per_second=_rate(max(0, generated - n), decode),
    )


def token_logprobs(tokens: Iterable[engine.TokenLogprob]) -> Logprobs:
    """Tokens with their exact bytes; text that splits a character shows U+FFFD."""
    return Logprobs(
        [
            TokenLogprob(
                _text(token.data),
                max(token.logprob, LOWEST_LOGPROB),
                list(token.data),
                [
                    TopLogprob(_text(top.data), max(top.logprob, LOWEST_LOGPROB), list(top.data))
                    for top in token.top
                ],
            )
            for token in tokens
        ]
    )


def finish_reason(reason: FinishReason, called: bool, legacy: bool) -> str:
    """An answer that ended with whole calls ended for their sake; a stop string may cut one."""
    if called and reason is FinishReason.STOP:
        return "function_call" if legacy else "tool_calls"
    return reason


def _delta(delta: chat.Delta, legacy: bool) -> Delta:
    match delta:
        case chat.ContentDelta():
            return Delta(content=delta.text)
        case chat.ReasoningDelta():
            return Delta(reasoning_content=delta.text, reasoning=delta.text)
        case chat.CallDelta():
            return _call_delta(delta, legacy)


def _call_delta(delta: chat.CallDelta, legacy: bool) -> Delta:
    function = FunctionDelta(name=delta.name or UNSET, arguments=delta.arguments)
    if legacy:
        return Delta(function_call=function)
    return _tool_delta(delta, "function", function=function)


def _custom_delta(delta: chat.CallDelta, text: str) -> Delta:
    custom = CustomDelta(name=delta.name or UNSET, input=text)
    return _tool_delta(delta, "custom", custom=custom)


def _tool_delta(
    delta: chat.CallDelta,
    kind: str,
    *,
    function: FunctionDelta | UnsetType = UNSET,
    custom: CustomDelta | UnsetType = UNSET,
) -> Delta:
    first = bool(delta.id)
    part = ToolCallDelta(
        index=delta.index,
        id=delta.id if first else UNSET,
        type=kind if first else UNSET,
        function=function,
        custom=custom,
    )
    return Delta(tool_calls=[part])


def tool_call(call: ToolCall, customs: frozenset[str]) -> ToolCall | CustomToolCall:
    """A call as it is answered: a custom tool's with its one argument as plain text."""
    function = call.function
    if function.name not in customs:
        return call
    reader = InputReader()
    text = reader.read(str(function.arguments)) + reader.finish()
    return CustomToolCall(id=call.id, custom=CustomCall(function.name, text))


def _choice(index: int, choice: GeneratedChoice, call: ChatCall) -> Choice:
    wants_logprobs = call.request.logprobs is not None
    calls, legacy = choice.calls, call.legacy_functions
    given = [tool_call(each, call.customs) for each in calls]
    return Choice(
        index=index,
        message=AssistantMessage(
            content=None if calls and not choice.content else choice.content,
            tool_calls=given if given and not legacy else UNSET,
            function_call=calls[0].function if calls and legacy else UNSET,
            reasoning_content=choice.reasoning or UNSET,
            reasoning=choice.reasoning or UNSET,
        ),
        finish_reason=finish_reason(choice.finish_reason, choice.called, legacy),
        logprobs=token_logprobs(choice.logprobs) if wants_logprobs else None,
        stop_reason=choice.stop_reason,
    )


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _rate(count: int, seconds: float) -> float:
    return round(count / seconds, 2) if seconds > 0 else 0.0
