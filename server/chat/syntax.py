"""A chat format as data: what stands before, between and after what a model says.

Literal texts are kept as the template prints them, whitespace included; readers compare them with
whitespace left out (`core`), because models are less exact about it than templates.
"""

import itertools
import re
from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

Style = Literal["json_object", "name_then_json", "parameters", "python", "keyed"]
Slot = Literal["name", "id", "index", "arguments"]

_LONGEST_OPENING = 2000
_SPACE = re.compile(r"\s+")
_BRACKETS = r"\[/?[A-Z][A-Z_ ]+\]"
_ATOM = rf"<[^<>\n]*>?|{_BRACKETS}|\s+|[^<\[\s]+|\["
_TAG = rf"<[^<>\s][^<>\n]*>|{_BRACKETS}"


class Piece(Struct, frozen=True):
    """A literal text, or a slot that each call fills."""

    text: str = ""
    slot: Slot | None = None


class ParameterSyntax(Struct, frozen=True):
    """Arguments one by one: open key after_key value close. JSON values may have their own."""

    open: str
    after_key: str
    close: str
    separator: str = ""
    after_key_json: tuple[str, ...] = ()  # what stands there before other values
    close_json: str = ""

    @property
    def typed(self) -> bool:
        """Whether the markers tell a string from other values."""
        return core(self.after_key) not in map(core, self.after_key_json)


class CallSyntax(Struct, frozen=True):
    """How calls are written: section_open (call_open pieces call_close) separator … section_close.

    style: json_object     one JSON object carries name and arguments
           name_then_json  the name, then the arguments as JSON
           parameters      the name, then each argument between markers (`parameters`)
           python          name(key=literal, …)
           keyed           name{key:value, …} with strings between `quote` marks
    """

    style: Style
    pieces: tuple[Piece, ...]
    section_open: str = ""
    call_open: str = ""
    call_close: str = ""
    separator: str = ""
    section_close: str = ""
    parallel: bool = True  # whether one turn can hold several calls
    triggers: tuple[str, ...] = ()  # each opens a call in free text; () where calls are bare
    name_path: tuple[str, ...] = ()  # json_object: the keys that lead to the name
    arguments_path: tuple[str, ...] = ()
    id_path: tuple[str, ...] = ()
    name_is_key: bool = False  # json_object: {"the name": {arguments}}
    encoded: bool = False  # the arguments are JSON inside a JSON string
    parameters: ParameterSyntax | None = None
    quote: str = '"'
    python_words: bool = False  # True, False, None instead of true, false, null
    escapes: bool = True  # python: whether strings are escaped
    in_text: bool = False  # bare calls may follow content
    fixed_name: str = ""  # the marker stands for this one function

    @property
    def first_open(self) -> str:
        return self.section_open + self.call_open

    @property
    def next_open(self) -> str:
        return self.separator + self.call_open

    def opening_start(self, text: str) -> int:
        """Where the opening of a turn's first call starts, whose name follows on `text`; or -1."""
        tail = text[-_LONGEST_OPENING:]
        for opening in (self.first_open, self.call_open):
            parts = filter(None, (_loosely(opening), *self._before_name()))
            pattern = r"\s*".join(parts)
            found = re.search(pattern + r"\s*$", tail) if pattern else None
            if found:
                start = len(text) - len(tail) + found.start()
                space = opening[: len(opening) - len(opening.lstrip())]
                return start - len(space) if text[:start].endswith(space) else start
        return max((text.rfind(trigger) for trigger in self.triggers), default=-1)

    def _before_name(self) -> Iterator[str]:
        """Patterns of the pieces that stand before the name."""
        for piece in self.pieces:
            if piece.slot == "name":
                return
            yield r"\s*[\w.:-]+" if piece.slot else _loosely(piece.text)

    def between(self, before: Slot, after: Slot) -> str:
        """The literal text between two neighbouring slots ("" where they are no neighbours)."""
        for left, literal, right in zip(
            self.pieces, self.pieces[1:], self.pieces[2:], strict=False
        ):
            if (left.slot, right.slot) == (before, after):
                return literal.text
        return ""


class ThoughtSyntax(Struct, frozen=True):
    """Where a thought opens and closes."""

    open: str  # as printed: "<think>\n"
    close: str
    learned: bool = True  # False: nothing in the template says so, these are the customary tags


class ChannelSyntax(Struct, frozen=True):
    """Messages with a header: channel_tag, the channel's name, message_tag, the text."""

    channel_tag: str
    message_tag: str
    thought: str
    content: str
    recipient: str  # stands before a function's name in the header of a call


def _loosely(text: str) -> str:
    """A pattern for a literal without regard to whitespace."""
    return "".join(r"\s*" + re.escape(char) for char in core(text)).removeprefix(r"\s*")


def core(text: str) -> str:
    """The text without whitespace: what literals are compared by."""
    return _SPACE.sub("", text)


class Lexer:
    """Splits template text into atoms: markers, words and runs of whitespace.

    A marker is a tag, or a compound: a tag that is always followed by words and one other tag
    (<|open|>think<|sep|>), found in `sample`, a rendered conversation.
    """

    def __init__(self, sample: str = "") -> None:
        pairs = [
            re.escape(first) + r"[^<\n]*(?:" + re.escape(last) + ")?"
            for first, last in _compounds(sample)
        ]
        self._marker = re.compile("|".join([*pairs, _TAG]))
        self._atom = re.compile("|".join([*pairs, _ATOM]))

    def atoms(self, text: str) -> list[str]:
        return self._atom.findall(text)

    def markers(self, text: str) -> list[str]:
        return self._marker.findall(text)

    def common_prefix(self, first: str, second: str) -> str:
        """The longest beginning of both that ends between atoms, or within whitespace."""
        shared = []
        for left, right in zip(self.atoms(first), self.atoms(second), strict=False):
            if left != right:
                spaces = not core(left) and not core(right)
                shared.append(shared_beginning(left, right) if spaces else "")
                break
            shared.append(left)
        return "".join(shared)

    def common_suffix(self, first: str, second: str) -> str:
        """The longest ending of both that begins between atoms."""
        shared = []
        pairs = zip(reversed(self.atoms(first)), reversed(self.atoms(second)), strict=False)
        for left, right in pairs:
            if left != right:
                break
            shared.append(left)
        return "".join(reversed(shared))


def _compounds(sample: str) -> list[tuple[str, str]]:
    """Pairs of tags that enclose bare words wherever the first one stands, three words at least."""
    tags = [(m.start(), m.end(), m.group()) for m in re.finditer(_TAG, sample)]
    followed: dict[str, set[str]] = {}
    words: dict[str, set[str]] = {}
    for (_, end, tag), (start, _, after) in itertools.pairwise(tags):
        between = sample[end:start]
        bare = bool(between) and "\n" not in between and between[0].isalpha()
        followed.setdefault(tag, set()).add(after if bare else "")
        words.setdefault(tag, set()).add(between)
    found = []
    for tag, lasts in followed.items():
        last = next(iter(lasts))
        if len(lasts) == 1 and last and last != tag and len(words[tag]) >= 3:
            found.append((tag, last))
    return found


def shared_beginning(first: str, second: str) -> str:
    """The longest common beginning, letter by letter."""
    length = 0
    for left, right in zip(first, second, strict=False):
        if left != right:
            break
        length += 1
    return first[:length]
