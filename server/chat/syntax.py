"""A chat format as data: what stands before, between and after what a model says.

Literal texts are kept as the template prints them, whitespace included; readers compare them with
whitespace left out (`core`), because models are less exact about it than templates.
"""

import re
from typing import Literal

from msgspec import Struct

Style = Literal["json_object", "name_then_json", "parameters", "python", "keyed"]
Slot = Literal["name", "id", "index", "arguments"]

_SPACE = re.compile(r"\s+")
_ATOM = re.compile(r"<[^<>\n]*>?|\[/?[A-Z_]+\]|\s+|[^<\[\s]+|\[")
TAG = re.compile(r"<[^<>\s][^<>\n]*>|\[/?[A-Z_]{2,}\]")


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
    after_key_json: str = ""
    close_json: str = ""

    @property
    def typed(self) -> bool:
        """Whether the markers tell a string from other values."""
        return core(self.after_key) != core(self.after_key_json)


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
    fixed_name: str = ""  # the marker stands for this one function

    @property
    def first_open(self) -> str:
        return self.section_open + self.call_open

    @property
    def next_open(self) -> str:
        return self.separator + self.call_open

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


def core(text: str) -> str:
    """The text without whitespace: what literals are compared by."""
    return _SPACE.sub("", text)


def atoms(text: str) -> list[str]:
    """Tags, words and runs of whitespace."""
    return _ATOM.findall(text)


def common_prefix(first: str, second: str) -> str:
    """The longest beginning of both that ends between atoms."""
    shared = []
    for left, right in zip(atoms(first), atoms(second), strict=False):
        if left != right:
            break
        shared.append(left)
    return "".join(shared)


def common_suffix(first: str, second: str) -> str:
    """The longest ending of both that begins between atoms."""
    shared = []
    for left, right in zip(reversed(atoms(first)), reversed(atoms(second)), strict=False):
        if left != right:
            break
        shared.append(left)
    return "".join(reversed(shared))


def tags(text: str) -> list[str]:
    """The markers in a text that look like tokens of their own."""
    return TAG.findall(text)
