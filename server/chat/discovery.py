"""Learn a chat format by rendering sentinel turns and looking where the words come out."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from server.chat.calls import learn_call_syntaxes
from server.chat.errors import TemplateError
from server.chat.syntax import (
    CallSyntax,
    ChannelSyntax,
    Lexer,
    ThoughtSyntax,
    core,
)
from server.chat.template import ChatTemplate
from server.chat.traits import (
    CONTENT,
    KEY,
    NAME,
    NAME2,
    RESULT,
    SYSTEM,
    THOUGHT,
    USER,
    USER2,
    VALUE,
    Message,
    probe_call,
    probe_tool,
)

_CUSTOMARY = ThoughtSyntax("<think>\n", "\n</think>\n\n", learned=False)
_THOUGHTFUL = re.compile(r"think|thought|reason", re.IGNORECASE)
_PLAIN_TAG = re.compile(r"<[\w:]+>|\[[A-Z]+\]")
_SWITCHES = ("enable_thinking", "thinking", "enable_reasoning", "reasoning", "think")


class Learned(Struct, frozen=True):
    """What discovery found out."""

    header: str  # opens an assistant turn, as the generation prompt prints it
    opening: str  # what the generation prompt adds to the header: an opened thought
    thought: ThoughtSyntax
    content_open: str
    content_close: str
    content_lead: str  # whitespace the template prints before content
    content_tail: str  # and after it
    ends: tuple[str, ...]  # each ends a turn
    restart: str  # where nothing ends a turn, the header that begins another part of it
    calls: tuple[CallSyntax, ...]
    channels: ChannelSyntax | None
    switch: str  # the variable that turns thinking on and off ("" for none)

    @property
    def after_thought(self) -> str:
        """What follows a closed thought: where the thought is a part of its own, a header."""
        alone = self.channels is not None or self.thought.close.strip() in self.ends
        return self.header if alone else ""


class Probes:
    """Renders turns; every text is what follows the words of the user."""

    def __init__(self, template: ChatTemplate) -> None:
        self.template = template
        self.tools = [probe_tool(NAME), probe_tool(NAME2)]
        self.switch = next((s for s in _SWITCHES if s in template.variables), "")
        on: list[dict[str, Any]] = [{self.switch: True}] if self.switch else []
        off: list[dict[str, Any]] = [{self.switch: False}] if self.switch else []
        self.settings: list[dict[str, Any]] = [{}, *on, *off]
        self.header = ""
        self.lexer = Lexer(self._sample())

    def _sample(self) -> str:
        """A conversation with everything in it."""
        call = probe_call(NAME, {KEY: VALUE}, "call_1")
        turn = {"role": "assistant", "content": CONTENT, "reasoning_content": THOUGHT}
        messages: list[Message] = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": USER},
            {**turn, "tool_calls": [call]},
            {"role": "tool", "content": RESULT, "tool_call_id": "call_1"},
        ]
        whole = self._render([*messages, turn], True, False, {})
        text = whole or self._render([messages[1], turn], False, True, {}) or ""
        for said in (SYSTEM, USER, CONTENT, THOUGHT, RESULT):
            text = text.replace(said, "\n")  # what is said is no part of a marker
        return text

    def turn(
        self,
        content: str = "",
        calls: Sequence[Message] = (),
        thought: str = "",
        settings: Mapping[str, Any] | None = None,
    ) -> str | None:
        """A finished assistant turn; None where the template refuses."""
        message: Message = {"role": "assistant", "content": content}
        if calls:
            message["tool_calls"] = list(calls)
        if thought:
            message["reasoning_content"] = thought
        return self._after_user([message], bool(calls), False, settings)

    def body(self, *args: Any, **kwargs: Any) -> str | None:
        """A finished turn without its header."""
        text = self.turn(*args, **kwargs)
        if text is None or not text.startswith(self.header):
            return None
        return text[len(self.header) :]

    def prompt(self, settings: Mapping[str, Any], with_tools: bool = False) -> str | None:
        return self._after_user([], with_tools, True, settings)

    def before_user(self) -> str | None:
        """A turn that another user message follows."""
        messages: list[Message] = [
            {"role": "assistant", "content": CONTENT},
            {"role": "user", "content": USER2},
        ]
        text = self._after_user(messages, False, False, {})
        return text.split(USER2)[0] if text else None

    def after_result(self) -> str | None:
        """The whole prompt after a tool has answered."""
        call = probe_call(NAME, {KEY: VALUE}, "call_1")
        messages: list[Message] = [
            {"role": "user", "content": USER},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": RESULT, "tool_call_id": "call_1"},
        ]
        return self._render(messages, True, True, {})

    def _after_user(
        self,
        rest: Sequence[Message],
        with_tools: bool,
        prompt: bool,
        settings: Mapping[str, Any] | None,
    ) -> str | None:
        messages: list[Message] = [{"role": "user", "content": USER}, *rest]
        text = self._render(messages, with_tools, prompt, settings or {})
        if text is None or USER not in text:
            return None
        return text[text.rindex(USER) + len(USER) :]

    def _render(
        self,
        messages: Sequence[Message],
        with_tools: bool,
        prompt: bool,
        settings: Mapping[str, Any],
    ) -> str | None:
        tools = self.tools if with_tools else None
        try:
            return self.template.render(messages, tools, prompt, **settings)
        except TemplateError as error:
            if error.kind == "limit":
                raise  # it would take as long each time
            return None


def learn(template: ChatTemplate) -> Learned:
    """Everything about the format of `template`; what is not found is customary.

    Raises TemplateError only where the template comes to a limit.
    """
    probes = Probes(template)
    probes.header = _whole_header(probes)
    thought = _thought(probes)
    if thought is None:
        thought = _customary_thought(probes)
    plain = probes.body(CONTENT) or probes.body(CONTENT, settings={probes.switch: True}) or ""
    before, _, after = plain.partition(CONTENT)
    content_open = without_empty_thought(before, thought)
    if core(content_open) == core(thought.open):
        content_open = ""  # the template expects content that brings its own thought
    end, content_close, content_tail = _turn_end(
        probes.lexer, after, content_open, template.eos_token
    )
    last_end = end
    if not end:  # nothing is printed behind the last turn: look what stands behind others
        between = (probes.before_user() or "").partition(CONTENT)[2].lstrip()
        found = probes.lexer.markers(between)
        end = found[0] if found and between.startswith(found[0]) else ""
    calls, call_end = learn_call_syntaxes(probes, thought, (content_open, content_close), last_end)
    header = _own_header(probes, end)
    opening = opening_of(probes.prompt({}) or "", header, thought)
    ends = (end, call_end, template.eos_token.strip())
    return Learned(
        header=header,
        opening=opening,
        thought=thought,
        content_open=content_open if core(content_open) else "",
        content_close=content_close,
        content_lead=content_open[len(content_open.rstrip()) :],
        content_tail=content_tail,
        ends=tuple(dict.fromkeys(e for e in ends if e)),
        calls=calls,
        restart=header.strip() if not last_end and len(core(header)) > 3 else "",
        channels=_channels(thought, content_open, calls),
        switch=probes.switch,
    )


def _whole_header(probes: Probes) -> str:
    """From the user's words to where the assistant's begin: what all turns and prompts share."""
    call = [probe_call(NAME, {KEY: VALUE}, "call_1")]
    texts = [probes.prompt(settings) for settings in probes.settings]
    texts += [probes.prompt({}, with_tools=True), probes.turn(CONTENT), probes.before_user()]
    texts += [probes.turn(calls=call), probes.turn(CONTENT, call)]
    found = [re.split(f"{CONTENT}|{NAME}", text)[0] for text in texts if text is not None]
    header = found[0] if found else ""
    for text in found[1:]:
        shared = probes.lexer.common_prefix(header, text)
        # A switch may write into the user's turn ("/no_think"): that says nothing about ours.
        header = shared if core(shared) else header
    return header


def _own_header(probes: Probes, end: str) -> str:
    """The part of the header that belongs to the assistant, as prompts print it."""
    prompt = probes.prompt({}) or ""
    closed = probes._after_user([], False, False, {})
    if closed is not None and prompt != closed and prompt.startswith(closed):
        generated = prompt[len(closed) :]
    else:
        after_result = probes.after_result() or ""
        generated = probes.lexer.common_suffix(prompt, after_result)
    header = probes.header
    start = max((k for k in range(len(generated) + 1) if header.endswith(generated[:k])), default=0)
    own = generated[:start]
    if end and own.startswith(end):
        own = own[len(end) :].lstrip()
    found = probes.lexer.markers(header)
    if not own and found:
        last = header[header.rindex(found[-1]) :]
        own = last if last in generated else ""
    return own


def opening_of(prompt: str, header: str, thought: ThoughtSyntax) -> str:
    """What a prompt prints behind the assistant's header; without a header, an opened thought."""
    if header:
        return prompt.rsplit(header, 1)[1] if header in prompt else ""
    opened, closed = (re.escape(text.strip()) for text in (thought.open, thought.close))
    found = re.search(rf"{opened}\s*(?:{closed}\s*)?$", prompt)
    return found.group() if found else ""


