"""Where messages end in a prompt, for models whose copied memory cannot be trimmed.

A recurrent state can be taken up only where it was copied, and so can a copy of more tokens than
a sliding window. Copies pay where another prompt parts
from this one: after the system message, which other conversations share, and after the last
message, since an answer may come back in other tokens than it was generated in.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from engine.radix_cache import common_prefix
from server.chat.errors import TemplateError
from server.models import ServedModel


def boundaries(
    model: ServedModel,
    messages: list[dict[str, Any]],
    kwargs: dict[str, Any],
    tools: Sequence[dict[str, Any]],
    tokens: list[int],
) -> tuple[int, ...]:
    """Lengths of `tokens`, the prompt of `messages`; none where any length can be had."""
    engine = model.loaded_engine
    window = engine.info.window or len(tokens)
    if engine.info.can_trim and len(tokens) <= window:
        return ()
    n_system = len(list(takewhile(lambda m: m["role"] in ("system", "developer"), messages)))
    lengths = set()
    for part in filter(None, (messages[:n_system], messages)):
        try:
            text = model.format.render(part, list(tools) or None, False, **kwargs)
        except TemplateError:
            continue  # Some templates take no system message alone.
        _, beginning = model.prompt_text.encode(text)
        lengths.add(common_prefix(beginning, tokens))
    return tuple(sorted(lengths))
