"""/v1/completions: log probabilities in the old shape, of what is generated and of the prompt."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from engine.request import Event, FinishReason, Request, TokenLogprob, TokenOutput
from tests.server.fakes import done
from tests.server.test_completions import body, complete, echoing, texts

pytestmark = pytest.mark.anyio


async def test_logprobs_in_the_old_shape(client, engine):
    answer = await body(client, logprobs=2)
    assert answer["choices"][0]["logprobs"] == {
        "tokens": ["H", "e", "l", "l", "o"],
        "token_logprobs": [-1.0] * 5,
        "top_logprobs": [
            {char: -1.0, chr(ord(char) + 1): -2.0} for char in ("H", "e", "l", "l", "o")
        ],
        "text_offset": [0, 1, 2, 3, 4],
    }
    assert (await body(client, logprobs=0))["choices"][0]["logprobs"]["top_logprobs"][0] == {
        "H": -1.0
    }


@pytest.mark.parametrize("stream", [False, True])
async def test_echo_with_logprobs_lists_the_prompt_too(client, engine, stream):
    engine.script = echoing
    fields = {"echo": True, "logprobs": 1, "n": 2, "stream": stream}
    exchange = await complete(client, ["abc", "de"], **fields)
    listed: dict[int, dict[str, list[Any]]] = {}
    said = dict.fromkeys(range(4), "")
    answers = [each for each in exchange.events() if each != "[DONE]"] if stream else []
    for part in answers or [exchange.json()]:
        for choice in part["choices"]:
            said[choice["index"]] += choice["text"]
            lists = listed.setdefault(choice["index"], {})
            for name, values in choice["logprobs"].items():
                lists.setdefault(name, []).extend(values)
    assert said == {0: "abc<3.0>", 1: "abc<3.1>", 2: "de<2.0>", 3: "de<2.1>"}
    for index, text in said.items():
        lists = listed[index]
        assert "".join(lists["tokens"]) == text
        assert lists["text_offset"] == list(range(len(text)))
        assert lists["token_logprobs"] == [None, *[-1.0] * (len(text) - 1)]
        assert lists["top_logprobs"][0] is None
    assert [request.prompt_logprobs for request in engine.requests] == [1, 1]


async def test_a_prompt_can_be_scored_and_nothing_else(client, engine):
    engine.script = echoing
    answer = await body(client, "abc", echo=True, logprobs=0, max_tokens=0)
    assert texts(answer) == ["abc"]
    assert answer["choices"][0]["logprobs"]["tokens"] == ["a", "b", "c"]
    assert answer["choices"][0]["finish_reason"] == "length"


async def test_a_token_that_the_vocabulary_adds_is_listed_but_takes_no_room(client, engine):
    engine.script = echoing
    tokenizer = engine.tokenizer
    tokenizer.bos, tokenizer.adds_bos = 0xE001, True
    lists = (await body(client, "ab", echo=True, logprobs=0))["choices"][0]["logprobs"]
    assert lists["tokens"][:3] == ["\ue001", "a", "b"]
    assert lists["text_offset"][:4] == [0, 0, 1, 2]
    assert lists["token_logprobs"][:2] == [None, -1.0]


async def test_tokens_that_split_a_character_keep_their_bytes(client, engine):
    data = "é€".encode()

    def script(request: Request) -> Iterable[Event]:
        parts = [data[:1], data[1:2], data[2:3], data[3:]]
        listed = tuple(
            TokenLogprob(i, part, -1.0, [(9, -0.5)], {9: b"\xff"}.__getitem__)
            for i, part in enumerate(parts)
        )
        yield TokenOutput(
            index=0, text="é€", n_tokens=4, logprobs=listed, finish_reason=FinishReason.LENGTH
        )
        yield done()

    engine.script = script
    lists = (await body(client, logprobs=1))["choices"][0]["logprobs"]
    assert lists["tokens"] == ["bytes:\\xc3", "bytes:\\xa9", "bytes:\\xe2", "bytes:\\x82\\xac"]
    assert lists["text_offset"] == [0, 0, 1, 1]
    assert lists["top_logprobs"][0] == {"bytes:\\xff": -0.5, "bytes:\\xc3": -1.0}


async def test_best_of_returns_the_likeliest(client, engine):
    def script(request: Request) -> Iterable[Event]:
        for index, logprob in enumerate((-3.0, -1.0, -2.0)):
            listed = (TokenLogprob(65, b"A", logprob, (), bytes),) * (3 - index)
            yield TokenOutput(
                index=index,
                text=str(index),
                n_tokens=1,
                logprobs=listed,
                finish_reason=FinishReason.STOP,
            )
        yield done(completion=6)

    engine.script = script
    answer = await body(client, n=2, best_of=3)
    assert texts(answer) == ["1", "2"]
    assert answer["choices"][0]["logprobs"] is None
    assert answer["usage"]["completion_tokens"] == 6
    assert (engine.requests[0].n, engine.requests[0].logprobs) == (3, 0)
