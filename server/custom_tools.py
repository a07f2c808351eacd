"""Custom tools take one free text: to the model each is a function with the parameter `input`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from server.errors import InvalidRequest, Loc, UnsupportedField, quote

PARAMETER = "input"
SYNTAXES = ("lark", "regex")
_BEGIN = re.compile(r'\s*\{\s*"input"\s*:\s*"')
_BEFORE = re.compile(r'\s*(\{?|\{\s*(""?|"i|"in|"inp|"inpu|"input|"input"\s*:?)\s*)')
_PLAIN = re.compile(r'[^"\\]+')
_SURROGATE = re.compile(r"\\u[dD][89abAB]")


def read_custom(tool: Mapping[str, Any], loc: Loc) -> tuple[dict[str, Any], dict[str, Any]]:
    """The function that stands for a custom tool (chat completions' shape) found at `loc`.

    As the template shows it, and as it is constrained: with `input_grammar`, (syntax, definition),
    where the tool has one. The name is checked elsewhere. Raises InvalidRequest.
    """
    custom = tool.get("custom")
    if not isinstance(custom, Mapping):
        raise InvalidRequest("a custom tool needs custom", loc=(*loc, "custom"))
    grammar = _grammar(custom.get("format"), (*loc, "custom", "format"))
    text: dict[str, Any] = {"type": "string"}
    if grammar is not None:
        text["description"] = f"Must match this {grammar[0]} grammar:\n{grammar[1]}"
    shown = {
        "name": custom.get("name"),
        "description": custom.get("description") or "",
        "parameters": {
            "type": "object",
            "properties": {PARAMETER: text},
            "required": [PARAMETER],
            "additionalProperties": False,
        },
    }
    return shown, {**shown, "input_grammar": grammar} if grammar else shown


def _grammar(format: Any, loc: Loc) -> tuple[str, str] | None:
    """(syntax, definition); None where any text will do."""
    if format is None or (isinstance(format, Mapping) and format.get("type") == "text"):
        return None
    if not isinstance(format, Mapping) or format.get("type") != "grammar":
        raise UnsupportedField(
            f"the format of a custom tool must be text or grammar, but is {quote(format)}", loc=loc
        )
    grammar = format.get("grammar", format)
    syntax = grammar.get("syntax") if isinstance(grammar, Mapping) else None
    definition = grammar.get("definition") if isinstance(grammar, Mapping) else None
    if syntax not in SYNTAXES or not isinstance(definition, str) or not definition:
        raise InvalidRequest(
            "a grammar needs a syntax (lark or regex) and a definition",
            loc=(*loc, "grammar") if "grammar" in format else loc,
        )
    return str(syntax), definition


def as_arguments(text: str) -> str:
    """The arguments of the function that stands for a custom tool."""
    return json.dumps({PARAMETER: text}, ensure_ascii=False)


class InputReader:
    """The arguments of such a function in fragments → the text of `input` in fragments.

    Arguments of any other form, which a model that no grammar holds may write, come as they are.
    """

    def __init__(self) -> None:
        self._text = ""
        self._inside = False
        self._over = False
        self._other = False

    def read(self, fragment: str) -> str:
        """What more is certain of the text."""
        self._text += fragment
        if self._over:
            return ""
        if not self._inside and not self._other:
            if begin := _BEGIN.match(self._text):
                self._inside, self._text = True, self._text[begin.end() :]
            elif not _BEFORE.fullmatch(self._text):
                self._other = True
        if self._other:
            text, self._text = self._text, ""
            return text
        return self._unescaped() if self._inside else ""

    def finish(self) -> str:
        """What was held back, where the arguments end in the middle of the beginning."""
        return "" if self._inside or self._over else self.read("\0").removesuffix("\0")

    def _unescaped(self) -> str:
        """Everything up to the closing quote, or up to an escape that is still incomplete."""
        out, at = [], 0
        while at < len(self._text):
            if plain := _PLAIN.match(self._text, at):
                out.append(plain[0])
                at = plain.end()
            elif self._text[at] == '"':
                self._over = True
                break
            elif escape := _escape(self._text, at):
                out.append(_character(escape))
                at += len(escape)
            else:
                break
        self._text = self._text[at:]
        return "".join(out)


def _escape(text: str, at: int) -> str:
    """The escape at `at`, both halves of a pair; "" while it is incomplete."""
    size = 6 if text[at + 1 : at + 2] == "u" else 2
    if _SURROGATE.match(text, at) and "\\u".startswith(text[at + 6 : at + 8]):
        size = 12
    return text[at : at + size] if len(text) >= at + size else ""


def _character(escape: str) -> str:
    """A lone half of a pair is no character."""
    return str(json.loads(f'"{escape}"')).encode("utf-8", "replace").decode()
