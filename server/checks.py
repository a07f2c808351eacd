"""What several doors check, so that all of them refuse it in the same words."""

from __future__ import annotations

from collections.abc import Sequence

from server.errors import InvalidRequest, Loc, field_path, quote


def missing(loc: Loc) -> InvalidRequest:
    """The error of a field that must be at `loc` and is not."""
    return InvalidRequest(
        f"{field_path(loc[1:])} is missing", loc=loc, code="missing_required_parameter"
    )


def check_word(value: object, words: Sequence[str], loc: Loc) -> None:
    """Raises InvalidRequest unless `value`, found at `loc`, is one of `words`."""
    if value not in words:
        raise InvalidRequest(
            f"{field_path(loc[1:])} must be one of {', '.join(words)}, but is {quote(value)}",
            loc=loc,
        )


def check_tokens(tokens: Sequence[int], n_vocab: int, loc: Loc) -> None:
    """Raises InvalidRequest unless all of `tokens`, found at `loc`, are ids of the vocabulary."""
    for token in (min(tokens), max(tokens)) if tokens else ():
        if not 0 <= token < n_vocab:
            raise InvalidRequest(
                f"{field_path(loc[1:])}: tokens must be 0 to {n_vocab - 1}, but one is {token}",
                loc=(*loc, tokens.index(token)),
                code="invalid_token",
            )
