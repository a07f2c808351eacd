"""Syntaxes for templates that print no calls: suggested by their markers, or the generic one."""

import re
from collections.abc import Sequence

from msgspec.structs import replace

from server.chat.syntax import CallSyntax, Lexer, Piece, Style


def stated_syntaxes(lexer: Lexer, prompt: str, without: str) -> Sequence[CallSyntax]:
    """For templates that list tools but print no calls: shapes suggested by their markers.

    `prompt` is the prompt with tools, `without` the one without.
    """
    said = [tag for tag in lexer.markers(prompt) if tag not in without]
    if "<tool_call>" in said:
        return (GENERIC,)
    for tag in said:
        if re.fullmatch(r"[<\[]\|?(tool|function)_?calls?\|?[>\]]", tag, re.IGNORECASE):
            close = re.sub(r"^([<\[]\|?)", r"\1/", tag)
            return _list_syntaxes(tag, close if close in said else "", "json_object")
    for tag in said:
        close = tag.replace("tool", "/tool")
        if re.fullmatch(r"<\|?tools?\|?>", tag) and "|" in tag and close in said:
            named = re.sub("tools?", "tool_call", tag)
            return _list_syntaxes(named, named.replace("tool", "/tool"), "json_object")
    for tag in said:
        match = re.fullmatch(r"<\|?tool_\w*?_?(start|begin)\|?>", tag)
        if match and tag.replace("start", "end").replace("begin", "end") in prompt:
            opened = re.sub(r"tool_\w*?_?(start|begin)", r"tool_call_\1", tag)
            closed = opened.replace("start", "end").replace("begin", "end")
            return _list_syntaxes(opened, closed, "python")
    return ()


def _list_syntaxes(opened: str, closed: str, style: Style) -> Sequence[CallSyntax]:
    """A list of JSON objects and a list of Python calls between the same markers."""
    shared = CallSyntax(
        style="json_object",
        pieces=(
            Piece('{"name": "'),
            Piece(slot="name"),
            Piece('", "arguments": '),
            Piece(slot="arguments"),
            Piece("}"),
        ),
        section_open=opened + "[",
        separator=", ",
        section_close="]" + closed,
        triggers=(opened,),
        name_path=("name",),
        arguments_path=("arguments",),
    )
    python = replace(
        shared,
        style="python",
        pieces=(Piece(slot="name"), Piece("("), Piece(slot="arguments"), Piece(")")),
        python_words=True,
        name_path=(),
        arguments_path=(),
    )
    return (python, shared) if style == "python" else (shared, python)


GENERIC = CallSyntax(
    style="json_object",
    pieces=(
        Piece('{"name": "'),
        Piece(slot="name"),
        Piece('", "arguments": '),
        Piece(slot="arguments"),
        Piece("}"),
    ),
    call_open="<tool_call>\n",
    call_close="\n</tool_call>",
    separator="\n",
    triggers=("<tool_call>",),
    name_path=("name",),
    arguments_path=("arguments",),
)
