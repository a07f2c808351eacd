"""What a template takes and prints, found by rendering probes and looking for their words."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal, Protocol

from msgspec import Struct

from server.chat.errors import TemplateError

Message = dict[str, Any]


class Render(Protocol):
    """`ChatTemplate.render_exactly`."""

    def __call__(
        self,
        messages: Sequence[Message],
        tools: Sequence[Message] | None = None,
        add_generation_prompt: bool = True,
        **kwargs: Any,
    ) -> str: ...


class Traits(Struct, frozen=True):
    """What a template takes. The defaults describe the easiest one."""

    content_parts: bool = False  # content must be a list of parts
    system: Literal["anywhere", "first", "none"] = "anywhere"
    user_repeats: bool = True  # user after user
    assistant_repeats: bool = True
    prints_tools: bool = False
    bare_tools: bool = False  # wants tool["function"] instead of the tool
    full_tools: bool = False  # fails on a tool without description and parameters
    prints_calls: bool = False
    call_content: Literal["empty", "null", "absent"] = "empty"  # beside calls, without content
    content_with_calls: bool = False
    many_calls: bool = False
    arguments: Literal["object", "string"] = "object"
    call_ids: Literal["any", "nine", "named"] = "any"
    tool_role: bool = False
    user_after_result: bool = True  # before the assistant has answered it
    reasoning: str = ""  # the key a thought is read from; or "parts", "blocks" of content


# Words no template prints of itself, and whose beginnings differ.
USER, USER2 = "Vquestion7", "Jquestion8"
SYSTEM, SYSTEM2 = "Rpolicy7", "Ypolicy8"
CONTENT, CONTENT2 = "Kreply7", "Zreply8"
THOUGHT = "Hmusing7"
NAME, NAME2 = "wprobe_one", "gprobe_two"
KEY, KEY2 = "akey_one", "bkey_two"  # in order: some templates sort
VALUE, VALUE2 = "Qvalue7", "Nvalue8"
RESULT = "Lresult7"
ID, ID2 = "q7W2e9R4t", "m3N8b5V1c"  # nine letters and digits, as Mistral's templates demand
LONG_ID = "call_q7W2e9R4t0p5"

PARAMETERS = {
    "type": "object",
    "properties": {
        KEY: {"type": "string", "description": "First."},
        KEY2: {"type": "integer", "description": "Second."},
    },
    "required": [KEY],
}


def probe_tool(name: str = NAME, parameters: Message | None = None) -> Message:
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": "A probe.",
            "parameters": PARAMETERS if parameters is None else parameters,
        },
    }


def probe_call(name: str, arguments: object, call_id: str) -> Message:
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def probe_traits(render: Render, attributes: Iterable[str]) -> Traits:
    """Find out what the template behind `render` takes. Raises TemplateError only at a limit."""
    return _Prober(render).traits(attributes)


class _Prober:
    def __init__(self, render: Render) -> None:
        self._render = render
        self._parts = False

    def traits(self, attributes: Iterable[str]) -> Traits:
        self._parts = self._wants_parts()
        found: dict[str, Any] = {"content_parts": self._parts, "system": self._system()}
        found["user_repeats"] = self._prints([self._user(), self._user(USER2)], USER, USER2)
        doubled = [self._user(), self._reply(), self._reply(CONTENT2), self._user(USER2)]
        found["assistant_repeats"] = self._prints(doubled, CONTENT, CONTENT2)
        found |= self._tools()
        found |= self._calls()
        found["reasoning"] = self._reasoning(attributes, found)
        found["content_with_calls"] = found["prints_calls"] and self._content_with_calls(found)
        found["tool_role"] = self._tool_role(found)
        if found["tool_role"]:
            found["user_after_result"] = self._user_after_result(found)
        return Traits(**found)

    def _text(self, text: str) -> Any:
        return [{"type": "text", "text": text}] if self._parts else text

    def _user(self, text: str = USER) -> Message:
        return {"role": "user", "content": self._text(text)}

    def _reply(self, text: str = CONTENT) -> Message:
        return {"role": "assistant", "content": self._text(text)}

    def _try(self, messages: Sequence[Message], tools: Sequence[Message] | None = None) -> str:
        try:
            return self._render(messages, tools, add_generation_prompt=False)
        except TemplateError as error:
            if error.kind == "limit":
                raise  # it would take as long each time
            return ""

    def _prints(self, messages: Sequence[Message], *words: str) -> bool:
        """Whether the words come out in this order."""
        text, position = self._try(messages), 0
        for word in words:
            position = text.find(word, position)
            if position < 0:
                return False
        return True

    def _wants_parts(self) -> bool:
        plain = self._try([{"role": "user", "content": USER}])
        parts = self._try([{"role": "user", "content": [{"type": "text", "text": USER}]}])
        return USER not in plain and USER in parts

    def _system(self) -> str:
        first = {"role": "system", "content": self._text(SYSTEM)}
        later = {"role": "system", "content": self._text(SYSTEM2)}
        if not self._prints([first, self._user()], SYSTEM, USER):
            return "none"
        mixed = [first, self._user(), self._reply(), later, self._user(USER2)]
        words = (SYSTEM, USER, CONTENT, SYSTEM2, USER2)
        return "anywhere" if self._prints(mixed, *words) else "first"

    def _tools(self) -> dict[str, bool]:
        tool = probe_tool()
        small: Message = {"type": "function", "function": {"name": NAME}}
        wrapped = NAME in self._try([self._user()], [tool])
        bare = not wrapped and NAME in self._try([self._user()], [tool["function"]])
        minimal = NAME in self._try([self._user()], [small["function"] if bare else small])
        return {
            "prints_tools": wrapped or bare,
            "bare_tools": bare,
            "full_tools": (wrapped or bare) and not minimal,
        }

    def _calls(self) -> dict[str, Any]:
        """A way of handing over a call that the template prints whole."""
        for call_ids in ("any", "nine", "named"):
            ways = [self._call_way(content, call_ids) for content in ("empty", "null", "absent")]
            works = [way for way in ways if way is not None]
            if works:
                # Some templates wrap even empty content: the shortest way is the plainest.
                found = min(works, key=lambda way: len(way[1]))[0]
                several = self._try(self._call_turn(found, {KEY: VALUE}, {KEY: VALUE2}))
                many = _has(several, VALUE, VALUE2, NAME2)
                return {**found, "prints_calls": True, "many_calls": many}
        return {"prints_calls": False}

    def _call_way(self, content: str, call_ids: str) -> tuple[dict[str, Any], str] | None:
        """One way of handing over a call and what is printed, if that is all of it."""
        found = {"call_content": content, "call_ids": call_ids, "arguments": "object"}
        as_object = self._try(self._call_turn(found, {KEY: VALUE}))
        as_text = self._try(self._call_turn(found, RAW_ARGUMENTS))
        if _has(as_object, NAME, KEY, VALUE):
            if _same_but_arguments(as_object, as_text):
                found["arguments"] = "string"
            return found, as_object
        found["arguments"] = "string"
        return (found, as_text) if _has(as_text, NAME, RAW_ARGUMENTS) else None

    def _call_turn(self, found: dict[str, Any], *arguments: object, **extra: Any) -> list[Message]:
        calls = []
        for index, (name, value) in enumerate(zip((NAME, NAME2), arguments, strict=False)):
            if found["arguments"] == "string" and not isinstance(value, str):
                value = json.dumps(value)
            call_id = {
                "any": LONG_ID + str(index),
                "nine": (ID, ID2)[index],
                "named": f"functions.{name}:{index}",
            }[found["call_ids"]]
            calls.append(probe_call(name, value, call_id))
        message: Message = {"role": "assistant", "tool_calls": calls}
        if found["call_content"] != "absent":
            message["content"] = "" if found["call_content"] == "empty" else None
        return [self._user(), {**message, **extra}]

    def _content_with_calls(self, found: dict[str, Any]) -> bool:
        value = {KEY: VALUE}
        text = self._try(self._call_turn(found, value, content=self._text(CONTENT)))
        if not _has(text, CONTENT, NAME, VALUE):
            return False
        key = found["reasoning"]
        if not key or key in ("parts", "blocks"):
            return True
        # Some templates print content beside a call as a thought: then it must stand alone.
        thought = self._try(self._call_turn(found, value, **{key: THOUGHT}))
        return THOUGHT not in thought or thought.split(THOUGHT)[0] != text.split(CONTENT)[0]

    def _tool_role(self, found: dict[str, Any]) -> bool:
        return RESULT in self._try(self._result_turn(found))

    def _user_after_result(self, found: dict[str, Any]) -> bool:
        return _has(self._try([*self._result_turn(found), self._user(USER2)]), RESULT, USER2)

    def _result_turn(self, found: dict[str, Any]) -> list[Message]:
        if not found["prints_calls"]:
            turn = [self._user(), self._reply()]
            call_id = ID
        else:
            turn = self._call_turn(found, {KEY: VALUE})
            call_id = turn[-1]["tool_calls"][0]["id"]
        result = {
            "role": "tool",
            "content": self._text(RESULT),
            "tool_call_id": call_id,
            "name": NAME,
        }
        return [*turn, result]

    def _reasoning(self, attributes: Iterable[str], found: dict[str, Any]) -> str:
        for key in _reasoning_keys(attributes):
            if self._prints([self._user(), {**self._reply(), key: THOUGHT}], THOUGHT):
                return key
            if found["prints_calls"]:
                turn = self._call_turn(found, {KEY: VALUE}, **{key: THOUGHT})
                if THOUGHT in self._try(turn):
                    return key
        parts = [{"type": "thinking", "thinking": THOUGHT}, {"type": "text", "text": CONTENT}]
        inline = self._try([self._user(), {"role": "assistant", "content": parts}])
        if _understood(inline):
            return "parts"
        blocks = [{"type": "thoughts", "text": THOUGHT}, {"type": "response", "text": CONTENT}]
        message = {"role": "assistant", "content": {"blocks": blocks}}
        return "blocks" if _understood(self._try([self._user(), message])) else ""


RAW_ARGUMENTS = json.dumps({KEY: VALUE}, separators=(", ", ":  "))  # spaced as nobody spaces


def _understood(text: str) -> bool:
    """Whether content in pieces came out, and not as the list that it is."""
    return _has(text, THOUGHT, CONTENT) and "'type'" not in text and '"type"' not in text


def _has(text: str, *words: str) -> bool:
    return all(word in text for word in words)


def _same_but_arguments(as_object: str, as_text: str) -> bool:
    """Whether a string of arguments is printed in the object's place, letter by letter."""
    if RAW_ARGUMENTS not in as_text:
        return False
    before, _, after = as_text.partition(RAW_ARGUMENTS)
    if not (as_object.startswith(before) and as_object.endswith(after)):
        return False
    printed = as_object[len(before) : len(as_object) - len(after)]
    # Python's own print of a dict means that the template never expected an object.
    return printed in (json.dumps({KEY: VALUE}), str({KEY: VALUE})) or _is_arguments(printed)


def _is_arguments(text: str) -> bool:
    try:
        return bool(json.loads(text) == {KEY: VALUE})
    except ValueError:
        return False


def _reasoning_keys(attributes: Iterable[str]) -> list[str]:
    known = ["reasoning_content", "reasoning", "thinking", "thought", "thoughts"]
    names = set(attributes)
    others = sorted(n for n in names - set(known) if _thoughtful(n))
    return [name for name in known if name in names] + others


def _thoughtful(name: str) -> bool:
    return any(part in name.lower() for part in ("reason", "think", "thought"))
