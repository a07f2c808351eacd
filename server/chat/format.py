"""`ChatFormat`: everything about how one model is spoken to and how it answers."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from server.chat.channels import ChannelParser
from server.chat.discovery import Learned, learn, opening_of, without_empty_thought
from server.chat.errors import TemplateError
from server.chat.markup import Markup
from server.chat.messages import normalize
from server.chat.parser import OutputParser
from server.chat.plan import CallPlan, call_plan, special_markers
from server.chat.stated import GENERIC, stated_syntaxes
from server.chat.syntax import CallSyntax, Lexer, ThoughtSyntax, core, shared_beginning
from server.chat.template import ChatTemplate
from server.chat.traits import NAME, USER, Message, probe_tool
from server.chat.writer import write_calls

_OTHER = "\ue000"  # begins no turn of a real conversation
_SPLICE = "Zsplice{}Z"


class ChatFormat(Struct, frozen=True):
    """What was learned from one template. Immutable: threads may share it."""

    template: ChatTemplate
    learned: Learned
    calls: tuple[CallSyntax, ...]  # the usual one first
    calls_from: str  # "template" (printed), "stated" (suggested by its markers), "generic"
    markup: Markup

    @classmethod
    def from_template(
        cls, source: str | None, *, bos_token: str = "", eos_token: str = ""
    ) -> "ChatFormat":
        """Learn the format of a Jinja template (None or "": ChatML). Raises TemplateError."""
        template = ChatTemplate(source, bos_token, eos_token)
        with template.probing():
            learned = learn(template)
        calls, calls_from = learned.calls, "template"
        if not calls and template.traits.prints_tools:
            calls, calls_from = _stated(template), "stated"
        if not calls:
            calls, calls_from = (GENERIC,), "generic"
        return cls(template, learned, calls, calls_from, _markup(learned, calls))

    def overridden(
        self,
        *,
        thought: tuple[str, str] | None = None,
        generic_calls: bool = False,
        ends: Sequence[str] = (),
    ) -> "ChatFormat":
        """The format with what its user knows better: where a thought opens and closes, calls in
        the generic format whatever the template prints, further texts that end a turn.
        """
        learned = self.learned
        if thought is not None:
            learned = replace(learned, thought=ThoughtSyntax(*thought))
        learned = replace(learned, ends=tuple(dict.fromkeys([*learned.ends, *ends])))
        calls = (GENERIC,) if generic_calls else self.calls
        calls_from = "generic" if generic_calls else self.calls_from
        return ChatFormat(self.template, learned, calls, calls_from, _markup(learned, calls))

    @property
    def prints_tools(self) -> bool:
        return self.template.traits.prints_tools

    def opens_thought(self, prompt: str) -> bool:
        """Whether the model starts inside a thought that `prompt` has opened."""
        opening, thought = core(self.opening_of(prompt)), self.learned.thought
        at = opening.rfind(core(thought.open))
        return at >= 0 and core(thought.close) not in opening[at:]

    def call_plan(self, tools: Sequence[Mapping[str, Any]], parallel: bool = True) -> CallPlan:
        """What a grammar for calls of `tools` needs to know; pure data."""
        return call_plan(self.calls[0], self.learned, tools, parallel)

    def markers(self) -> tuple[str, ...]:
        """Texts of this format that may be special tokens: the engine must print them."""
        return special_markers(self.learned, self.calls)

    def describe(self) -> str:
        """One line for the log."""
        learned, call = self.learned, self.calls[0]
        shown = "".join(p.text or f"${p.slot}" for p in call.pieces)
        parts = [
            f"calls ({self.calls_from}, {call.style}): "
            + repr(call.first_open + shown + call.call_close + call.section_close),
            f"thought: {learned.thought.open.strip()!r}…{learned.thought.close.strip()!r}"
            + ("" if learned.thought.learned else " (customary)"),
            f"prompt opens: {learned.opening!r}",
            f"ends: {', '.join(map(repr, learned.ends)) or 'none'}",
            f"system: {self.template.traits.system}",
        ]
        return "; ".join(parts)

    def parser(
        self,
        tools: Sequence[Mapping[str, Any]] | None = None,
        prompt: str | None = None,
        seed: str = "",
    ) -> OutputParser:
        """A parser for one answer.

        `tools`: the request's; None means unknown ones, [] none at all. `prompt`: the rendered
        prompt, which may have opened the thought; without it the usual prompt is assumed.
        `seed`: makes the ids of calls unique (the request's id will do).
        """
        opening = self.learned.opening if prompt is None else self.opening_of(prompt)
        id_length = 9 if self.template.traits.call_ids == "nine" else 0
        kind = ChannelParser if self.learned.channels else OutputParser
        return kind(self.markup, tools, opening, seed, id_length)

    def opening_of(self, prompt: str) -> str:
        """What stands in `prompt` after the header of the assistant's last turn."""
        opening = opening_of(prompt, self.learned.header, self.learned.thought)
        stops = [*self.learned.ends, *(t for c in self.calls for t in c.triggers)]
        held = [stop for stop in stops if stop and stop in opening]
        return "" if held and opening.strip() not in held else opening

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Message] | None = None,
        add_generation_prompt: bool = True,
        **kwargs: Any,
    ) -> str:
        """The prompt. Without a generation prompt, a conversation that ends with the assistant's
        turn is the prompt of that turn plus what the model would have written.
        """
        settings = self._settings(kwargs)
        text = self._render(messages, tools, add_generation_prompt, settings)
        if add_generation_prompt or not messages or messages[-1].get("role") != "assistant":
            return text
        try:
            prompt = self._render(messages[:-1], tools, True, settings)
        except TemplateError:
            return text
        other = {"role": "assistant", "content": _OTHER}
        try:
            unlike = self._render([*messages[:-1], other], tools, False, settings)
        except TemplateError:
            unlike = ""
        return self._composed(text, prompt, messages[-1], shared_beginning(text, unlike))

    def _settings(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The template's own name for the switch of thinking."""
        settings = dict(kwargs)
        switch = self.learned.switch
        if settings.get("reasoning_effort") == "none":
            settings.setdefault("enable_thinking", False)
        if switch and switch not in settings and "enable_thinking" in settings:
            settings[switch] = settings["enable_thinking"]
        return settings

    def _render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Message] | None,
        prompt: bool,
        settings: Mapping[str, Any],
    ) -> str:
        traits = self.template.traits
        if tools and not traits.prints_tools:
            messages = self._with_tools(messages, tools)
        marked, spliced = self._mark_content(messages)
        adapted = normalize(marked, traits, self.write_calls)
        listed = tools if traits.prints_tools else None
        text = self.template.render_adapted(adapted, listed, prompt, **settings)
        return self._splice(text, spliced)

    def write_calls(self, calls: Sequence[Message]) -> str:
        """Calls (in OpenAI's shape) as the model would write them."""
        return write_calls(self.calls[0], calls)

    def _with_tools(self, messages: Sequence[Message], tools: Sequence[Message]) -> list[Message]:
        """The tools in the system message, for templates that do not list them."""
        listed = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
        example = {"name": "function_name", "arguments": {"argument_name": "value"}}
        shown = self.write_calls([{"id": "call_1", "function": example}])
        text = (
            "# Tools\n\nThese functions can be called; each line is the JSON schema of one:\n"
            f"<tools>\n{listed}\n</tools>\n\n"
            "To call a function, write its name and arguments in exactly this form "
            f"(once per call):\n{shown}"
        )
        first = messages[0] if messages else {}
        if first.get("role") in ("system", "developer") and isinstance(first.get("content"), str):
            return [{**first, "content": f"{first['content']}\n\n{text}"}, *messages[1:]]
        return [{"role": "system", "content": text}, *messages]

    def _mark_content(
        self, messages: Sequence[Message]
    ) -> tuple[Sequence[Message], list[tuple[str, str, str]]]:
        """Where the template drops content beside calls, take it out and mark its place."""
        traits, triggers = self.template.traits, self.calls[0].triggers
        if traits.content_with_calls or not traits.prints_calls or not triggers:
            return messages, []
        if self.learned.content_open or self.learned.channels:
            return messages, []
        marked: list[Message] = []
        spliced: list[tuple[str, str, str]] = []
        for message in messages:
            content, calls = message.get("content"), message.get("tool_calls")
            if (
                message.get("role") == "assistant"
                and calls
                and isinstance(content, str)
                and content
            ):
                mark = _SPLICE.format(len(spliced))
                function = calls[0]["function"]
                named = {**calls[0], "function": {**function, "name": function["name"] + mark}}
                message = {**message, "content": None, "tool_calls": [named, *calls[1:]]}
                spliced.append((mark, function["name"], content))
            marked.append(message)
        return marked, spliced

    def _splice(self, text: str, spliced: Sequence[tuple[str, str, str]]) -> str:
        """Put content that the template would have dropped before the call it stands beside."""
        for mark, name, content in spliced:
            at = text.find(mark) - len(name)
            start = self.calls[0].opening_start(text[:at])
            if at < 0 or start < 0:
                raise TemplateError("the chat template drops the content beside a tool call")
            text = (text[:start] + content + text[start:]).replace(mark, "")
        return text

    def _composed(self, text: str, prompt: str, message: Message, shared: str) -> str:
        """`prompt` and the last turn of `text`; `shared` is what any such turn begins with."""
        thought = message.get("reasoning_content") or message.get("reasoning") or ""
        thought = thought.strip() if isinstance(thought, str) else ""
        syntax, opening = self.learned.thought, self.opening_of(prompt)
        opened = core(syntax.open) in core(opening) and core(syntax.close) not in core(opening)
        tail = text[len(prompt) :] if text.startswith(prompt) else None
        closes = not opened or core(syntax.close) in core(tail or "")
        if tail is not None and thought in tail and closes:
            return text
        base = prompt[: len(prompt) - len(opening)]
        if not text.startswith(base):
            base = shared  # some templates print the turns before differently once they are over
        body, begins = text[len(base) :], rf"^\s*{re.escape(syntax.open.strip())}\s*"
        if thought and thought in body:
            return prompt + (re.sub(begins, "", body, count=1) if opened else body)
        if core(opening) and not opened and core(syntax.close) not in core(opening):
            return text  # the prompt opens something else: there is no place for a thought
        body = without_empty_thought(body, syntax)
        if opened and core(syntax.close) not in core(body):
            body = re.sub(begins, "", body, count=1)
        closed = syntax.close + self.learned.after_thought
        if opened:
            return prompt + thought + closed + body
        return prompt + (syntax.open + thought + closed if thought else "") + body


def _markup(learned: Learned, calls: Sequence[CallSyntax]) -> Markup:
    return Markup(
        header=learned.header,
        thought=learned.thought,
        content=(learned.content_open, learned.content_close),
        spaces=(learned.content_lead, learned.content_tail),
        ends=learned.ends,
        calls=calls,
        channels=learned.channels,
        restart=learned.restart,
    )


def _stated(template: ChatTemplate) -> tuple[CallSyntax, ...]:
    user = [{"role": "user", "content": USER}]
    try:
        return tuple(
            stated_syntaxes(
                Lexer(), template.render(user, [probe_tool(NAME)]), template.render(user)
            )
        )
    except TemplateError:
        return ()
