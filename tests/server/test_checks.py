"""The words in which every door refuses the same mistake."""

from __future__ import annotations

import pytest

from server.checks import check_tokens, check_word, missing
from server.errors import InvalidRequest


def test_missing_names_the_path() -> None:
    error = missing(("body", "tools", 0, "function", "name"))
    assert str(error) == "tools[0].function.name is missing"
    assert error.code == "missing_required_parameter"


def test_a_word_is_one_of_those_that_are_known() -> None:
    check_word("a", ("a", "b"), ("body", "x"))
    for value in ("c", None, {}, 1):
        with pytest.raises(InvalidRequest, match=r"^x must be one of a, b, but is ") as caught:
            check_word(value, ("a", "b"), ("body", "x"))
        assert caught.value.loc == ("body", "x")


@pytest.mark.parametrize(("tokens", "at"), [([1, 9, 10], 2), ([3, -1, 99], 1)])
def test_tokens_are_ids_of_the_vocabulary(tokens: list[int], at: int) -> None:
    loc = ("body", "input", 0)
    check_tokens([], 10, loc)
    check_tokens([0, 9], 10, loc)
    with pytest.raises(InvalidRequest, match=r"^input\[0\]: tokens must be 0 to 9, but ") as caught:
        check_tokens(tokens, 10, loc)
    assert caught.value.loc == (*loc, at)
