"""Tool calls in the text: from the marker that may open one to the text behind the last."""

import re
from collections.abc import Callable, Sequence
from enum import Enum

from server.chat.deltas import Collector
from server.chat.markup import Markup
from server.chat.prose import Prose
from server.chat.readers import CallReader, call_reader
from server.chat.scan import Cursor, Match, Status, skip_space
from server.chat.schema import ToolSchemas
from server.chat.syntax import CallSyntax, Lexer, core

_DISPENSABLE = re.compile(r"[\w.:]+")


class Progress(Enum):
    AGAIN = "again"  # there may be more to do with the text at hand
    MORE = "more"  # needs more text
    TEXT = "text"  # free text goes on here


class CallSection:
    """Reads one run of calls. What turns out to be no call goes to `prose` as content."""

    def __init__(
        self,
        markup: Markup,
        tools: ToolSchemas,
        cursor: Cursor,
        collector: Collector,
        prose: Prose,
    ) -> None:
        self._markup = markup
        self._tools = tools
        self._cursor = cursor
        self._collector = collector
        self._prose = prose
        self._candidates: Sequence[CallSyntax] = ()
        self._trigger = ""
        self._syntax: CallSyntax | None = None
        self._reader: CallReader | None = None
        self._announced = False
        self._closers: list[str] = []  # what may still close the call, in this order
        self._closed = False
        self._state: Callable[[], Progress] = self._open

    def begin(self, candidates: Sequence[CallSyntax], trigger: str = "") -> None:
        """A call may begin here, with `trigger` ("" where it stands bare)."""
        self._candidates = candidates
        self._trigger = trigger
        self._cursor.suspect()
        self._cursor.position += len(trigger)
        self._state = self._open

    def begin_addressed(self, name: str) -> None:
        """The arguments of a call of `name` begin here; a header has said so."""
        usual = self._markup.calls[0]
        arguments = tuple(piece for piece in usual.pieces if piece.slot == "arguments")
        syntax = CallSyntax(usual.style, arguments, fixed_name=name, triggers=usual.triggers)
        self._trigger = name
        self._cursor.suspect()
        self._read(syntax, self._cursor.position)

    def step(self) -> Progress:
        return self._state()

    @property
    def cut(self) -> bool:
        """A call has begun, and its end has not been read."""
        return self._announced and self._state == self._in_call

    def _open(self) -> Progress:
        """Behind a trigger: the rest of the opening, then the first character decides."""
        if self._markup.content_name:
            addressed = self._content_addressed()
            if addressed is not None:
                return addressed
        for syntax in self._candidates:
            found, position = self._opening(syntax)
            if found is Match.PARTIAL and not self._cursor.final:
                return Progress.MORE
            if found is Match.FULL and self._begins(syntax, position):
                self._read(syntax, position)
                return Progress.AGAIN
        return self._no_call()

    def _content_addressed(self) -> Progress | None:
        """Content may be addressed like a call, to a reader instead of a function."""
        cursor = self._cursor
        found, end = cursor.match(self._markup.content_name)
        if found is Match.FULL and end < len(cursor.text):
            if not cursor.text[end].isspace():
                return None
            cursor.position = end + 1
            cursor.believe()
            self._prose.fresh = not self._collector.has_content
            return Progress.TEXT
        return None if found is Match.NO or cursor.final else Progress.MORE

    def _opening(self, syntax: CallSyntax) -> tuple[Match, int]:
        cursor = self._cursor
        rest = _behind(syntax, self._trigger)
        found, position = cursor.match(rest)
        if found is Match.NO and (rest == "[" or _DISPENSABLE.fullmatch(rest)):
            found, position = Match.FULL, cursor.position  # models leave out lists and prefixes
        if found is Match.FULL:
            position = skip_space(cursor.text, position)
            if syntax.style == "json_object" and cursor.text[position : position + 1] == "[":
                position = skip_space(cursor.text, position + 1)
            if position >= len(cursor.text):
                return Match.PARTIAL, position
        return found, position

    def _begins(self, syntax: CallSyntax, position: int) -> bool:
        if position >= len(self._cursor.text):
            return False
        char = self._cursor.text[position]
        if syntax.style == "json_object" or syntax.fixed_name:
            return char in '{"'
        return char.isalnum() or char == "_"

    def _read(self, syntax: CallSyntax, position: int) -> None:
        self._syntax = syntax
        self._cursor.position = position
        bare = not self._trigger
        self._reader = call_reader(syntax, self._tools, self._collector, bare)
        self._announced = False
        self._state = self._in_call

    def _no_call(self) -> Progress:
        self._prose.content(self._cursor.disbelieve())
        return Progress.TEXT

    def _in_call(self) -> Progress:
        assert self._reader is not None
        cursor, before = self._cursor, len(self._collector.calls)
        cursor.position, status = self._reader.read(cursor.text, cursor.position, cursor.final)
        if len(self._collector.calls) > before:
            self._announced = True
            self._prose.drop_space()
            cursor.believe()
        if status is Status.DONE:
            self._prose.trim()
            self._begin_close()
            return Progress.AGAIN
        if status is Status.MORE and not cursor.final:
            return Progress.MORE
        if not self._announced:
            if status is Status.MORE:
                cursor.position = len(cursor.text)
            return self._no_call()
        return self._text() if status is Status.FAILED else Progress.MORE

    def _text(self) -> Progress:
        self._cursor.believe()
        self._prose.begin()
        self._prose.trim()
        return Progress.TEXT

    def _begin_close(self) -> None:
        assert self._syntax is not None
        self._closers = _words(self._syntax.call_close)
        self._closed = False
        self._state = self._close

    def _close(self) -> Progress:
        """The marker that closes a call, or as much of it as is there."""
        waits = self._take_closers()
        self._state = self._close if waits else self._between
        return Progress.MORE if waits else Progress.AGAIN

    def _take_closers(self) -> bool:
        """Skip what closes, in order, leaving out what is missing; true where text is needed.

        Half a marker at the end of all text is one that was cut: no content.
        """
        cursor = self._cursor
        while self._closers:
            cursor.skip_space()
            found, end = cursor.match(self._closers[0])
            if found is Match.PARTIAL:
                if not cursor.final:
                    return True
                cursor.position = len(cursor.text)
            if found is Match.FULL:
                cursor.position = end
                self._closed = True
            self._closers.pop(0)
        return False

    def _between(self) -> Progress:
        """Another call, the end of the section, or free text."""
        assert self._syntax is not None
        cursor, syntax = self._cursor, self._syntax
        if not cursor.skip_space() and not cursor.final:
            return Progress.MORE
        end = cursor.position
        for literal in _openings(syntax):
            found, stop = cursor.match(literal)
            if found is Match.PARTIAL and not cursor.final:
                return Progress.MORE
            end = end if found is Match.NO else max(end, stop)
        if end > cursor.position or self._may_follow(syntax):
            return self._next(syntax, end)
        lists = ["]"] if syntax.style in ("json_object", "python") else []
        call_closers = [] if self._closed else _words(syntax.call_close)
        self._closers = [*lists, *call_closers, *_words(syntax.section_close)]
        self._state = self._end
        return Progress.AGAIN

    def _end(self) -> Progress:
        return Progress.MORE if self._take_closers() else self._text()

    def _may_follow(self, syntax: CallSyntax) -> bool:
        """Whether another call may stand here without anything before it."""
        if not self._begins(syntax, self._cursor.position):
            return False
        if syntax.style == "json_object":
            return not (core(syntax.call_open) and self._closed)
        return syntax.style == "python" and bool(core(syntax.section_close))

    def _next(self, syntax: CallSyntax, end: int) -> Progress:
        cursor = self._cursor
        position = skip_space(cursor.text, end)
        if position >= len(cursor.text) and not cursor.final:
            return Progress.MORE
        if not self._begins(syntax, position):
            if position >= len(cursor.text):
                cursor.position = position
            return self._text()
        cursor.suspect()
        self._read(syntax, position)
        return Progress.AGAIN


