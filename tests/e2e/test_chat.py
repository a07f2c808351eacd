"""Every field of a chat completion that is served here, by its effect on a real model."""

from __future__ import annotations

import collections
import math
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.e2e.chat import MODEL, QUESTION, ask, messages, text_of

EOS = 2


def tokenize(http: httpx.Client, text: str) -> list[int]:
    tokens: list[int] = http.post("/tokenize", json={"content": text}).json()["tokens"]
    return tokens


def test_answer(client: OpenAI) -> None:
    completion = ask(client)
    choice = completion.choices[0]
    assert completion.object == "chat.completion"
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason == "length"
    assert completion.system_fingerprint
    usage = completion.usage
    assert usage is not None
    assert usage.completion_tokens == 8
    assert usage.total_tokens == usage.prompt_tokens + 8


def test_system_fingerprint_stays(client: OpenAI) -> None:
    prints = {ask(client, max_tokens=1).system_fingerprint for _ in range(2)}
    assert len(prints) == 1


@pytest.mark.parametrize("name", ["smollm2-135m-instruct", "embedded", "any/embedded"])
def test_model_names(client: OpenAI, name: str) -> None:
    assert ask(client, model=name, max_tokens=1).model == "smollm2-135m-instruct"


def test_model_may_be_missing(http: httpx.Client) -> None:
    response = http.post("/v1/chat/completions", json={"messages": QUESTION, "max_tokens": 1})
    assert response.status_code == 200


def test_prompt_tokens_are_exact(client: OpenAI, http: httpx.Client) -> None:
    prompt = http.post("/apply-template", json={"messages": QUESTION}).json()["prompt"]
    usage = ask(client, max_tokens=1).usage
    assert usage is not None
    assert usage.prompt_tokens == len(tokenize(http, prompt))


