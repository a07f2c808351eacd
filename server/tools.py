"""tools and tool_choice, or functions and function_call: what may be called, what must be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from server.custom_tools import read_custom
from server.decode import check_types
from server.errors import InvalidRequest, Loc, UnsupportedField, quote
from server.protocol.chat_completions import ChatCompletionRequest

MAX_NAME_CHARS = 128
MAX_TOOLS = 1024
FUNCTION_TYPES = {"description": str, "parameters": dict, "strict": bool}


class Toolset(Struct, frozen=True):
    """The tools of one request."""

    offered: tuple[dict[str, Any], ...] = ()
    """Definitions in OpenAI's shape, for the template; empty where none may be called."""
    callable: tuple[dict[str, Any], ...] = ()
    """Those that may be called."""
    must_call: bool = False
    parallel: bool = True
    legacy: bool = False
    """The request speaks of functions: so does the answer."""
    customs: frozenset[str] = frozenset()
    """Names of the custom tools among them."""

    def schema_loc(self, name: str) -> Loc:
        """Where in the request the schema of a tool stands; of a custom tool, its format."""
        index = [tool["function"]["name"] for tool in self.offered].index(name)
        if self.legacy:
            return ("body", "functions", index, "parameters")
        kind = ("custom", "format") if name in self.customs else ("function", "parameters")
        return ("body", "tools", index, *kind)


def read_toolset(wire: ChatCompletionRequest) -> Toolset | None:
    """None where the request has no tools. Raises InvalidRequest with the field's path."""
    if wire.tools and wire.functions:
        raise InvalidRequest(
            "functions cannot be combined with tools: they are the older form of them",
            loc=("body", "functions"),
        )
    legacy = not wire.tools and bool(wire.functions)
    choices = {"tool_choice": wire.tool_choice, "function_call": wire.function_call}
    field, other = ("function_call", "tool_choice") if legacy else (*choices,)
    choice = choices[field]
    offered = [{"type": "function", "function": each} for each in wire.functions or ()]
    offered = offered if legacy else list(wire.tools or ())
    _refuse_choice(other, choices[other], "tools" if legacy else "functions")
    if not offered:
        _refuse_choice(field, choice, "tools")
        return None
    by_name = _by_name(offered, legacy)
    customs = frozenset(
        name
        for name, tool in zip(by_name, offered, strict=True)
        if not legacy and tool.get("type") == "custom"
    )
    parallel = wire.parallel_tool_calls is not False and not legacy
    if choice == "none":
        return Toolset(legacy=legacy)
    names, must_call = _choice(choice, (*by_name,), ("body", field))
    return Toolset(
        offered=tuple(shown for shown, _ in by_name.values()),
        callable=tuple(by_name[name][1] for name in names),
        must_call=must_call,
        parallel=parallel,
        legacy=legacy,
        customs=customs,
    )


def _refuse_choice(field: str, choice: Any, missing: str) -> None:
    if choice not in (None, "none", "auto"):
        raise InvalidRequest(
            f"{field} is {quote(choice)}, but there are no {missing}", loc=("body", field)
        )


_Definition = dict[str, Any]


def _by_name(tools: Sequence[Any], legacy: bool) -> dict[str, tuple[_Definition, _Definition]]:
    """Each tool checked, in order, by the name of its function: as shown, as constrained."""
    by_name: dict[str, tuple[_Definition, _Definition]] = {}
    if len(tools) > MAX_TOOLS:
        raise InvalidRequest(
            f"there may be at most {MAX_TOOLS} tools, but there are {len(tools)}",
            loc=("body", "functions" if legacy else "tools"),
        )
    for index, tool in enumerate(tools):
        loc: Loc = ("body", "functions" if legacy else "tools", index)
        function, constrained, at = _function(tool, legacy, loc)
        name = function.get("name") if isinstance(function, Mapping) else None
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARS:
            raise InvalidRequest(
                f"a function needs a name of 1 to {MAX_NAME_CHARS} characters, not {quote(name)}",
                loc=at,
            )
        if name in by_name:
            raise InvalidRequest(f"there are two functions of the name {quote(name)}", loc=at)
        assert isinstance(function, Mapping)
        check_types(function, FUNCTION_TYPES, at[:-1])
        by_name[name] = (
            {"type": "function", "function": dict(function)},
            {"type": "function", "function": dict(constrained)},
        )
    return by_name


def _function(tool: Mapping[str, Any], legacy: bool, loc: Loc) -> tuple[Any, Any, Loc]:
    """The function of a tool as shown and as constrained, and where its name stands."""
    kind = tool.get("type", "function")
    if kind == "custom":
        return *read_custom(tool, loc), (*loc, "custom", "name")
    if kind != "function":
        raise UnsupportedField(
            f"a tool of type {quote(kind)} is not supported; function and custom are",
            loc=(*loc, "type"),
        )
    function = tool.get("function")
    return function, function, (*loc, "name") if legacy else (*loc, "function", "name")


def _choice(choice: Any, names: tuple[str, ...], loc: Loc) -> tuple[tuple[str, ...], bool]:
    """(functions that may be called, whether one must be)."""
    if choice in (None, "auto"):
        return names, False
    if choice in ("required", "any"):
        return names, True
    if isinstance(choice, Mapping):
        if choice.get("type") == "allowed_tools":
            return _allowed(choice.get("allowed_tools", choice), names, loc)
        name = _name_in(choice)
        if name is not None:
            return (_known(name, names, loc),), True
    raise InvalidRequest(
        f"{loc[1]} must be none, auto, required, a function or allowed_tools, but is "
        f"{quote(choice)}",
        loc=loc,
    )


def _allowed(allowed: Any, names: tuple[str, ...], loc: Loc) -> tuple[tuple[str, ...], bool]:
    listed = allowed.get("tools") if isinstance(allowed, Mapping) else None
    mode = allowed.get("mode", "auto") if isinstance(allowed, Mapping) else None
    if not isinstance(listed, list) or not listed or mode not in ("auto", "required"):
        raise InvalidRequest(
            "allowed_tools needs mode (auto or required) and a list of tools",
            loc=(*loc, "allowed_tools"),
        )
    chosen = []
    for index, tool in enumerate(listed):
        name, at = _name_in(tool), (*loc, "allowed_tools", "tools", index)
        if name is None:
            raise InvalidRequest(
                f"a tool is named by type and function or custom, not by {quote(tool)}", loc=at
            )
        chosen.append(_known(name, names, at))
    return tuple(dict.fromkeys(chosen)), mode == "required"


def _name_in(reference: Any) -> str | None:
    """The tool that `{"type", "function": {"name"}}` points at, also where the name stands bare."""
    if not isinstance(reference, Mapping):
        return None
    kind = reference.get("type", "function")
    named = reference.get(kind, reference) if kind in ("function", "custom") else None
    name = named.get("name") if isinstance(named, Mapping) else None
    return name if isinstance(name, str) else None


def _known(name: str, names: tuple[str, ...], loc: Loc) -> str:
    if name not in names:
        raise InvalidRequest(
            f"{loc[1]} names {quote(name)}, but the functions are: {', '.join(names)}", loc=loc
        )
    return name
