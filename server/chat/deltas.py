"""What a parser hands on, in OpenAI's shape: text, thoughts, and calls in fragments."""

import hashlib
from typing import Any

from msgspec import Struct


class ContentDelta(Struct, frozen=True, tag="content"):
    text: str


class ReasoningDelta(Struct, frozen=True, tag="reasoning"):
    text: str


class CallDelta(Struct, frozen=True, tag="call"):
    """The first delta of a call carries its id and name, later ones only more arguments."""

    index: int
    arguments: str = ""
    id: str = ""
    name: str = ""


Delta = ContentDelta | ReasoningDelta | CallDelta


def delta_fields(delta: Delta) -> dict[str, Any]:
    """The delta as the fields of a chat.completion.chunk's `delta`."""
    if isinstance(delta, ContentDelta):
        return {"content": delta.text}
    if isinstance(delta, ReasoningDelta):
        return {"reasoning_content": delta.text}
    call: dict[str, Any] = {"index": delta.index, "function": {"arguments": delta.arguments}}
    if delta.id:
        call |= {"id": delta.id, "type": "function"}
        call["function"] = {"name": delta.name, "arguments": delta.arguments}
    return {"tool_calls": [call]}


class Call:
    """A call as it grows."""

    __slots__ = ("arguments", "id", "name")

    def __init__(self, call_id: str, name: str) -> None:
        self.id = call_id
        self.name = name
        self.arguments: list[str] = []


class Collector:
    """Collects deltas for the stream, and the message they add up to."""

    def __init__(self, seed: str, id_length: int = 0) -> None:
        self._seed = seed
        self._id_length = id_length
        self._deltas: list[Delta] = []
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self.calls: list[Call] = []

    def content(self, text: str) -> None:
        if text:
            self._content.append(text)
            self._deltas.append(ContentDelta(text))

    def reasoning(self, text: str) -> None:
        if text:
            self._reasoning.append(text)
            self._deltas.append(ReasoningDelta(text))

    def open_call(self, name: str, call_id: str = "") -> None:
        call = Call(call_id or self._new_id(), name)
        self.calls.append(call)
        self._deltas.append(CallDelta(len(self.calls) - 1, id=call.id, name=name))

    def arguments(self, fragment: str) -> None:
        if fragment:
            self.calls[-1].arguments.append(fragment)
            self._deltas.append(CallDelta(len(self.calls) - 1, fragment))

    @property
    def has_content(self) -> bool:
        return bool(self._content)

    def _new_id(self) -> str:
        text = f"{self._seed}/{len(self.calls)}".encode()
        digest = hashlib.blake2b(text, digest_size=12).hexdigest()
        return digest[: self._id_length] if self._id_length else f"call_{digest}"

    def take(self) -> list[Delta]:
        """The deltas since the last time, neighbours of one kind joined."""
        joined: list[Delta] = []
        for delta in self._deltas:
            both = _joined(joined[-1], delta) if joined else None
            if both is None:
                joined.append(delta)
            else:
                joined[-1] = both
        self._deltas.clear()
        return joined

    def reset(self) -> None:
        """Forget what was collected: it stood in the prompt."""
        self._deltas.clear()
        self._content.clear()
        self._reasoning.clear()
        self.calls.clear()

    def message(self) -> dict[str, Any]:
        """The finished message in OpenAI's shape; keys without a value are left out."""
        content, reasoning = "".join(self._content), "".join(self._reasoning)
        message: dict[str, Any] = {"role": "assistant", "content": content}
        if reasoning:
            message["reasoning_content"] = reasoning
        if self.calls:
            message["content"] = content or None
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": "".join(call.arguments)},
                }
                for call in self.calls
            ]
        return message


def _joined(last: Delta, delta: Delta) -> Delta | None:
    """Two neighbouring deltas as one, where they are of one kind."""
    if isinstance(delta, ContentDelta) and isinstance(last, ContentDelta):
        return ContentDelta(last.text + delta.text)
    if isinstance(delta, ReasoningDelta) and isinstance(last, ReasoningDelta):
        return ReasoningDelta(last.text + delta.text)
    if isinstance(delta, CallDelta) and isinstance(last, CallDelta) and not delta.id:
        return CallDelta(last.index, last.arguments + delta.arguments, last.id, last.name)
    return None