def _behind(syntax: CallSyntax, trigger: str) -> str:
    """What the opening of a call still lacks behind `trigger`, without whitespace."""
    for text in (core(syntax.first_open), core(syntax.call_open)):
        position = text.find(core(trigger))
        if position >= 0:
            return text[position + len(core(trigger)) :]
    return ""


def _openings(syntax: CallSyntax) -> list[str]:
    """What may stand between a call and the next, without whitespace."""
    found = [core(syntax.next_open), core(syntax.call_open), core(syntax.first_open)]
    found += [",", ";"] if syntax.style == "json_object" else []
    return list(dict.fromkeys(filter(None, found)))


def _words(text: str) -> list[str]:
    """The tags and other words of a literal, a list's bracket on its own."""
    words = [word for atom in Lexer().atoms(text) if (word := core(atom))]
    if words and words[0].startswith("]") and len(words[0]) > 1:
        words[:1] = ["]", words[0][1:]]
    return words


def bare_beginnings(syntax: CallSyntax, name: str) -> list[str]:
    """How a bare call of `name` begins: up to its name and the letter behind it."""
    shown = syntax.first_open.lstrip()
    for piece, following in zip(syntax.pieces, syntax.pieces[1:], strict=False):
        if piece.slot == "name":
            return [shown + name + following.text[:1]]
        if piece.slot is not None:
            return []
        shown += piece.text
    return []
