"""Model text → content, thoughts and tool calls, as it arrives.

The parser knows one format (`ChatFormat`). It holds back only what may still become a marker, so
text fed one character at a time adds up to the same message as text fed whole, at a cost linear
in its length. What does not parse as a call is content.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from server.chat.deltas import Collector, Delta
from server.chat.readers import CallReader, call_reader
from server.chat.scan import Markers, Match, Status, match_core, skip_space
from server.chat.schema import ToolSchemas
from server.chat.syntax import CallSyntax, ChannelSyntax, ThoughtSyntax, core

_LONGEST_HEADER = 400
_DISPENSABLE = re.compile(r"[\w.:]+")


class Grammar:
    """The parts of a format a parser needs, made ready once per format."""

    def __init__(
        self,
        header: str,
        thought: ThoughtSyntax,
        content: tuple[str, str],
        spaces: tuple[str, str],
        ends: Sequence[str],
        calls: Sequence[CallSyntax],
        channels: ChannelSyntax | None,
        restart: str = "",
    ) -> None:
        self.header = core(header)
        self.thought_open = core(thought.open)
        self.thought_close = thought.close.strip()
        self.content_open, self.content_close = (text.strip() for text in content)
        self.content_lead, self.content_tail = spaces
        self.ends = frozenset(ends)
        self.calls = tuple(calls)
        self.channels = channels
        self.bare = tuple(c for c in calls if not c.triggers) if channels is None else ()
        self.named_content = self._content_by_name()
        triggers = [t for c in calls for t in c.triggers] if channels is None else []
        self.triggers = frozenset(triggers)
        opening = thought.open.strip().split("\n")[0]
        self.thought_trigger = opening
        self.restart = restart
        content_trigger = "" if self.named_content else self.content_open
        closers = [self.thought_close, self.content_close]
        self.without_calls = (*ends, *closers, content_trigger, opening, self.restart)
        self.with_calls = (*self.without_calls, *triggers)
        self.in_text = Markers(self.with_calls)
        self.in_text_without_calls = Markers(self.without_calls)
        self.in_thought = Markers([*ends, self.thought_close])
        self.in_channel = Markers([*ends, self.thought_close])
        self.channel_header = Markers(
            [channels.message_tag, *ends, self.thought_close] if channels else []
        )

    def _content_by_name(self) -> str:
        """Where content is addressed like a call (>>>all), the name it goes by."""
        if not self.calls or not self.content_open:
            return ""
        name = self.content_open.removeprefix(core(self.calls[0].first_open))
        return name if name.isalnum() else ""


class OutputParser:
    """Feed it what the model says; it hands back deltas. One parser reads one message.

    `ended` turns true once a marker that ends the turn has been seen: what follows is ignored.
    """

    def __init__(
        self,
        grammar: Grammar,
        tools: Sequence[Mapping[str, Any]] | None,
        opening: str = "",
        seed: str = "",
        id_length: int = 0,
    ) -> None:
        self._grammar = grammar
        self._tools = ToolSchemas.of(tools)
        self._calls = tools is None or len(tools) > 0
        self._bare_triggers = self._known_bare_calls()
        self._markers = grammar.in_text if self._calls else grammar.in_text_without_calls
        if self._bare_triggers:
            self._markers = Markers([*grammar.with_calls, *self._bare_triggers])
        self._collector = Collector(seed, id_length)
        self._text = ""
        self._position = 0
        # What becomes content should a call come to nothing: `_kept`, then from `_mark` on.
        self._undecided = False
        self._kept: list[str] = []
        self._mark = 0
        self._final = False
        self._space = ""  # whitespace that is content only if more content follows
        self._fresh = True  # no content yet in this segment
        self._called = False
        self._reader: CallReader | None = None
        self._syntax: CallSyntax | None = None
        self._candidates: tuple[CallSyntax, ...] = ()
        self._trigger = ""
        self.ended = False
        self._state: Callable[[], bool] = self._segment
        if opening:
            self.feed(opening)
            self._collector.reset()

    def _known_bare_calls(self) -> dict[str, CallSyntax]:
        """Beginnings of bare calls of the known tools, where calls follow content unmarked."""
        return {
            begin: syntax
            for syntax in self._grammar.bare
            if syntax.in_text and self._calls
            for name in self._tools.parameters
            for begin in _beginnings(syntax, name)
        }

    def feed(self, text: str) -> list[Delta]:
        """Take more text; returns what is certain now."""
        if self._undecided and self._position > self._mark:
            self._kept.append(self._text[self._mark : self._position])
        self._text = self._text[self._position :] + text
        self._position = self._mark = 0
        while self._state():
            pass
        return self._collector.take()

    def finish(self) -> list[Delta]:
        """The text is over: decide what was held back."""
        self._final = True
        return self.feed("")

    def message(self) -> dict[str, Any]:
        """The message so far, in OpenAI's shape."""
        return self._collector.message()

    # Segments: the beginning of a turn, or of one of its parts.

    def _segment(self) -> bool:
        self._fresh = True
        self._space = ""
        channels = self._grammar.channels
        self._state = self._text_start if channels is None else self._channel_start
        return True

    def _text_start(self) -> bool:
        """At the start, a call may stand bare: JSON, or the name of a function."""
        start = skip_space(self._text, self._position)
        if not (self._calls and self._grammar.bare):
            self._state = self._in_text
            return True
        if start >= len(self._text):
            if self._final:
                self._state = self._in_text
            return self._final
        for syntax in self._grammar.bare:
            if self._bare_fits(syntax, self._text[start]):
                self._candidates = (syntax,)
                self._suspect(self._position)
                self._position = start
                self._state = self._open_call
                self._trigger = ""
                return True
        self._state = self._in_text
        return True

    def _bare_fits(self, syntax: CallSyntax, char: str) -> bool:
        if core(syntax.first_open) == "[":
            return char == "["
        if syntax.style == "json_object":
            return char in "{["
        return self._tools.known and char.isalnum() and self._position == self._mark_start()

    def _mark_start(self) -> int:
        """A bare name must be the very first thing: a template puts a newline before content."""
        return skip_space(self._text, self._position)

    # Free text.

    def _in_text(self) -> bool:
        markers = self._markers
        found = markers.search(self._text, self._position)
        if found is None:
            stop = len(self._text)
            stop = stop if self._final else markers.safe_end(self._text, self._position)
            self._content(self._text[self._position : stop])
            self._position = stop
            if self._final:
                self._end_content()
            return False
        self._content(self._text[self._position : found.start()])
        self._position = found.start()
        return self._at_marker(found.group())

    def _at_marker(self, marker: str) -> bool:
        grammar = self._grammar
        after = self._position + len(marker)
        if marker in grammar.ends:
            self._end_content()
            self._position = after
            self._state = self._after_end
        elif marker == grammar.restart:
            self._end_content()
            self._position = after
            self._called = True
            self._state = self._segment
        elif marker in self._bare_triggers:
            self._trigger = ""
            self._suspect(self._position)
            self._candidates = (self._bare_triggers[marker],)
            self._state = self._open_call
        elif marker in grammar.triggers:
            self._suspect(self._position)
            self._position = after
            self._trigger = marker
            self._candidates = tuple(c for c in grammar.calls if marker in c.triggers)
            self._state = self._open_call
        elif marker == grammar.thought_trigger and self._fresh:
            return self._open_thought()
        elif marker == grammar.content_open and self._fresh:
            self._position = after
            self._space = ""
        elif marker == grammar.content_close:
            self._end_content()
            self._position = after
            self._called = True
        elif marker == grammar.thought_close and self._fresh and not self._called:
            self._position = after
            self._space = ""
        else:
            self._content(marker)
            self._position = after
        return True

    def _open_thought(self) -> bool:
        found, end = match_core(self._text, self._position, self._grammar.thought_open)
        if found is Match.PARTIAL and not self._final:
            return False
        if found is Match.FULL:
            self._position = end
            self._space = ""
            self._state = self._thought_start
        else:
            length = len(self._grammar.thought_trigger)
            self._content(self._text[self._position : self._position + length])
            self._position += length
        return True

    def _content(self, piece: str) -> None:
        """Content, except for the whitespace at its end, which waits for what follows."""
        body = piece.rstrip()
        if not body:
            self._space += piece
            return
        lead = self._space
        if self._fresh:
            lead = self._lead(lead + piece[: len(piece) - len(piece.lstrip())])
            body = body.lstrip()
        self._collector.content(lead + body)
        self._fresh = False
        self._space = piece[len(piece.rstrip()) :]

    def _lead(self, space: str) -> str:
        """Whitespace before content: the template's own, or what stands after a thought or call."""
        return (
            ""
            if self._skips_lead or self._called
            else space.removeprefix(self._grammar.content_lead)
        )

    _skips_lead = False

    def _end_content(self) -> None:
        if not self._fresh:
            self._collector.content(self._space.removesuffix(self._grammar.content_tail))
        self._space = ""

    def _after_end(self) -> bool:
        """After a turn's end: the header of another turn of the same message, or nothing."""
        self._position = skip_space(self._text, self._position)
        found, end = match_core(self._text, self._position, self._grammar.header)
        if found is Match.PARTIAL or (found is Match.FULL and self._position >= len(self._text)):
            self.ended = True
            return False
        if found is Match.FULL:
            self.ended = False
            self._position = end
            self._called = True
            self._state = self._segment
            return True
        self.ended = True
        again = [match_core(self._text, self._position, core(t))[0] for t in self._grammar.triggers]
        if Match.FULL in again:  # some templates end the turn behind each call
            self._called, self._state = True, self._in_text
            return True
        if Match.PARTIAL in again and not self._final:
            return False
        self._state = self._ignore
        return True

    def _ignore(self) -> bool:
        self._position = len(self._text)
        return False

    # Thoughts.

    def _thought_start(self) -> bool:
        self._position = skip_space(self._text, self._position)
        if self._position >= len(self._text) and not self._final:
            return False
        self._state = self._in_thought
        return True

    def _in_thought(self) -> bool:
        markers = self._grammar.in_thought
        found = markers.search(self._text, self._position)
        stop = found.start() if found else len(self._text)
        if not found and not self._final:
            stop = markers.safe_end(self._text, self._position)
        self._thought(self._text[self._position : stop])
        self._position = stop
        if not found:
            return False
        self._position = found.end()
        self._space = ""
        self._skips_lead = True
        is_end = found.group() in self._grammar.ends
        self._state = self._after_end if is_end else self._after_thought
        return True

    def _thought(self, piece: str) -> None:
        body = piece.rstrip()
        if not body:
            self._space += piece
            return
        self._collector.reasoning(self._space + body)
        self._space = piece[len(body) :]

    def _after_thought(self) -> bool:
        """Some formats begin the answer after a thought with a header of its own."""
        self._position = skip_space(self._text, self._position)
        if not self._grammar.header:
            self._state = self._segment
            return True
        found, end = match_core(self._text, self._position, self._grammar.header)
        if found is Match.PARTIAL and not self._final:
            return False
        self._position = end if found is Match.FULL else self._position
        self._state = self._segment
        return True

    # Calls.

    def _open_call(self) -> bool:
        """Behind a trigger: the rest of the opening, then the first character decides."""
        if self._grammar.named_content:
            found, end = self._content_named()
            if found is Match.PARTIAL and not self._final:
                return False
            if found is Match.FULL:
                self._undecided = False
                self._position = end
                self._fresh = not self._collector.has_content
                self._state = self._in_text
                return True
        for syntax in self._candidates:
            status, position = self._opening(syntax)
            if status is Match.PARTIAL and not self._final:
                return False
            if status is Match.FULL and self._begins(syntax, position):
                self._begin_call(syntax, position)
                return True
        return self._no_call(self._position)

    def _suspect(self, start: int) -> None:
        """From `start` on, the text may be a call; nothing of it is handed on yet."""
        self._undecided = True
        self._kept.clear()
        self._mark = start

    def _content_named(self) -> tuple[Match, int]:
        """Whether the addressee is not a function but the reader."""
        name = self._grammar.named_content
        found, end = match_core(self._text, self._position, name)
        if found is Match.FULL and end >= len(self._text):
            return Match.PARTIAL, end
        if found is Match.FULL and not self._text[end].isspace():
            return Match.NO, end
        return found, end + 1

    def _opening(self, syntax: CallSyntax) -> tuple[Match, int]:
        rest = _behind(syntax, self._trigger)
        found, position = match_core(self._text, self._position, rest)
        if found is Match.NO and (rest == "[" or _DISPENSABLE.fullmatch(rest)):
            found, position = Match.FULL, self._position  # models leave out lists and prefixes
        if found is Match.FULL:
            position = skip_space(self._text, position)
            if syntax.style == "json_object" and self._text[position : position + 1] == "[":
                position = skip_space(self._text, position + 1)
            if position >= len(self._text):
                return Match.PARTIAL, position
        return found, position

    def _begins(self, syntax: CallSyntax, position: int) -> bool:
        char = self._text[position]
        if syntax.style == "json_object" or syntax.fixed_name:
            return char in '{"'
        return char.isalnum() or char in "_"

    def _begin_call(self, syntax: CallSyntax, position: int) -> None:
        self._syntax = syntax
        self._position = position
        bare = not self._trigger
        self._reader = call_reader(syntax, self._tools, self._collector, bare)
        self._state = self._in_call

    def _no_call(self, position: int) -> bool:
        """What was read since the mark is content after all."""
        raw = "".join(self._kept) + self._text[self._mark : position]
        self._undecided = False
        self._reader = None
        self._position = position
        self._content(raw)
        self._state = self._in_text
        return True

    def _in_call(self) -> bool:
        assert self._reader is not None and self._syntax is not None
        before = len(self._collector.calls)
        self._position, status = self._reader.read(self._text, self._position, self._final)
        if len(self._collector.calls) > before:
            self._announced = True
            self._undecided = False
            self._space = ""
        if status is Status.MORE:
            if self._final and not self._announced:
                return self._no_call(len(self._text))
            return False
        if status is Status.FAILED:
            return self._failed_call()
        self._end_call()
        return True

    _announced = False

    def _failed_call(self) -> bool:
        announced, self._announced = self._announced, False
        if announced:
            self._after_calls()
            return True
        return self._no_call(self._position)

    def _end_call(self) -> None:
        self._announced = False
        self._reader = None
        self._called = True
        self._state = self._call_close

    def _after_calls(self) -> None:
        self._undecided = False
        self._reader = None
        self._called = True
        self._fresh = True
        self._space = ""
        self._state = self._in_text

    def _call_close(self) -> bool:
        """The marker that closes a call, if it is there."""
        assert self._syntax is not None
        self._position = skip_space(self._text, self._position)
        found, end = match_core(self._text, self._position, core(self._syntax.call_close))
        if found is Match.PARTIAL and not self._final:
            return False
        if found is Match.FULL:
            self._position = end
        self._state = self._between_calls
        return True

    def _between_calls(self) -> bool:
        """Another call, the end of the section, or free text."""
        assert self._syntax is not None
        self._position = skip_space(self._text, self._position)
        syntax = self._syntax
        if self._position >= len(self._text) and not self._final:
            return False
        best, waits = ("", self._position), False
        for action, literal in _continuations(syntax):
            found, end = match_core(self._text, self._position, literal)
            waits = waits or found is Match.PARTIAL
            if found is Match.FULL and end > best[1]:
                best = (action, end)
        if waits and not self._final:
            return False
        action, end = best
        if action == "next":
            return self._next_call(end)
        if action == "" and self._may_follow(syntax):
            return self._next_call(end)
        self._position = end
        self._after_calls()
        return True

    def _may_follow(self, syntax: CallSyntax) -> bool:
        """Whether another call may stand here without anything before it."""
        if self._position >= len(self._text) or syntax.style not in ("json_object", "python"):
            return False
        if syntax.style == "python" and not core(syntax.section_close):
            return False
        return not core(syntax.call_open) and self._begins(syntax, self._position)

    def _next_call(self, end: int) -> bool:
        assert self._syntax is not None
        position = skip_space(self._text, end)
        if position >= len(self._text) and not self._final:
            return False
        if position >= len(self._text) or not self._begins(self._syntax, position):
            self._after_calls()
            return True
        self._suspect(self._position)
        self._begin_call(self._syntax, position)
        return True

    # Channels: every part has a header that says what it is.

    def _channel_start(self) -> bool:
        channels = self._grammar.channels
        assert channels is not None
        start = skip_space(self._text, self._position)
        if start >= len(self._text) and not self._final:
            return False
        heads = (core(channels.channel_tag), core(channels.recipient))
        matches = [match_core(self._text, start, head)[0] for head in heads]
        if Match.FULL in matches:
            self._state = self._channel_head
            return True
        if Match.PARTIAL in matches and not self._final:
            return False
        self._state = self._in_channel_text
        return True

    def _channel_head(self) -> bool:
        channels = self._grammar.channels
        assert channels is not None
        found = self._grammar.channel_header.search(self._text, self._position)
        if found is None:
            too_long = len(self._text) - self._position > _LONGEST_HEADER
            if self._final or too_long:
                self._state = self._in_channel_text
                return True
            return False
        head = self._text[self._position : found.start()]
        self._position = found.end()
        if found.group() != channels.message_tag:
            self._state = self._after_end
            return True
        name = _recipient(head, channels.recipient)
        if name and self._calls:
            self._channel_call(name)
        elif _channel(head, channels.channel_tag) == channels.thought:
            self._state = self._thought_start
        else:
            self._state = self._in_channel_text
        return True

    def _channel_call(self, name: str) -> None:
        syntax = self._grammar.calls[0]
        self._syntax = CallSyntax(
            style=syntax.style,
            pieces=tuple(piece for piece in syntax.pieces if piece.slot == "arguments"),
            fixed_name=name,
            triggers=syntax.triggers,
        )
        self._trigger = name
        self._suspect(self._position)
        self._reader = call_reader(self._syntax, self._tools, self._collector, bare=False)
        self._state = self._in_call

    def _in_channel_text(self) -> bool:
        markers = self._grammar.in_channel
        found = markers.search(self._text, self._position)
        stop = found.start() if found else len(self._text)
        if not found and not self._final:
            stop = markers.safe_end(self._text, self._position)
        self._content(self._text[self._position : stop])
        self._position = stop
        if found is None:
            if self._final:
                self._end_content()
            return False
        self._end_content()
        self._position = found.end()
        self._state = self._after_end
        return True


