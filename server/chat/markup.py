"""The parts of a format a parser needs, made ready once per format."""

from collections.abc import Iterable, Sequence

from server.chat.scan import Markers
from server.chat.syntax import CallSyntax, ChannelSyntax, ThoughtSyntax, core


class Markup:
    """Literals and marker sets. Immutable after construction: parsers share it."""

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
        self.restart = restart
        self.thought_open = core(thought.open)
        self.thought_close = thought.close.strip()
        self.thought_trigger = thought.open.strip().split("\n")[0]
        self.content_open, self.content_close = (text.strip() for text in content)
        self.content_lead, self.content_tail = spaces
        self.ends = frozenset(ends)
        self.calls = tuple(calls)
        self.channels = channels
        self.bare = () if channels else tuple(c for c in calls if not c.triggers)
        self.triggers = frozenset(() if channels else (t for c in calls for t in c.triggers))
        bare = [c.first_open + c.pieces[0].text for c in self.bare if c.pieces]
        begins = (*self.triggers, *bare, "" if header else self.thought_trigger)
        self.resumptions = tuple(filter(None, map(core, begins)))
        self.content_name = self._content_by_name()
        self._prose = (
            *ends,
            restart,
            self.thought_trigger,
            self.thought_close,
            "" if self.content_name else self.content_open,
            self.content_close,
        )
        self.in_text = Markers([*self._prose, *self.triggers])
        self.in_text_without_calls = Markers(self._prose)
        self.in_thought = Markers([*ends, self.thought_close])
        tag = [channels.message_tag] if channels else []
        self.in_channel_header = Markers([*tag, *ends, self.thought_close])

    def in_text_with(self, beginnings: Iterable[str]) -> Markers:
        """Marker set of free text in which calls may also begin unmarked."""
        return Markers([*self._prose, *self.triggers, *beginnings])

    def _content_by_name(self) -> str:
        """Where content is addressed like a call (>>>all), the name it goes by."""
        if not self.calls or not self.content_open:
            return ""
        name = self.content_open.removeprefix(core(self.calls[0].first_open))
        return name if name.isalnum() else ""
