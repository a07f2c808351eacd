"""/v1/completions on a fake engine: what comes in, what goes out, and what is refused."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ContextLengthExceeded, QueueFull, StepFailed
from engine.llama.tokenizer import InfillTokens
from engine.request import Event, FinishReason, Request, TokenOutput
from server.config import ServerConfig
from tests.server.asgi import Client, Exchange
from tests.server.conftest import MODEL
from tests.server.fakes import answer, done, failure, logprobs

pytestmark = pytest.mark.anyio


async def complete(client: Client, prompt: Any = "Hi", **fields: Any) -> Exchange:
    return await client.post("/v1/completions", {"prompt": prompt, **fields})


async def body(client: Client, prompt: Any = "Hi", **fields: Any) -> Any:
    exchange = await complete(client, prompt, **fields)
    assert exchange.status == 200, exchange.body
    return exchange.json()


async def refusal(client: Client, **fields: Any) -> tuple[int, str | None]:
    exchange = await complete(client, **fields)
    return exchange.status, exchange.json()["error"]["param"]


def texts(answer: Any) -> list[str]:
    assert [choice["index"] for choice in answer["choices"]] == list(range(len(answer["choices"])))
    return [choice["text"] for choice in answer["choices"]]


def tokens(text: str) -> list[int]:
    return [ord(char) for char in text]


def echoing(request: Request) -> Iterable[Event]:
    """Every choice says how long its prompt is and which choice it is; prompts are scored."""
    scored = [score for t in request.prompt[1:] for score in logprobs(chr(t), 1)]
    for index in range(request.n):
        text = f"<{len(request.prompt)}.{index}>"
        said = [] if request.max_tokens == 0 else list(text)
        for place, char in enumerate(said or [""]):
            last = place == max(0, len(said) - 1)
            yield TokenOutput(
                index=index,
                text=char,
                n_tokens=len(char),
                logprobs=logprobs(char, request.logprobs) if char else (),
                finish_reason=FinishReason.LENGTH if last else None,
                prompt_logprobs=tuple(scored)
                if place == index == 0 and request.prompt_logprobs is not None
                else (),
            )
    yield done(len(request.prompt), 5 * request.n, cached=1)


async def test_the_shape(client):
    answer = await body(client, model="alias")
    assert answer["id"].startswith("cmpl-")
    assert answer["object"] == "text_completion"
    assert (answer["model"], answer["system_fingerprint"]) == ("fake-model", "fp_fake")
    assert answer["choices"] == [
        {"text": "Hello", "index": 0, "logprobs": None, "finish_reason": "stop", "stop_reason": 2}
    ]
    assert answer["usage"]["prompt_tokens"] == 2
    assert answer["usage"]["total_tokens"] == 7
    assert answer["timings"]["predicted_n"] == 5


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Hi", [tokens("Hi")]),
        (["Hi", "you"], [tokens("Hi"), tokens("you")]),
        ([72, 105], [[72, 105]]),
        ([[72, 105], [121]], [[72, 105], [121]]),
        (["Hi", [121]], [tokens("Hi"), [121]]),
        ("", [[2]]),
        (None, [[2]]),
    ],
)
async def test_prompts_of_every_kind(client, engine, prompt, expected):
    await body(client, prompt)
    assert sorted(request.prompt for request in engine.requests) == sorted(expected)
    assert len({request.id for request in engine.requests}) == len(expected)


async def test_options_reach_the_engine(client, engine):
    await body(
        client,
        n=2,
        best_of=2,
        stop=["a", "b"],
        seed=5,
        temperature=0.5,
        top_p=0.9,
        top_k=3,
        min_p=0.1,
        presence_penalty=1,
        frequency_penalty=-1,
        logit_bias={"65": -100},
        user="u",
        ignore_eos=True,
        logprobs=0,
        max_tokens=7,
    )
    [request] = engine.requests
    assert (request.n, request.stop, request.max_tokens) == (2, ("a", "b"), 7)
    assert (request.user, request.ignore_eos, request.logprobs) == ("user:u", True, 0)
    assert request.prompt_logprobs is None
    sampling = request.sampling
    assert (sampling.seed, sampling.temperature, sampling.top_k) == (5, 0.5, 3)
    assert sampling.logit_bias == {65: float("-inf")}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, 16),
        ({"max_tokens": 0}, 0),
        ({"max_tokens": 3}, 3),
        ({"max_tokens": 3, "max_completion_tokens": 4}, 4),
        ({"max_tokens": 100_000}, 510),
    ],
)
async def test_limits(client, engine, fields, expected):
    await body(client, **fields)
    assert engine.requests[0].max_tokens == expected


class TestCap:
    @pytest.fixture
    def config(self, tmp_path: Path) -> ServerConfig:
        return ServerConfig(models=(MODEL,), max_tokens=5)

    async def test_the_servers_cap_counts_where_no_limit_is_given(self, client, engine):
        await body(client)
        await body(client, max_tokens=9)
        assert [request.max_tokens for request in engine.requests] == [5, 9]


async def test_a_batch_numbers_its_choices_through(client, engine):
    engine.script = echoing
    answer = await body(client, ["a", "bbb", "cc"], n=2)
    assert texts(answer) == ["<1.0>", "<1.1>", "<3.0>", "<3.1>", "<2.0>", "<2.1>"]
    assert answer["usage"]["prompt_tokens"] == 6
    assert answer["usage"]["completion_tokens"] == 30
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 3
    assert answer["timings"]["queue_ms"] == 250
    assert answer["timings"]["prompt_ms"] == 1500


async def test_a_long_batch_leaves_the_queue_to_others(client, engine):
    engine.script = echoing
    engine.hold.clear()
    prompts = ["x" * length for length in range(1, 31)]
    asking = client.begin("POST", "/v1/completions", {"prompt": prompts})
    await engine.submitted.wait()
    assert len(engine.requests) == engine.info.parallel
    engine.hold.set()
    answer = (await asking.finish()).json()
    assert texts(answer) == [f"<{length}.0>" for length in range(1, 31)]


async def test_a_batch_waits_where_others_fill_the_queue(client, engine):
    engine.script = echoing
    submit, refusals = engine.submit, iter([None, QueueFull(1, 1), QueueFull(1, 1), None])

    def limited(request: Request) -> Any:
        if (error := next(refusals, None)) is not None:
            raise error
        return submit(request)

    engine.submit = limited
    assert (await complete(client, ["a", "b"])).status == 429, "nothing of it was in line"
    assert texts(await body(client, ["a", "bb", "ccc"])) == ["<1.0>", "<2.0>", "<3.0>"]


async def test_one_prompt_that_fails_fails_all(client, engine):
    def script(request: Request) -> Iterable[Event]:
        fails = len(request.prompt) == 2
        return failure(StepFailed("broken"))(request) if fails else answer("x" * 50)(request)

    engine.script = script
    assert (await complete(client, ["a", "bb", "c"])).status == 500
    assert len(engine.cancelled) == 2
    stream = (await complete(client, ["a", "bb", "c"], stream=True)).events()
    assert stream[-1]["error"]["code"] == "step_failed"


async def test_when_the_client_leaves_every_prompt_is_forgotten(client, engine):
    for fields in ({}, {"stream": True}):
        engine.hold.clear()
        engine.submitted.clear()
        left = client.begin("POST", "/v1/completions", {"prompt": ["a", "b", "c"], **fields})
        await engine.submitted.wait()
        await left.hang_up()
    assert len(engine.cancelled) == 6


async def test_a_stream_has_one_shape(client, engine):
    engine.script = echoing
    fields = {"stream": True, "stream_options": {"include_usage": True}, "n": 2}
    events = (await complete(client, ["a", "bb"], **fields)).events()
    assert events[-1] == "[DONE]"
    *chunks, last = events[:-1]
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert len({chunk["id"] for chunk in events[:-1]}) == 1
    assert all(chunk["usage"] is None for chunk in chunks)
    said = dict.fromkeys(range(4), "")
    for chunk in chunks:
        said[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    assert said == {0: "<1.0>", 1: "<1.1>", 2: "<2.0>", 3: "<2.1>"}
    ends = [c["choices"][0]["index"] for c in chunks if c["choices"][0]["finish_reason"]]
    assert sorted(ends) == [0, 1, 2, 3]
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 20)


async def test_echo_repeats_the_prompt(client, engine):
    assert texts(await body(client, ["Hi ", [104, 111]], echo=True)) == ["Hi Hello", "hoHello"]
    events = (await complete(client, ["Hi ", "ho "], echo=True, stream=True, n=2)).events()
    opening = [chunk["choices"][0] for chunk in events[:4]]
    assert [(each["index"], each["text"]) for each in opening] == [
        (0, "Hi "),
        (1, "Hi "),
        (2, "ho "),
        (3, "ho "),
    ]
    assert all(request.prompt_logprobs is None for request in engine.requests)


async def test_a_document_begins_once(client, engine):
    engine.tokenizer.bos, engine.tokenizer.adds_bos = 0xE001, True
    await body(client, ["ab", "\ue001ab", "", [97]])
    assert sorted(request.prompt for request in engine.requests) == sorted(
        [[0xE001, 97, 98], [0xE001, 97, 98], [0xE001], [97]]
    )


async def test_response_format_constrains(client, engine):
    await body(client, response_format={"type": "regex", "pattern": "a+"})
    assert engine.requests[0].grammar is engine.compiled[0]


async def test_suffix_fills_a_gap(client, engine):
    engine.tokenizer.infill = InfillTokens(0xE001, 0xE002, 0xE003)  # type: ignore[assignment]
    await body(client, ["ab", [120]], suffix="cd")
    assert [request.prompt for request in engine.requests] == [
        [0xE001, *tokens("ab"), 0xE002, *tokens("cd"), 0xE003],
        [0xE001, 120, 0xE002, *tokens("cd"), 0xE003],
    ]


async def test_an_empty_suffix_is_none(client, engine):
    await body(client, "ab", suffix="")
    assert engine.requests[0].prompt == tokens("ab")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": ["a", []]}, "prompt[1]"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [1, -1]}, "prompt[1]"),
        ({"prompt": ["a", [1, 0x110000]]}, "prompt[1][1]"),
        ({"prompt": [[1.5]]}, "prompt[0][0]"),
        ({"prompt": {"text": "a"}}, "prompt"),
        ({"prompt": ["a"] * 2049}, "prompt"),
        ({"prompt": ["a"] * 17, "best_of": 128}, "prompt"),
        ({"logprobs": 6}, "logprobs"),
        ({"logprobs": -1}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"best_of": 0}, "best_of"),
        ({"best_of": 129}, "best_of"),
        ({"n": 3, "best_of": 2}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"n": 0}, "n"),
        ({"temperature": 3}, "temperature"),
        ({"stop": ""}, "stop"),
        ({"stream_options": {}}, "stream_options"),
        ({"suffix": "x"}, "suffix"),
        ({"suffix": "x", "echo": True}, "echo"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"logit_bias": {"x": 1}}, "logit_bias.x"),
        ({"fallbacks": ["ghost"]}, "fallbacks[0]"),
    ],
)
async def test_refusals_name_the_field(client, engine, fields, param):
    assert await refusal(client, **{"prompt": "Hi", **fields}) == (400, param)
    assert engine.requests == []


async def test_the_least_limit_is_said_as_it_is(client):
    message = (await complete(client, max_tokens=-1)).json()["error"]["message"]
    assert message == "max_tokens must be at least 0, but is -1"


async def test_errors_of_the_engine(client, engine):
    error = (await complete(client, "x" * 512)).json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "prompt")
    assert (await complete(client, model="ghost")).status == 404
    engine.refusal = ContextLengthExceeded(600, 512)
    assert await refusal(client) == (400, "prompt")


async def test_what_means_nothing_is_listed(client, engine):
    exchange = await complete(client, metadata={"a": "b"}, nonsense=1)
    assert exchange.headers["x-ignored-params"] == "nonsense, metadata"
