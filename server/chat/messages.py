"""Messages in OpenAI's shape → the messages one template takes, with nothing lost on the way.

developer → system; several system messages → one where the template knows one; a role repeated
→ one message where the template wants turns to alternate; parts → text; arguments → an object or
a string; calls and results a template cannot print → text in the content.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from server.chat.errors import TemplateError
from server.chat.traits import Message, Traits

_THOUGHT_KEYS = ("reasoning_content", "reasoning", "thinking", "thought")
_NULL = {"type": "null"}
_JOINT = "\n\n"
WriteCalls = Callable[[Sequence[Message]], str]


def generic_calls(calls: Sequence[Message]) -> str:
    """The stated generic format: a JSON object between <tool_call> tags, one per call."""
    return "\n".join(
        "<tool_call>\n"
        + json.dumps(
            {"name": call["name"], "arguments": arguments_object(call)}, ensure_ascii=False
        )
        + "\n</tool_call>"
        for call in (item["function"] for item in calls)
    )


def arguments_object(function: Message) -> Any:
    """A call's arguments as a value. Text that is no JSON object is kept under "arguments"."""
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        return arguments or {}
    try:
        value = json.loads(arguments or "{}")
    except ValueError:
        value = arguments
    return value if isinstance(value, dict) else {"arguments": value}


def normalize(
    messages: Sequence[Message], traits: Traits, write_calls: WriteCalls = generic_calls
) -> list[Message]:
    """Adapt `messages` to `traits`. The input is not changed."""
    plain = [_plain(message, index) for index, message in enumerate(messages)]
    plain = _with_ids(plain, traits)
    plain = [adapted for message in plain for adapted in _assistant(message, traits, write_calls)]
    plain = plain if traits.many_calls or not traits.prints_calls else _results_in_turn(plain)
    plain = plain if traits.tool_role else [_result_as_user(message) for message in plain]
    plain = _place_system(plain, traits)
    plain = plain if traits.user_after_result else _join_results(plain)
    plain = _merge_repeats(plain, traits)
    return [_as_parts(m) for m in plain] if traits.content_parts else plain


def normalize_tools(tools: Sequence[Message], traits: Traits) -> list[Message]:
    """Tool definitions as the template takes them."""
    adapted = []
    for tool in tools:
        function = dict(tool.get("function", tool))
        if traits.full_tools:
            function.setdefault("description", "")
            function.setdefault("parameters", {"type": "object", "properties": {}})
        adapted.append(function if traits.bare_tools else {**tool, "function": function})
    return adapted


def simplify_tools(tools: Sequence[Message]) -> list[Message]:
    """Tools whose properties have one plain type and a description each."""
    simple = []
    for tool in tools:
        function = dict(tool.get("function", tool))
        function["description"] = function.get("description") or ""
        parameters = function.get("parameters") or {}
        function["parameters"] = {"type": "object", "properties": {}, **_simple(parameters)}
        simple.append({"type": "function", "function": function})
    return simple


