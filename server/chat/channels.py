"""Formats whose messages are made of channels: every part has a header that says what it is."""

from server.chat.parser import OutputParser
from server.chat.scan import Match, skip_space
from server.chat.syntax import ChannelSyntax, core

_LONGEST_HEADER = 400


class ChannelParser(OutputParser):
    """Reads <channel_tag>name … <message_tag>text<end>, one part after the other."""

    def _part(self) -> bool:
        """A part begins with its header; text without one is content."""
        self._prose.begin()
        cursor, channels = self._cursor, self._channels
        start = skip_space(cursor.text, cursor.position)
        if start >= len(cursor.text) and not cursor.final:
            return False
        found, _ = cursor.match(core(channels.channel_tag))
        addressed, _ = cursor.match(core(channels.recipient))
        if Match.PARTIAL in (found, addressed) and not cursor.final:
            return False
        has_header = Match.FULL in (found, addressed)
        self._state = self._in_header if has_header else self._in_text
        return True

    @property
    def _channels(self) -> ChannelSyntax:
        assert self._markup.channels is not None
        return self._markup.channels

    def _in_header(self) -> bool:
        cursor, start = self._cursor, self._cursor.position
        head, marker = cursor.until(self._markup.in_channel_header)
        if not marker:
            cursor.position = start
            if len(cursor.text) - start <= _LONGEST_HEADER and not cursor.final:
                return False
            self._state = self._in_text
            return True
        cursor.position += len(marker)
        if marker != self._channels.message_tag:
            self._state = self._after_end
            return True
        name = _recipient(head, self._channels.recipient)
        if name and self._calls:
            self._section.begin_addressed(name)
            self._state = self._in_calls
        elif _channel(head, self._channels.channel_tag) == self._channels.thought:
            self._state = self._thought_start
        else:
            self._state = self._in_text
        return True

    def _in_text(self) -> bool:
        piece, marker = self._cursor.until(self._markup.in_thought)
        self._prose.content(piece)
        if marker or self._cursor.final:
            self._prose.end_content()
        if not marker:
            return False
        self._cursor.position += len(marker)
        self._prose.trim()
        self._state = self._after_end
        return True


def _recipient(head: str, prefix: str) -> str:
    """The function a header addresses ("" for none)."""
    marker = prefix.split("=")[0] + "="
    if marker not in head:
        return ""
    rest = head.split(marker, 1)[1].split("<")[0].split()
    return rest[0].removeprefix(prefix.split("=", 1)[1]) if rest else ""


def _channel(head: str, tag: str) -> str:
    words = head.split(tag, 1)[-1].split("<")[0].split() if tag in head else []
    return words[0] if words else ""
