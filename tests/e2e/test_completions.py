"""/v1/completions on the real model, with the official client."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from openai.types import Completion

from tests.e2e.chat import MODEL, QUESTION, ask
from tests.e2e.server_process import ServerProcess
from tests.engine.tiny_models import write

PROMPT = "The capital of France is"


def complete(client: OpenAI, prompt: Any = PROMPT, **fields: Any) -> Any:
    """Greedy, a few tokens."""
    known = {"model": MODEL, "prompt": prompt, "max_tokens": 6, "temperature": 0} | fields
    create: Any = client.completions.create
    return create(**known)


def text_of(completion: Completion) -> str:
    return completion.choices[0].text


def encode(http: httpx.Client, text: str) -> list[int]:
    tokens: list[int] = http.post("/tokenize", json={"content": text}).json()["tokens"]
    return tokens


@pytest.mark.parametrize("fields", [{}, {"stop": "."}, {"echo": True}, {"logprobs": 2}])
def test_a_stream_says_what_the_whole_answer_says(client: OpenAI, fields: dict[str, Any]) -> None:
    whole = complete(client, **fields)
    chunks = list(complete(client, stream=True, stream_options={"include_usage": True}, **fields))
    assert "".join(c.choices[0].text for c in chunks if c.choices) == text_of(whole)
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert [reason for reason in reasons if reason] == [whole.choices[0].finish_reason]
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert "Paris" in text_of(whole)
    if "logprobs" in fields:
        listed = [c.choices[0].logprobs for c in chunks if c.choices and c.choices[0].logprobs]
        tokens = [token for each in listed for token in each.tokens]
        assert tokens == whole.choices[0].logprobs.tokens


def test_text_and_its_tokens_are_one_prompt(client: OpenAI, http: httpx.Client) -> None:
    tokens = encode(http, PROMPT)
    other = encode(http, "One, two, three,")
    batch = complete(client, [tokens, other], n=2)
    assert [choice.index for choice in batch.choices] == [0, 1, 2, 3]
    texts = [choice.text for choice in batch.choices]
    alone = text_of(complete(client))
    assert texts[:2] == [alone, alone]
    assert " four" in texts[2]
    assert batch.usage.prompt_tokens == len(tokens) + len(other)
    assert complete(client, tokens, echo=True).choices[0].text == PROMPT + alone


def test_logprobs_are_those_of_a_chat(client: OpenAI, http: httpx.Client) -> None:
    chat = ask(client, logprobs=True, top_logprobs=3)
    prompt = http.post("/apply-template", json={"messages": QUESTION}).json()["prompt"]
    old = complete(client, prompt, max_tokens=8, logprobs=3).choices[0].logprobs
    new = chat.choices[0].logprobs.content
    assert old.tokens == [each.token for each in new]
    assert old.token_logprobs == pytest.approx([each.logprob for each in new], abs=0.05)
    assert sum(old.token_logprobs) == pytest.approx(sum(each.logprob for each in new), abs=0.1)
    for listed, each in zip(old.top_logprobs, new, strict=True):
        assert set(listed) >= {top.token for top in each.top_logprobs}


def test_a_scored_prompt_adds_up_to_what_was_generated(client: OpenAI, http: httpx.Client) -> None:
    """What the model said, given back as a prompt, is as likely as it was when it was said."""
    first = complete(client, logprobs=0, max_tokens=10)
    said = first.choices[0].logprobs
    text = PROMPT + text_of(first)
    tokens = encode(http, PROMPT)
    again = complete(client, text, echo=True, logprobs=1, max_tokens=0)
    scored = again.choices[0].logprobs
    assert again.choices[0].text == text
    assert again.usage.completion_tokens == 0
    assert scored.token_logprobs[0] is None
    assert "".join(scored.tokens) == text
    offsets = scored.text_offset
    assert [text[a:b] for a, b in zip(offsets, [*offsets[1:], len(text)], strict=True)] == (
        scored.tokens
    )
    continuation = scored.token_logprobs[len(tokens) :]
    assert scored.tokens[len(tokens) :] == said.tokens
    assert continuation == pytest.approx(said.token_logprobs, abs=0.15)
    # Greedy: every token of the continuation was the likeliest.
    for token, top in zip(said.tokens, scored.top_logprobs[len(tokens) :], strict=True):
        assert top[token] >= max(top.values()) - 0.15


def test_evaluation_harnesses_can_rank_endings(client: OpenAI, http: httpx.Client) -> None:
    """Token prompts, echo, one token more than needed: as lm-eval asks."""
    context = encode(http, "Grass is green. Snow is")
    endings = {ending: encode(http, ending) for ending in (" white", " a bicycle repair shop")}
    answer = complete(
        client,
        [context + ending for ending in endings.values()],
        echo=True,
        logprobs=1,
        max_tokens=1,
    )
    scores = []
    for choice in answer.choices:
        listed = choice.logprobs.token_logprobs[len(context) : -1]
        assert all(math.isfinite(each) and each <= 0 for each in listed)
        scores.append(sum(listed))
    assert scores[0] > scores[1]


def test_best_of_is_the_likeliest_of_all(client: OpenAI) -> None:
    sampled: dict[str, Any] = {"temperature": 1.5, "seed": 7, "max_tokens": 5, "logprobs": 0}
    every = complete(client, n=4, **sampled)
    best = complete(client, n=2, best_of=4, **sampled)

    def mean(choice: Any) -> float:
        listed = choice.logprobs.token_logprobs
        return sum(listed) / len(listed) if listed else -math.inf

    assert len({choice.text for choice in every.choices}) > 1
    expected = sorted(every.choices, key=mean, reverse=True)[:2]
    assert [choice.text for choice in best.choices] == [choice.text for choice in expected]
    assert best.usage.completion_tokens == every.usage.completion_tokens


def test_constraints_seeds_and_bias_work_here_too(client: OpenAI, http: httpx.Client) -> None:
    regex = {"response_format": {"type": "regex", "pattern": " (Rome|Oslo)"}}
    assert text_of(complete(client, extra_body=regex)) in (" Rome", " Oslo")
    [paris] = encode(http, " Paris")
    assert " Paris" not in text_of(complete(client, logit_bias={str(paris): -100}))
    twice = [text_of(complete(client, temperature=1.2, seed=3)) for _ in range(2)]
    assert twice[0] == twice[1]


def test_a_suffix_reaches_a_model_that_can_fill_gaps(tmp_path: Path) -> None:
    path = write(tmp_path / "infill.gguf", "infill")
    with (
        ServerProcess(("--model", str(path), "--context", "256")) as server,
        OpenAI(base_url=server.base_url, api_key="none", max_retries=0) as client,
    ):
        assert "infill" in client.models.retrieve(MODEL).model_extra["capabilities"]
        filled = complete(client, "ab", suffix="cd")
        # A token a byte; this vocabulary begins every text with a token and a space of its own.
        before, after = "\u2581ab".encode(), b"cd"
        marked = [1, 3, *(3 + byte for byte in before), 4, *(3 + byte for byte in after), 5]
        assert filled.usage.prompt_tokens == len(marked)
        assert text_of(complete(client, marked)) == text_of(filled) != ""
        assert text_of(complete(client, "ab")) != text_of(filled)


def test_the_second_time_the_prompt_comes_from_the_cache(client: OpenAI) -> None:
    prompt = "A list of numbers: " + ", ".join(map(str, range(30)))
    complete(client, prompt)
    assert complete(client, prompt).usage.prompt_tokens_details.cached_tokens > 32


def test_when_the_client_leaves_no_prompt_goes_on(http: httpx.Client) -> None:
    body = {"prompt": ["Once upon a time"] * 12, "max_tokens": 900, "stream": True}
    with http.stream("POST", "/v1/completions", json=body | {"ignore_eos": True}) as stream:
        next(stream.iter_lines())
        assert load(http) >= 8
    deadline = time.monotonic() + 20
    while load(http):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def load(http: httpx.Client) -> int:
    """Requests that run or wait."""
    [model] = http.get("/health").json()["models"].values()
    total: int = model["running"] + model["waiting"]
    return total


def test_refusals(client: OpenAI) -> None:
    for fields, param in (
        ({"suffix": " and so on"}, "suffix"),
        ({"logprobs": 6}, "logprobs"),
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"prompt": [[1, 10**6]]}, "prompt[0][1]"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            complete(client, **fields)
        assert caught.value.param == param
    with pytest.raises(openai.BadRequestError) as caught:
        complete(client, "word " * 2000)
    assert caught.value.code == "context_length_exceeded"