def _beginnings(syntax: CallSyntax, name: str) -> list[str]:
    """How a bare call of `name` begins: up to its name and the letter behind it."""
    shown = syntax.first_open.lstrip()
    for piece in syntax.pieces:
        if piece.slot == "name":
            following = syntax.pieces[syntax.pieces.index(piece) + 1 :]
            return [shown + name + following[0].text[:1]] if following else []
        if piece.slot is not None:
            return []
        shown += piece.text
    return []


def _behind(syntax: CallSyntax, trigger: str) -> str:
    """What the opening of a call still lacks behind `trigger`, without whitespace."""
    for text in (core(syntax.first_open), core(syntax.call_open)):
        position = text.find(core(trigger))
        if position >= 0:
            return text[position + len(core(trigger)) :]
    return ""


def _continuations(syntax: CallSyntax) -> list[tuple[str, str]]:
    """What may follow a call: literals without whitespace, and what they mean."""
    found = [("next", core(syntax.next_open)), ("next", core(syntax.call_open))]
    found += [("next", core(syntax.first_open)), ("end", core(syntax.section_close))]
    if syntax.style == "json_object":
        found += [("next", ","), ("next", ";")]
    if syntax.style in ("json_object", "python"):
        closed = core(syntax.section_close).removeprefix("]")
        found += [("end", "]" + closed), ("end", "]" + core(syntax.call_close) + closed)]
    return list(dict.fromkeys(item for item in found if item[1]))


def _recipient(head: str, prefix: str) -> str:
    """The function a channel's header addresses ("" for none)."""
    marker = prefix.split("=")[0] + "="
    if marker not in head:
        return ""
    rest = head.split(marker, 1)[1].split("<")[0].split()
    return rest[0].removeprefix(prefix.split("=", 1)[1]) if rest else ""


def _channel(head: str, tag: str) -> str:
    words = head.split(tag, 1)[-1].split("<")[0].split() if tag in head else []
    return words[0] if words else ""
