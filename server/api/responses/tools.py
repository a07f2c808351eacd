"""tools and tool_choice of a response → those of a chat completion; other kinds are skipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from server.errors import InvalidRequest, Loc, quote

TOOLS_LOC: Loc = ("body", "tools")
CHOICE_LOC: Loc = ("body", "tool_choice")
FUNCTION_FIELDS = ("name", "description", "parameters", "strict")
CUSTOM_FIELDS = ("name", "description", "format")


class ChatTools(Struct):
    """`places[i]` is where tool i of the chat completion stands in the request."""

    tools: list[dict[str, Any]] = []
    places: list[int] = []
    ignored: list[str] = []


def chat_tools(tools: Sequence[Mapping[str, Any]]) -> ChatTools:
    """Functions and custom tools in the other shape; what only OpenAI's servers run is left out."""
    found = ChatTools()
    for index, tool in enumerate(tools):
        kind = tool.get("type")
        if not isinstance(kind, str):
            raise InvalidRequest("a tool needs a type", loc=(*TOOLS_LOC, index, "type"))
        fields = {"function": FUNCTION_FIELDS, "custom": CUSTOM_FIELDS}.get(kind)
        if fields is None:
            found.ignored.append(f"tools[{index}] ({kind})")
            continue
        # Some clients nest the definition as chat completions do.
        nested = tool.get(kind)
        given = nested if isinstance(nested, Mapping) else tool
        definition = {name: given[name] for name in fields if given.get(name) is not None}
        found.tools.append({"type": kind, kind: definition})
        found.places.append(index)
    return found


def chat_tool_choice(choice: str | Mapping[str, Any] | None) -> Any:
    """The choice in the other shape. Raises InvalidRequest."""
    if choice is None or isinstance(choice, str):
        return choice
    kind = choice.get("type")
    if kind == "allowed_tools":
        return _allowed(choice)
    if kind not in ("function", "custom"):
        raise InvalidRequest(
            f"tool_choice must be none, auto, required, a function, a custom tool or "
            f"allowed_tools, but is {quote(choice)}",
            loc=CHOICE_LOC,
        )
    return {"type": kind, kind: {"name": _name(choice)}}


def _allowed(choice: Mapping[str, Any]) -> dict[str, Any]:
    """Tools that are never offered here need no allowing."""
    allowed = choice.get("allowed_tools", choice)
    listed = allowed.get("tools") if isinstance(allowed, Mapping) else None
    tools = [
        {"type": "function", "function": {"name": _name(tool)}}
        for tool in (listed if isinstance(listed, list) else ())
        if isinstance(tool, Mapping) and tool.get("type") in ("function", "custom")
    ]
    mode = allowed.get("mode") if isinstance(allowed, Mapping) else None
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def _name(choice: Mapping[str, Any]) -> Any:
    nested = choice.get(str(choice.get("type")))
    return nested.get("name") if isinstance(nested, Mapping) else choice.get("name")