MESSAGES: list[list[dict[str, Any]]] = [
    [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
    [{"role": "user", "content": [{"type": "text", "text": "Hi"}], "name": "ann"}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello", "annotations": [], "thought": "hm"},
        {"role": "user", "content": "Bye"},
    ],
    [
        {"role": "user", "content": "What is 1+1?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "add", "arguments": '{"a": 1, "b": 1}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "2"},
    ],
    [
        {"role": "user", "content": "What is 1+1?"},
        {
            "role": "assistant",
            "content": None,
            "function_call": {"name": "add", "arguments": '{"a": 1}'},
        },
        {"role": "function", "name": "add", "content": "2"},
    ],
    [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "user", "content": "Please"},
    ],
]


@pytest.mark.parametrize("history", MESSAGES)
def test_message_forms(client: OpenAI, history: list[dict[str, Any]]) -> None:
    assert ask(client, messages=history, max_tokens=2).usage


def test_messages_reach_the_prompt(http: httpx.Client) -> None:
    for history in MESSAGES:
        prompt = http.post("/apply-template", json={"messages": history}).json()["prompt"]
        for message in history:
            if isinstance(message["content"], str):
                assert message["content"] in prompt
    assert '"a": 1' in http.post("/apply-template", json={"messages": MESSAGES[3]}).text.replace(
        "\\", ""
    )


def test_max_completion_tokens_wins(client: OpenAI) -> None:
    usage = ask(client, max_tokens=2, max_completion_tokens=3).usage
    assert usage is not None
    assert usage.completion_tokens == 3


def test_temperature_zero_repeats(client: OpenAI) -> None:
    assert text_of(ask(client)) == text_of(ask(client))


def test_seed_repeats_and_matters(client: OpenAI) -> None:
    texts = [text_of(ask(client, temperature=1, seed=seed)) for seed in (1, 1, 2, 3)]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1


@pytest.mark.parametrize("narrowing", [{"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1}])
def test_narrowed_to_one_token_is_greedy(client: OpenAI, narrowing: dict[str, float]) -> None:
    assert text_of(ask(client, temperature=2, seed=7, **narrowing)) == text_of(ask(client))


def test_high_temperature_leaves_the_greedy_path(client: OpenAI) -> None:
    assert text_of(ask(client, temperature=2, seed=7)) != text_of(ask(client))


@pytest.mark.parametrize("off", [0, -1])
def test_top_k_off(client: OpenAI, off: int) -> None:
    plain = text_of(ask(client, temperature=1, seed=5))
    assert text_of(ask(client, temperature=1, seed=5, top_k=off)) == plain


PARROT = messages("Repeat without end: la la la la la la la la la la la la")


def most_repeated(text: str) -> int:
    return max(collections.Counter(text.lower().replace(",", " ").split()).values())


@pytest.mark.parametrize(
    "penalty", [{"frequency_penalty": 2}, {"presence_penalty": 2}, {"repetition_penalty": 2}]
)
def test_penalties_break_repetition(client: OpenAI, penalty: dict[str, float]) -> None:
    plain = text_of(ask(client, messages=PARROT, max_tokens=16))
    penalized = text_of(ask(client, messages=PARROT, max_tokens=16, **penalty))
    assert most_repeated(penalized) < most_repeated(plain)


def test_logit_bias_forces_and_bans(client: OpenAI, http: httpx.Client) -> None:
    (token,) = tokenize(http, " banana")
    assert text_of(ask(client, logit_bias={str(token): 100}, max_tokens=3)) == " banana" * 3
    first = tokenize(http, text_of(ask(client, max_tokens=1)))[0]
    assert tokenize(http, text_of(ask(client, logit_bias={str(first): -100})))[0] != first


def test_n_choices(client: OpenAI) -> None:
    completion = ask(client, n=3, temperature=1.5, seed=11)
    usage, alone = completion.usage, ask(client, max_tokens=1).usage
    assert usage is not None
    assert alone is not None
    assert [choice.index for choice in completion.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in completion.choices}) > 1
    assert usage.prompt_tokens == alone.prompt_tokens
    assert usage.completion_tokens <= 24
    again = ask(client, n=3, temperature=1.5, seed=11)
    assert [c.message.content for c in again.choices] == [
        c.message.content for c in completion.choices
    ]


def test_more_choices_than_slots(client: OpenAI) -> None:
    completion = ask(client, n=11, max_tokens=2)
    assert len(completion.choices) == 11
    assert len({choice.message.content for choice in completion.choices}) == 1


def test_stop_spans_tokens(client: OpenAI) -> None:
    whole = text_of(ask(client, max_tokens=12))
    stop = whole[4:11]
    choice = ask(client, max_tokens=12, stop=stop).choices[0]
    assert choice.message.content == whole[: whole.index(stop)]
    assert choice.finish_reason == "stop"
    assert choice.model_extra is not None
    assert choice.model_extra["stop_reason"] == stop
    kept = ask(client, max_tokens=12, stop=["never", stop], include_stop_str_in_output=True)
    assert text_of(kept) == whole[: whole.index(stop) + len(stop)]


def test_end_of_generation(client: OpenAI) -> None:
    choice = ask(client, logit_bias={str(EOS): 100}).choices[0]
    assert choice.message.content == ""
    assert choice.finish_reason == "stop"
    assert choice.model_extra is not None
    assert choice.model_extra["stop_reason"] == EOS


def test_ignore_eos(client: OpenAI) -> None:
    choice = ask(client, logit_bias={str(EOS): 100}, ignore_eos=True).choices[0]
    assert choice.finish_reason == "length"


def test_logprobs(client: OpenAI) -> None:
    choice = ask(client, logprobs=True, top_logprobs=20).choices[0]
    assert choice.logprobs is not None
    tokens = choice.logprobs.content
    assert tokens is not None
    assert len(tokens) == 8
    joined = b"".join(bytes(token.bytes or ()) for token in tokens)
    assert joined.decode() == choice.message.content
    for token in tokens:
        top = [item.logprob for item in token.top_logprobs]
        assert len(top) == 20
        assert top == sorted(top, reverse=True)
        assert token.logprob == top[0]
        assert sum(map(math.exp, top)) <= 1 + 1e-4


def test_logprobs_are_raw(client: OpenAI) -> None:
    """Temperature, bias and penalties do not change what is reported."""
    changed = {"temperature": 2, "seed": 3, "frequency_penalty": 2, "logit_bias": {"10": 100}}
    plain = first_top_logprobs(client)
    biased = first_top_logprobs(client, **changed)
    assert biased.keys() == plain.keys()
    assert biased == pytest.approx(plain, abs=1e-3)


def first_top_logprobs(client: OpenAI, **fields: Any) -> dict[str, float]:
    choice = ask(client, max_tokens=1, logprobs=True, top_logprobs=5, **fields).choices[0]
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    return {top.token: top.logprob for top in choice.logprobs.content[0].top_logprobs}


def test_logprobs_alone(client: OpenAI) -> None:
    choice = ask(client, logprobs=True).choices[0]
    assert choice.logprobs is not None and choice.logprobs.content is not None
    assert all(token.top_logprobs == [] for token in choice.logprobs.content)


def test_bytes_of_split_characters(client: OpenAI, http: httpx.Client) -> None:
    """A forced run of tokens that each carry a part of one character."""
    tokens = http.post("/tokenize", json={"content": "𝔄", "with_pieces": True}).json()["tokens"]
    parts = [token for token in tokens if isinstance(token["piece"], list)]
    assert parts, "the vocabulary has this character whole"
    forced = ask(
        client,
        max_tokens=1,
        logit_bias={str(parts[0]["id"]): 100},
        logprobs=True,
    ).choices[0]
    assert forced.logprobs is not None and forced.logprobs.content is not None
    assert forced.logprobs.content[0].bytes == parts[0]["piece"]


@pytest.mark.parametrize("tier", ["auto", "default", "flex", "priority"])
def test_service_tier_is_echoed(client: OpenAI, tier: str) -> None:
    assert ask(client, service_tier=tier, max_tokens=1).service_tier == tier


def test_inert_and_known_fields(client: OpenAI) -> None:
    completion = ask(
        client,
        max_tokens=1,
        user="ann",
        safety_identifier="bob",
        prompt_cache_key="key",
        prompt_cache_retention="24h",
        metadata={"a": "b"},
        modalities=["text"],
        verbosity="low",
        reasoning_effort="low",
        response_format={"type": "text"},
        parallel_tool_calls=True,
        store=False,
        enable_thinking=False,
        separate_reasoning=True,
        chat_template_kwargs={"x": 1},
    )
    assert completion.usage is not None
    assert completion.metadata == {"a": "b"}


def test_unknown_fields_are_listed(client: OpenAI) -> None:
    response = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=QUESTION, max_tokens=1, extra_body={"nonsense": 1}
    )
    assert response.headers["x-ignored-params"] == "nonsense"


def test_timings(client: OpenAI) -> None:
    extra = ask(client, messages=messages("How fast is light?")).model_extra
    assert extra is not None
    timings = extra["timings"]
    assert timings["predicted_n"] == 8
    assert timings["prompt_per_second"] > 0
    assert timings["predicted_per_second"] > 0
    assert timings["first_token_ms"] >= timings["queue_ms"] >= 0


def test_next_turn_computes_only_what_is_new(client: OpenAI) -> None:
    history = messages("Which animal is the largest of all?")
    first = ask(client, messages=history, prompt_cache_key="talk")
    history += [
        {"role": "assistant", "content": text_of(first)},
        {"role": "user", "content": "And the smallest?"},
    ]
    second = ask(client, messages=history, prompt_cache_key="talk")
    cached = second.usage.prompt_tokens_details.cached_tokens
    assert first.usage.prompt_tokens <= cached < second.usage.prompt_tokens
    assert second.model_extra["timings"]["prompt_n"] == second.usage.prompt_tokens - cached


def test_headers(client: OpenAI) -> None:
    response = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=QUESTION, max_tokens=1, extra_headers={"x-request-id": "mine"}
    )
    assert response.headers["x-request-id"] == "mine"
    assert int(response.headers["openai-processing-ms"]) > 0
