"""Assistant turns for round trips, and the round trip itself."""

import json
from typing import Any

from server.chat import CallDelta, ChatFormat, ContentDelta, Delta, ReasoningDelta

Message = dict[str, Any]

USER: list[Message] = [
    {"role": "system", "content": "You are terse."},
    {"role": "user", "content": "What is the weather in Paris and in Rome?"},
]


def tool(name: str, properties: Message) -> Message:
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": f"Does {name}.",
            "parameters": {
                "type": "object",
                "properties": properties,
                "required": list(properties)[:1],
            },
        },
    }


TOOLS = [
    tool(
        "get_weather",
        {
            "city": {"type": "string", "description": "Where."},
            "days": {"type": "integer", "description": "How long."},
            "unit": {"type": "string", "enum": ["C", "F"], "description": "What."},
        },
    ),
    tool(
        "store",
        {
            "text": {"type": "string", "description": "What."},
            "code": {"type": "string", "description": "How."},
            "options": {"type": "object", "description": "Which."},
            "items": {"type": "array", "items": {"type": "string"}, "description": "Those."},
            "flag": {"type": "boolean", "description": "Whether."},
            "ratio": {"type": "number", "description": "How much."},
            "nothing": {"type": ["object", "null"], "description": "None."},
        },
    ),
    tool("now", {}),
]


def call(name: str, arguments: Message, call_id: str = "q7W2e9R4t") -> Message:
    text = json.dumps(arguments, ensure_ascii=False)
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": text}}


def turn(content: str | None = None, *calls: Message, thought: str = "") -> Message:
    message: Message = {"role": "assistant", "content": content}
    if thought:
        message["reasoning_content"] = thought
    if calls:
        message["tool_calls"] = list(calls)
    return message


PARIS = call("get_weather", {"city": "Paris", "days": 2})
ROME = call("get_weather", {"city": "Rome"}, "m3N8b5V1c")

TURNS: dict[str, Message] = {
    "content": turn("It is sunny in Paris."),
    "content-lines": turn('First line.\n\n- "second" <b>line</b>\n- `code { x: [1, 2] }`'),
    "content-unicode": turn("Grüße, 世界 🌍!"),
    "call": turn(None, PARIS),
    "calls": turn(None, PARIS, ROME),
    "content-call": turn("I will look.", PARIS),
    "content-calls": turn("I will look.", PARIS, ROME),
    "reasoning": turn("It is sunny.", thought="The user asks for the weather.\nI know it."),
    "reasoning-call": turn(None, PARIS, thought="I need the tool."),
    "reasoning-content-call": turn("I will look.", PARIS, thought="I need the tool."),
    "nested": turn(None, call("store", {"text": "t", "options": {"a": {"b": [1, {"c": "d"}]}}})),
    "unicode": turn(None, call("store", {"text": "Grüße, 世界 🌍 “x” é"})),
    "quotes": turn(None, call("store", {"text": 'say "hi", it\'s \\ fine', "code": "'a'"})),
    "newlines": turn(None, call("store", {"text": "one\ntwo\n\n  three\ttab"})),
    "code": turn(None, call("store", {"code": 'if (a < b && c > d) { return {"x": [1]}; }'})),
    "empty": turn(None, call("now", {})),
    "empty-text": turn(None, call("store", {"text": "", "code": ""})),
    "number-text": turn(None, call("store", {"text": "42", "code": "true"})),
    "types": turn(
        None,
        call(
            "store",
            {"text": "x", "flag": True, "ratio": -1.5, "items": ["a", "b, c"], "nothing": None},
        ),
    ),
    "false": turn(None, call("store", {"text": "null", "flag": False, "ratio": 3})),
}


def written(form: ChatFormat, message: Message, **settings: Any) -> str:
    """What the template prints of `message` after the generation prompt."""
    prompt = form.render(USER, TOOLS, **settings)
    text = form.render([*USER, message], TOOLS, add_generation_prompt=False, **settings)
    assert text.startswith(prompt), (prompt[-80:], text[len(prompt) - 80 :])
    return text[len(prompt) :]


def plain(message: Message) -> Message:
    """What must survive: text, thought, names and arguments."""
    return {
        "content": message.get("content") or "",
        "thought": message.get("reasoning_content") or "",
        "calls": [
            (c["function"]["name"], json.loads(c["function"]["arguments"]))
            for c in message.get("tool_calls") or ()
        ],
    }


def summed(deltas: list[Delta]) -> Message:
    """The message that streamed deltas add up to; checks their order on the way."""
    content, thought, calls = "", "", []
    for delta in deltas:
        match delta:
            case ContentDelta(text):
                content += text
            case ReasoningDelta(text):
                thought += text
            case CallDelta(index=index, arguments=arguments, id=call_id, name=name):
                if call_id:
                    assert index == len(calls) and name
                    calls.append(call(name, {}, call_id))
                    calls[-1]["function"]["arguments"] = ""
                assert index == len(calls) - 1 and (call_id or not name)
                calls[index]["function"]["arguments"] += arguments
    return turn(content, *calls, thought=thought)


def parsed(form: ChatFormat, text: str, step: int = 0, prompt: str | None = None) -> Message:
    """Parse `text` whole, or `step` characters at a time."""
    parser = form.parser(TOOLS, prompt=prompt)
    size = step or max(len(text), 1)
    deltas: list[Delta] = []
    for start in range(0, len(text), size):
        deltas += parser.feed(text[start : start + size])
    deltas += parser.finish()
    message = parser.message()
    streamed = summed(deltas)
    assert (streamed["content"] or None) == (message["content"] or None)
    assert streamed.get("reasoning_content") == message.get("reasoning_content")
    assert streamed.get("tool_calls") == message.get("tool_calls")
    return message
