"""Text that is safe to send, whatever the tokens cut through."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.output import OutputText
from engine.request import TokenLogprob


def stream(
    pieces: list[bytes], stop: tuple[str, ...] = (), *, include_stop: bool = False
) -> tuple[list[str], list[int], str | None]:
    """Deltas, indices of the tokens whose log probabilities came, and the stop string."""
    output = OutputText(pieces.__getitem__, frozenset(), stop, include_stop)
    deltas, sent = [], []
    for token, piece in enumerate(pieces):
        output.push(token, TokenLogprob(token, piece, -1.0, (), bytes))
        final = output.stop_string is not None or token == len(pieces) - 1
        text, logprobs = output.take(final=final)
        deltas.append(text)
        sent += [logprob.token for logprob in logprobs]
        if final:
            break
    return deltas, sent, output.stop_string


def test_a_character_split_over_tokens_comes_whole() -> None:
    euro = "€".encode()
    deltas, sent, _ = stream([b"a", euro[:1], euro[1:2], euro[2:], b"b"])
    assert deltas == ["a", "", "", "€", "b"]
    assert sent == [0, 1, 2, 3, 4]


def test_an_unfinished_character_at_the_end_is_dropped() -> None:
    deltas, sent, _ = stream([b"a", "€".encode()[:2]])
    assert deltas == ["a", ""]
    assert sent == [0, 1]


def test_bytes_that_are_no_utf8_become_the_replacement_character() -> None:
    assert "".join(stream([b"a\xff", b"b"])[0]) == "a\ufffdb"


def test_a_possible_stop_is_held_back_and_released() -> None:
    deltas, sent, stopped = stream([b"one ", b"EN", b"Dless", b" two"], ("END.",))
    assert deltas == ["one ", "", "ENDless", " two"]
    assert sent == [0, 1, 2, 3]
    assert stopped is None


@pytest.mark.parametrize(
    ("include", "text", "sent"), [(False, "ab", [0]), (True, "abEND", [0, 1, 2])]
)
def test_a_stop_over_tokens(include: bool, text: str, sent: list[int]) -> None:
    result = stream([b"ab", b"EN", b"Dcd", b"never"], ("END",), include_stop=include)
    assert ("".join(result[0]), result[1], result[2]) == (text, sent, "END")


def test_the_earliest_of_several_stops_wins() -> None:
    assert stream([b"xxbayy"], ("a", "ba"))[2] == "ba"


def test_hidden_tokens_have_no_text() -> None:
    output = OutputText([b"<x>", b"a"].__getitem__, frozenset({0}))
    output.push(0)
    output.push(1)
    assert output.take() == ("a", ())


texts = st.text(alphabet="abc€é", max_size=30)


@given(texts, st.lists(st.text(alphabet="abc€", min_size=1, max_size=4), max_size=3), st.data())
def test_any_tokenization_gives_the_text_up_to_its_first_stop(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    encoded = text.encode()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(encoded)))) | {0, len(encoded)})
    pieces = [encoded[a:b] for a, b in itertools.pairwise(cuts)] or [b""]
    deltas, _, stopped = stream(pieces, tuple(stops))
    result = "".join(deltas)
    if stopped is None:
        assert result == text
        assert not any(stop in text for stop in stops)
    else:
        assert text.startswith(result + stopped)
        assert not any(stop in result for stop in stops)