def _thought(probes: Probes) -> ThoughtSyntax | None:
    for text in _thought_turns(probes):
        before, _, after = text.partition(THOUGHT)
        if not before.startswith(probes.header):
            continue
        opened = before[len(probes.header) :]
        if not core(opened):
            opened = _opened_by_prompt(probes) + opened
        rest = re.split(f"{CONTENT}|{NAME}", after)[0]
        found = probes.lexer.markers(rest)
        close = rest[: rest.index(found[0]) + len(found[0])] if found else rest
        if core(opened) and core(close):
            space = re.match(r"\s*", rest[len(close) :])
            return ThoughtSyntax(opened, close + (space.group() if space else ""))
    return None


def _thought_turns(probes: Probes) -> Iterator[str]:
    call = [probe_call(NAME, {KEY: VALUE}, "call_1")]
    for settings in probes.settings:
        for content, calls in ((CONTENT, ()), ("", call), (CONTENT, call)):
            text = probes.turn(content, calls, THOUGHT, settings)
            if text and THOUGHT in text:
                yield text


def _opened_by_prompt(probes: Probes) -> str:
    """Where every turn opens a thought, the opening is the last tag of the header; where only
    prompts open it, it is what they add to the header.
    """
    found = probes.lexer.markers(probes.header)
    if not found or not _THOUGHTFUL.search(found[-1]):
        prompt = probes.prompt({}) or ""
        return prompt[len(probes.header) :] if prompt.startswith(probes.header) else ""
    start = probes.header.rindex(found[-1])
    peeled = probes.header[start:]
    probes.header = probes.header[:start]
    return peeled