def _simple(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    simple = dict(schema)
    for union in ("anyOf", "oneOf", "allOf"):
        branches = simple.pop(union, None)
        if isinstance(branches, list) and "type" not in simple:
            simple |= next((b for b in branches if isinstance(b, dict) and b != _NULL), {})
    kinds = simple.get("type", "string")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    simple["type"] = next((kind for kind in kinds if kind != "null"), "string")
    simple["description"] = simple.get("description") or ""
    for key in ("items", "additionalProperties"):
        if isinstance(simple.get(key), dict):
            simple[key] = _simple(simple[key])
    if isinstance(simple.get("properties"), dict):
        simple["properties"] = {k: _simple(v) for k, v in simple["properties"].items()}
    return simple


def _plain(message: Message, index: int) -> Message:
    """One message with its content as text and its thought under "reasoning_content"."""
    plain = {key: value for key, value in message.items() if value is not None}
    role = plain["role"]
    plain["role"] = {"developer": "system", "function": "tool"}.get(role, role)
    thought = next((plain[key] for key in _THOUGHT_KEYS if isinstance(plain.get(key), str)), "")
    for key in _THOUGHT_KEYS:
        plain.pop(key, None)
    plain["content"] = _text(message.get("content"), f"messages[{index}].content")
    if plain["role"] == "assistant":
        _read_calls(plain)
        if thought:
            plain["reasoning_content"] = thought
    return plain


def _read_calls(plain: Message) -> None:
    legacy = plain.pop("function_call", None)
    if legacy and not plain.get("tool_calls"):
        plain["tool_calls"] = [{"id": "", "type": "function", "function": legacy}]
    if not plain.get("tool_calls"):
        plain.pop("tool_calls", None)


def _text(content: Any, path: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for index, part in enumerate(content):
        text = part if isinstance(part, str) else part.get("text", part.get("refusal"))
        if not isinstance(text, str):
            kind = part.get("type", "unknown") if isinstance(part, dict) else type(part).__name__
            raise TemplateError(f"{path}[{index}]: a part of type {kind!r} cannot be rendered")
        texts.append(text)
    return "\n".join(texts)


def _with_ids(messages: list[Message], traits: Traits) -> list[Message]:
    """Give every call an id the template accepts, and every result the id and name of its call."""
    known: dict[str, tuple[str, str]] = {}
    waiting: list[tuple[str, str]] = []
    count = 0
    adapted = []
    for message in messages:
        if message.get("tool_calls"):
            waiting, calls = [], []
            for call in message["tool_calls"]:
                name = call["function"]["name"]
                call_id = _call_id(call.get("id") or f"call_{count}", name, count, traits)
                known[call.get("id", "")] = (call_id, name)
                waiting.append((call_id, name))
                calls.append({**call, "type": call.get("type", "function"), "id": call_id})
                count += 1
            message = {**message, "tool_calls": calls}
        elif message["role"] == "tool":
            given = message.get("tool_call_id", "")
            owner = known.get(given) if given else next(iter(waiting), None)
            waiting = [item for item in waiting if item != owner]
            message = dict(message)
            if owner:
                message["tool_call_id"] = owner[0]
                message.setdefault("name", owner[1])
            elif traits.call_ids == "nine":
                message["tool_call_id"] = _call_id(given or "call_0", "", 0, traits)
        adapted.append(message)
    return adapted


def _call_id(given: str, name: str, count: int, traits: Traits) -> str:
    if traits.call_ids == "named":
        return f"functions.{name}:{count}"
    if traits.call_ids == "nine" and not (len(given) == 9 and given.isalnum()):
        return hashlib.blake2b(given.encode(), digest_size=8).hexdigest()[:9]
    return given


def _assistant(message: Message, traits: Traits, write_calls: WriteCalls) -> Iterator[Message]:
    """An assistant turn as one or more messages the template prints without loss."""
    thought = message.pop("reasoning_content", "")
    calls = message.get("tool_calls")
    if not calls or not traits.prints_calls:
        if calls:
            message = {key: value for key, value in message.items() if key != "tool_calls"}
            lead = message["content"] + "\n" if message["content"] else ""
            message["content"] = lead + write_calls(calls)
        yield _with_thought(message, thought, traits)
        return
    content = message["content"]
    if content and not traits.content_with_calls:
        alone = {key: value for key, value in message.items() if key != "tool_calls"}
        yield _with_thought(alone, thought, traits)
        content = thought = ""
    groups = [calls] if traits.many_calls else [[call] for call in calls]
    for index, group in enumerate(groups):
        turn = {**message, "tool_calls": [_with_arguments(call, traits) for call in group]}
        turn["content"] = content if index == 0 else ""
        if not turn["content"]:
            _empty_content(turn, traits)
        yield _with_thought(turn, thought if index == 0 else "", traits)


def _empty_content(message: Message, traits: Traits) -> None:
    if traits.call_content == "absent":
        del message["content"]
    elif traits.call_content == "null":
        message["content"] = None


def _with_arguments(call: Message, traits: Traits) -> Message:
    function = dict(call["function"])
    given = function.get("arguments")
    if traits.arguments == "object":
        function["arguments"] = arguments_object(function)
    elif not isinstance(given, str):
        function["arguments"] = json.dumps(given or {}, ensure_ascii=False)
    elif not given.strip():
        function["arguments"] = "{}"
    return {**call, "function": function}


def _with_thought(message: Message, thought: str, traits: Traits) -> Message:
    if not thought or not traits.reasoning:
        return message
    text = message.get("content") or ""
    if traits.reasoning == "blocks":
        blocks = [{"type": "thoughts", "text": thought}, {"type": "response", "text": text}]
        return {**message, "content": {"blocks": blocks[: 2 if text else 1]}}
    if traits.reasoning != "parts":
        return {**message, traits.reasoning: thought}
    parts = [{"type": "thinking", "thinking": thought}]
    return {**message, "content": parts + ([{"type": "text", "text": text}] if text else [])}


def _results_in_turn(messages: list[Message]) -> list[Message]:
    """After single-call turns made of one: each call is followed by its own result."""
    ordered: list[Message] = []
    results: dict[str, Message] = {
        m["tool_call_id"]: m for m in messages if m["role"] == "tool" and m.get("tool_call_id")
    }
    placed: set[int] = set()
    for message in messages:
        if id(message) in placed:
            continue
        ordered.append(message)
        for call in message.get("tool_calls") or ():
            result = results.get(call["id"])
            if result is not None and id(result) not in placed:
                ordered.append(result)
                placed.add(id(result))
    return ordered


def _result_as_user(message: Message) -> Message:
    if message["role"] != "tool":
        return message
    text = f"<tool_response>\n{message['content']}\n</tool_response>"
    return {"role": "user", "content": text}


def _join_results(messages: list[Message]) -> list[Message]:
    """What a user says right after a result stands in it, where it may not stand behind it."""
    joined: list[Message] = []
    for message in messages:
        if message["role"] == "user" and joined and joined[-1]["role"] == "tool":
            joined[-1:] = _joined([joined[-1], message])
        else:
            joined.append(message)
    return joined


def _place_system(messages: list[Message], traits: Traits) -> list[Message]:
    """Leading system messages become one; later ones a user's words where they have no place."""
    lead = 0
    while lead < len(messages) and messages[lead]["role"] == "system":
        lead += 1
    head, rest = messages[:lead], messages[lead:]
    if traits.system != "anywhere":
        head = _joined(head)
        rest = [{**m, "role": "user"} if m["role"] == "system" else m for m in rest]
    if traits.system == "none":
        head = [{**m, "role": "user"} for m in head]
        if head and rest and rest[0]["role"] == "user":
            head, rest = [], [*_joined([*head, rest[0]]), *rest[1:]]
    return head + rest


def _joined(messages: Iterable[Message]) -> list[Message]:
    """The messages as one: the first, with the contents of all."""
    items = list(messages)
    if len(items) < 2:
        return items
    text = _JOINT.join(m["content"] for m in items if m["content"])
    return [{**items[0], "content": text}]


def _merge_repeats(messages: list[Message], traits: Traits) -> list[Message]:
    repeats = {"user": traits.user_repeats, "assistant": traits.assistant_repeats}
    merged: list[Message] = []
    for message in messages:
        last = merged[-1] if merged else None
        role = message["role"]
        follows = last is not None and last["role"] == role and not repeats.get(role, True)
        if last and follows and _mergeable(last) and _mergeable(message):
            merged[-1] = _joined([last, message])[0]
        else:
            merged.append(message)
    return merged


def _mergeable(message: Message) -> bool:
    return isinstance(message.get("content"), str) and not message.get("tool_calls")


def _as_parts(message: Message) -> Message:
    if not isinstance(message.get("content"), str):
        return message
    text = message["content"]
    return {**message, "content": [{"type": "text", "text": text}] if text else []}
