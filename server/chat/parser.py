"""Model text → content, thoughts and tool calls, as it arrives.

The parser knows one format (`ChatFormat`). It holds back only what may still become a marker, so
text fed one character at a time adds up to the same message as text fed whole, at a cost linear
in its length. What does not parse as a call is content.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from server.chat.call_section import CallSection, Progress, bare_beginnings
from server.chat.deltas import Collector, Delta
from server.chat.markup import Markup
from server.chat.prose import Prose
from server.chat.scan import Cursor, Match, skip_space
from server.chat.schema import ToolSchemas
from server.chat.syntax import CallSyntax, core


class OutputParser:
    """Feed it what the model says; it hands back deltas. One parser reads one message.

    `ended` turns true once a marker that ends the turn has been seen: what follows is ignored
    unless it opens another part of the same turn.
    """

    def __init__(
        self,
        markup: Markup,
        tools: Sequence[Mapping[str, Any]] | None,
        opening: str = "",
        seed: str = "",
        id_length: int = 0,
    ) -> None:
        self._markup = markup
        self._tools = ToolSchemas.of(tools)
        self._calls = tools is None or len(tools) > 0
        self._cursor = Cursor()
        self._collector = Collector(seed, id_length)
        self._prose = Prose(self._collector, markup.content_lead, markup.content_tail)
        self._section = CallSection(markup, self._tools, self._cursor, self._collector, self._prose)
        self._beginnings = self._bare_calls()
        self._markers = markup.in_text if self._calls else markup.in_text_without_calls
        if self._beginnings:
            self._markers = markup.in_text_with(self._beginnings)
        self._thought = False  # a thought has been read
        self.ended = False
        self._state: Callable[[], bool] = self._part
        if opening:
            self.feed(opening)
            self._collector.reset()

    def feed(self, text: str) -> list[Delta]:
        """Take more text; returns what is certain now."""
        self._cursor.add(text)
        while self._state():
            pass
        return self._collector.take()

    def finish(self) -> list[Delta]:
        """The text is over: decide what was held back."""
        self._cursor.final = True
        return self.feed("")

    @property
    def cut(self) -> bool:
        """A call has begun, and its end has not been read."""
        return self._section.cut

    def message(self) -> dict[str, Any]:
        """The message so far, in OpenAI's shape."""
        return self._collector.message()

    def _bare_calls(self) -> dict[str, CallSyntax]:
        """Beginnings of bare calls of the known tools, where calls follow content unmarked."""
        return {
            begin: syntax
            for syntax in self._markup.bare
            if syntax.in_text and self._calls
            for name in self._tools.parameters
            for begin in bare_beginnings(syntax, name)
        }

    # Each state returns whether there may be more to do with the text at hand.

    def _part(self) -> bool:
        """The beginning of the message, or of another part of it: a call may stand bare."""
        self._prose.begin()
        cursor = self._cursor
        self._state = self._in_text
        if not (self._calls and self._markup.bare):
            return True
        start = skip_space(cursor.text, cursor.position)
        if start >= len(cursor.text):
            self._state = self._part
            if cursor.final:
                self._state = self._in_text
            return cursor.final
        for syntax in self._markup.bare:
            if self._bare_fits(syntax, cursor.text[start], start == cursor.position):
                self._open_calls([syntax])
                break
        return True

    def _bare_fits(self, syntax: CallSyntax, char: str, at_start: bool) -> bool:
        if core(syntax.first_open) == "[":
            return char == "["
        if syntax.style == "json_object":
            return char in "{["
        # A bare name must be the very first thing: a template puts a newline before content.
        return self._tools.known and char.isalnum() and at_start

    def _in_text(self) -> bool:
        piece, marker = self._cursor.until(self._markers)
        self._prose.content(piece)
        if marker:
            return self._at_marker(marker)
        if self._cursor.final:
            self._prose.end_content()
        return False

    def _at_marker(self, marker: str) -> bool:
        markup = self._markup
        if marker in self._beginnings:
            self._open_calls([self._beginnings[marker]])
            return True
        if marker in markup.triggers:
            self._open_calls([c for c in markup.calls if marker in c.triggers], marker)
            return True
        if marker == markup.thought_trigger and self._prose.fresh:
            return self._open_thought(marker)
        self._cursor.position += len(marker)
        if marker in markup.ends or marker in (markup.restart, markup.content_close):
            self._prose.end_content()
            self._prose.trim()
            self._state = self._behind(marker)
        elif self._prose.fresh and self._is_mere_form(marker):
            self._prose.drop_space()
        else:
            self._prose.content(marker)
        return True

    def _is_mere_form(self, marker: str) -> bool:
        """Before content: the marker that opens it, or one that closes a thought never opened."""
        if marker == self._markup.thought_close:
            return not self._thought
        return marker == self._markup.content_open

    def _behind(self, marker: str) -> Callable[[], bool]:
        if marker in self._markup.ends:
            return self._after_end
        return self._part if marker == self._markup.restart else self._in_text

    def _after_end(self) -> bool:
        """After a turn's end: the header of another turn of the same message, or nothing."""
        cursor, markup = self._cursor, self._markup
        self.ended = True
        if not cursor.skip_space():
            return False
        found, end = cursor.match(markup.header) if markup.header else (Match.NO, 0)
        # Some templates end the turn behind each call, and go on without a header.
        again = [cursor.match(core(opening))[0] for opening in markup.resumptions]
        if found is Match.FULL or Match.FULL in again:
            self.ended = False
            cursor.position = end if found is Match.FULL else cursor.position
            self._state = self._part
            return True
        if Match.PARTIAL in (found, *again) and not cursor.final:
            return False
        self._state = self._ignore
        return True

    def _ignore(self) -> bool:
        self._cursor.position = len(self._cursor.text)
        return False

    # Thoughts.

    def _open_thought(self, marker: str) -> bool:
        cursor = self._cursor
        found, end = cursor.match(self._markup.thought_open)
        if found is Match.PARTIAL and not cursor.final:
            return False
        if found is Match.FULL:
            cursor.position = end
            self._prose.drop_space()
            self._state = self._thought_start
        else:
            self._prose.content(marker)
            cursor.position += len(marker)
        return True

    def _thought_start(self) -> bool:
        if not self._cursor.skip_space() and not self._cursor.final:
            return False
        self._state = self._in_thought
        return True

    def _in_thought(self) -> bool:
        piece, marker = self._cursor.until(self._markup.in_thought)
        self._prose.thought(piece)
        if not marker:
            return False
        self._cursor.position += len(marker)
        self._prose.trim()
        self._thought = True
        is_end = marker in self._markup.ends
        self._state = self._after_end if is_end else self._after_thought
        return True

    def _after_thought(self) -> bool:
        """Some formats begin the answer after a thought with a header of its own."""
        self._cursor.skip_space()
        self._state = self._part
        if self._markup.header:
            found, end = self._cursor.match(self._markup.header)
            if found is Match.PARTIAL and not self._cursor.final:
                self._state = self._after_thought
                return False
            if found is Match.FULL:
                self._cursor.position = end
        return True

    # Calls.

    def _open_calls(self, candidates: Sequence[CallSyntax], trigger: str = "") -> None:
        self._section.begin(candidates, trigger)
        self._state = self._in_calls

    def _in_calls(self) -> bool:
        progress = self._section.step()
        if progress is Progress.TEXT:
            self._state = self._in_text
        return progress is not Progress.MORE