def _customary_thought(probes: Probes) -> ThoughtSyntax:
    """Thought markers seen in prompts or named in the template's text, else <think>."""
    openings = [probes.prompt(s) or "" for s in probes.settings] + [probes.turn(CONTENT) or ""]
    source = probes.template.source
    for text in [*openings, source]:
        for tag in Lexer().markers(text):
            close = _closing_of(tag)
            # A plain tag that a prompt opens closes as such tags do, even if nothing shows it.
            seen_opened = text is not source and _PLAIN_TAG.fullmatch(tag)
            if close and (seen_opened or close in source):
                if probes.header.rstrip().endswith(tag):
                    probes.header = probes.header[: probes.header.rindex(tag)]
                return ThoughtSyntax(tag + "\n", "\n" + close + "\n\n")
    return _CUSTOMARY


def _closing_of(tag: str) -> str:
    """The counterpart of a tag that is named after thinking: <think> → </think>."""
    if not _THOUGHTFUL.search(tag) or tag[1] == "/" or " " in tag:
        return ""
    for opening, closing in (("START", "END"), ("start", "end"), ("begin", "end")):
        if opening in tag:
            return tag.replace(opening, closing)
    return tag[0] + "/" + tag[1:]


def without_empty_thought(text: str, thought: ThoughtSyntax) -> str:
    """`text` without a thought of no words at its beginning (or a closing that opened nothing)."""
    opened, closed = (re.escape(t.strip()) for t in (thought.open, thought.close))
    return re.sub(rf"^\s*(?:{opened})?\s*{closed}\s*", "", text, count=1)


def _turn_end(lexer: Lexer, after: str, content_open: str, eos_token: str) -> tuple[str, str, str]:
    """The marker that ends a turn, the one that closes content, the whitespace after content."""
    stripped = after.lstrip()
    space = after[: len(after) - len(stripped)]
    found = lexer.markers(stripped)
    if eos_token and stripped.startswith(eos_token):
        return eos_token, "", space
    if not stripped:
        return "", "", space
    if not found or not stripped.startswith(found[0]):
        word = re.split(r"[\s<]", stripped)[0]
        return (word, "", space) if word else ("", "", space)
    if core(content_open) and len(found) > 1 and _paired(lexer, content_open, found[0]):
        return found[1], found[0], space
    return found[0], "", space


def _paired(lexer: Lexer, opening: str, closing: str) -> bool:
    """Whether two tags are the ends of one thing: <response> </response>, START_X END_X."""

    def name(tag: str) -> str:
        return re.sub(r"[^a-z]|start|begin|end|open|close", "", tag.lower())

    return any(name(tag) == name(closing) for tag in lexer.markers(opening))


def _channels(
    thought: ThoughtSyntax, content_open: str, calls: Sequence[CallSyntax]
) -> ChannelSyntax | None:
    """Channel headers: thoughts, content and calls all begin with one tag and end with another."""
    simple = Lexer()
    for_thought, for_content = simple.markers(thought.open), simple.markers(content_open)
    if len(for_thought) < 2 or len(for_content) < 2 or not calls:
        return None
    channel, message = for_content[0], for_content[-1]
    middle = calls[0].between("name", "arguments")
    if (for_thought[0], for_thought[-1]) != (channel, message) or message not in middle:
        return None

    def named(text: str) -> str:
        return text.split(channel, 1)[1].split(message)[0].strip()

    return ChannelSyntax(
        channel_tag=channel,
        message_tag=message,
        thought=named(thought.open),
        content=named(content_open),
        recipient=calls[0].first_open.strip(),
    )
