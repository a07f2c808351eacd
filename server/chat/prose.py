"""Content and thoughts on their way to the collector, whitespace set right at their edges."""

from server.chat.deltas import Collector


class Prose:
    """Whitespace at the end of a piece waits: it counts only if more of the same follows."""

    __slots__ = ("_collector", "_lead", "_space", "_tail", "_trims", "fresh")

    def __init__(self, collector: Collector, lead: str, tail: str) -> None:
        self._collector = collector
        self._lead = lead  # whitespace the template itself puts before content
        self._tail = tail  # and behind it
        self._space = ""
        self._trims = False  # after a thought or a call, leading whitespace is no content
        self.fresh = True  # no content yet in this part of the message

    def begin(self) -> None:
        """A new part of the message."""
        self.fresh = True
        self._space = ""

    def trim(self) -> None:
        """What stands before the next content is whitespace of the format."""
        self._trims = True
        self._space = ""

    def drop_space(self) -> None:
        self._space = ""

    def content(self, piece: str) -> None:
        body = piece.rstrip()
        if not body:
            self._space += piece
            return
        lead = self._space
        if self.fresh:
            lead += piece[: len(piece) - len(piece.lstrip())]
            lead = "" if self._trims else lead.removeprefix(self._lead)
            body = body.lstrip()
        self._collector.content(lead + body)
        self.fresh = False
        self._space = piece[len(piece.rstrip()) :]

    def end_content(self) -> None:
        if not self.fresh:
            self._collector.content(self._space.removesuffix(self._tail))
        self._space = ""

    def thought(self, piece: str) -> None:
        body = piece.rstrip()
        if not body:
            self._space += piece
            return
        self._collector.reasoning(self._space + body)
        self._space = piece[len(body) :]
