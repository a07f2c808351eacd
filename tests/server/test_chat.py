"""Chat completions on a fake engine: what reaches the engine, and what comes back."""

from __future__ import annotations

import math
import threading

import pytest

from engine.errors import ContextLengthExceeded, QueueFull, StepFailed
from engine.request import FinishReason, Priority
from tests.server.asgi import Client
from tests.server.fakes import FakeEngine, answer, failure

pytestmark = pytest.mark.anyio


async def test_answer_has_openais_shape(client: Client, engine: FakeEngine) -> None:
    response = await client.chat()
    body = response.json()
    assert response.status == 200
    assert body["id"].startswith("chatcmpl-")
    assert body["object"] == "chat.completion"
    assert body["model"] == "fake-model"
    assert body["system_fingerprint"] == "fp_fake"
    assert body["service_tier"] == "default"
    assert body["choices"] == [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Hello",
                "refusal": None,
                "annotations": [],
            },
            "finish_reason": "stop",
            "logprobs": None,
            "stop_reason": 2,
        }
    ]
    prompt = len("<user>Hi<assistant>")
    assert body["usage"]["prompt_tokens"] == prompt
    assert body["usage"]["completion_tokens"] == 5
    assert body["usage"]["total_tokens"] == prompt + 5
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == 4
    assert body["timings"]["queue_ms"] == 250
    assert body["timings"]["first_token_ms"] == 750
    assert body["timings"]["predicted_per_second"] == 2


async def test_prompt_is_the_rendered_template(client: Client, engine: FakeEngine) -> None:
    await client.chat(messages=[{"role": "user", "content": "Hi"}])
    assert engine.tokenizer.decode(engine.requests[0].prompt) == "<user>Hi<assistant>"


async def test_what_shortened_conversations_leave_is_taken(
    client: Client, engine: FakeEngine
) -> None:
    """A result without its call, and turns without words: OpenAI refuses them."""
    orphan = {"role": "tool", "tool_call_id": "gone", "content": "4"}
    response = await client.chat(messages=[{"role": "user"}, orphan])
    assert response.status == 200, response.body
    prompt = engine.tokenizer.decode(engine.requests[0].prompt)
    assert prompt.startswith("<user>")
    assert "4" in prompt


async def test_defaults_are_openais(client: Client, engine: FakeEngine) -> None:
    await client.chat()
    request = engine.requests[0]
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (1, 1, 0, 0)
    assert (sampling.presence_penalty, sampling.repetition_penalty) == (0, 1)
    assert sampling.seed is None
    assert request.max_tokens == engine.info.context - len(request.prompt)
    assert (request.n, request.stop, request.logprobs, request.grammar) == (1, (), None, None)
    assert request.priority is Priority.NORMAL


async def test_null_is_not_given(client: Client, engine: FakeEngine) -> None:
    from server.protocol.chat_completions import ChatCompletionRequest

    optional = set(ChatCompletionRequest.__struct_encode_fields__) - {"messages", "model"}
    response = await client.chat(**dict.fromkeys(optional))
    assert response.status == 200, response.body
    await client.chat()
    given, plain = engine.requests
    assert given.sampling == plain.sampling
    assert given.max_tokens == plain.max_tokens


async def test_the_other_name_of_the_repetition_penalty(client: Client, engine: FakeEngine) -> None:
    response = await client.chat(repeat_penalty=1.5)
    assert "x-ignored-params" not in response.headers
    await client.chat(repeat_penalty=1.5, repetition_penalty=1.5)
    assert [each.sampling.repetition_penalty for each in engine.requests] == [1.5, 1.5]


async def test_sampling_fields_reach_the_engine(client: Client, engine: FakeEngine) -> None:
    response = await client.chat(
        temperature=0,
        top_p=0.5,
        top_k=-1,
        min_p=1,
        presence_penalty=-2,
        frequency_penalty=2,
        repetition_penalty=1.5,
        logit_bias={"5": -100, "6": 2.5},
        seed=-1,
        n=2,
        stop=["a", "b"],
        include_stop_str_in_output=True,
        ignore_eos=True,
        max_tokens=9,
        max_completion_tokens=7,
        prompt_cache_key="key",
        service_tier="flex",
        user="ann",
    )
    assert response.status == 200, response.body
    request = engine.requests[0]
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0, 0.5, 0, 1)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (-2, 2)
    assert sampling.repetition_penalty == 1.5
    assert sampling.logit_bias == {5: -math.inf, 6: 2.5}
    assert sampling.seed == 2**64 - 1
    assert (request.n, request.stop, request.include_stop) == (2, ("a", "b"), True)
    assert request.ignore_eos
    assert request.max_tokens == 7
    assert request.priority is Priority.FLEX
    assert request.cache_key == "key"
    assert response.json()["service_tier"] == "flex"


async def test_integral_floats_are_integers(client: Client, engine: FakeEngine) -> None:
    response = await client.chat(max_tokens=8.0, n=2.0, seed=3.0)
    assert response.status == 200, response.body
    request = engine.requests[0]
    assert (request.max_tokens, request.n, request.sampling.seed) == (8, 2, 3)


async def test_fair_share_key(client: Client, engine: FakeEngine) -> None:
    await client.chat(user="ann")
    await client.chat(user="ann", safety_identifier="bob")
    await client.chat()
    users = [request.user for request in engine.requests]
    assert users == ["user:ann", "user:bob", "client:127.0.0.1"]


async def test_max_tokens_is_cut_to_the_context(client: Client, engine: FakeEngine) -> None:
    await client.chat(max_tokens=100_000)
    request = engine.requests[0]
    assert len(request.prompt) + request.max_tokens == engine.info.context


async def test_context_overflow_can_be_an_error(client: Client, engine: FakeEngine) -> None:
    response = await client.chat(max_tokens=500, context_length_exceeded_behavior="error")
    error = response.json()["error"]
    assert response.status == 400
    assert error["code"] == "context_length_exceeded"
    assert "512" in error["message"]
    assert "500" in error["message"]


async def test_prompt_that_does_not_fit_is_always_refused(client: Client) -> None:
    response = await client.chat(messages=[{"role": "user", "content": "x" * 600}])
    body = response.json()
    assert response.status == 400
    assert body["error"]["code"] == "context_length_exceeded"
    assert body["error"]["param"] == "messages"
    assert "617" in body["error"]["message"]


@pytest.mark.parametrize(("length", "elsewhere"), [(100, False), (2000, True)])
async def test_long_prompts_do_not_stall_the_loop(
    client: Client,
    engine: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    length: int,
    elsewhere: bool,
) -> None:
    monkeypatch.setattr("server.conversation.INLINE_CHARS", 1000)
    threads = []
    encode = engine.tokenizer.encode

    def watched(text: str, **options: bool) -> list[int]:
        threads.append(threading.current_thread())
        return encode(text, **options)

    engine.tokenizer.encode = watched  # type: ignore[method-assign]
    await client.chat(messages=[{"role": "user", "content": "x" * length}])
    await client.post("/tokenize", {"content": "x" * length})
    assert [t is not threading.main_thread() for t in threads] == [elsewhere] * 2


async def test_long_prompts_are_rendered_alike(client: Client) -> None:
    text = "x" * 5000
    response = await client.post(
        "/apply-template", {"messages": [{"role": "user", "content": text}]}
    )
    assert response.json()["prompt"] == f"<user>{text}<assistant>"


async def test_n_choices_in_order(client: Client) -> None:
    choices = (await client.chat(n=3)).json()["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2]
    assert all(choice["message"]["content"] == "Hello" for choice in choices)


async def test_logprobs(client: Client, engine: FakeEngine) -> None:
    engine.script = answer("é")
    body = (await client.chat(logprobs=True, top_logprobs=2)).json()
    (token,) = body["choices"][0]["logprobs"]["content"]
    assert token["token"] == "é"
    assert token["bytes"] == [0xC3, 0xA9]
    assert token["logprob"] == -1
    assert [top["token"] for top in token["top_logprobs"]] == ["é", "ê"]


async def test_logprobs_alone_have_an_empty_top_list(client: Client, engine: FakeEngine) -> None:
    body = (await client.chat(logprobs=True)).json()
    assert engine.requests[0].logprobs == 0
    assert [t["top_logprobs"] for t in body["choices"][0]["logprobs"]["content"]] == [[]] * 5


async def test_finish_and_stop_reason(client: Client, engine: FakeEngine) -> None:
    engine.script = answer("Hello", FinishReason.LENGTH, None)
    choice = (await client.chat()).json()["choices"][0]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("length", None)


async def test_metadata_is_repeated(client: Client) -> None:
    assert (await client.chat(metadata={"a": "b"})).json()["metadata"] == {"a": "b"}
    assert "metadata" not in (await client.chat()).json()


async def test_unknown_fields_are_listed(client: Client) -> None:
    response = await client.chat(nonsense=1, **{"weird\r\né": 2})
    assert response.status == 200
    assert response.headers["x-ignored-params"] == r"nonsense, weird\r\n\xe9"
    assert "x-ignored-params" not in (await client.chat()).headers
    response = await client.chat(messages=[{"role": "user", "content": "Hi", "mood": "good"}])
    assert response.headers["x-ignored-params"] == "messages[0].mood"


@pytest.mark.parametrize(
    ("fields", "printed"),
    [
        ({"reasoning_effort": "none"}, "[thinking=False][effort=none]"),
        ({"reasoning_effort": "high"}, "[thinking=True][effort=high]"),
        ({"enable_thinking": False}, "[thinking=False]"),
        ({"verbosity": "low"}, "[verbosity=low]"),
        ({"chat_template_kwargs": {"enable_thinking": 7}}, "[thinking=7]"),
        ({"enable_thinking": True, "chat_template_kwargs": {"enable_thinking": 7}}, "[thinking=7]"),
    ],
)
async def test_template_variables(
    client: Client, engine: FakeEngine, fields: dict[str, object], printed: str
) -> None:
    await client.chat(**fields)
    prompt = engine.tokenizer.decode(engine.requests[0].prompt)
    assert prompt == f"<user>Hi{printed}<assistant>"


async def test_options_that_the_template_does_not_read_are_listed(client: Client) -> None:
    fields = {"chat_template_kwargs": {"persona": "pirate", "verbosity": "low"}}
    response = await client.chat(reasoning_budget=5, **fields)
    assert response.headers["x-ignored-params"] == "reasoning_budget, chat_template_kwargs.persona"


async def test_content_forms(client: Client, engine: FakeEngine) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    response = await client.chat(
        messages=[
            {"role": "developer", "content": "rules"},
            {"role": "user", "content": parts, "name": "ann"},
            {"role": "assistant", "content": None, "refusal": "no"},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "nay"}]},
            {"role": "user", "content": "c"},
        ]
    )
    assert response.status == 200, response.body
    prompt = engine.tokenizer.decode(engine.requests[0].prompt)
    assert prompt == "<system>rules<user>a\nb<assistant>no<assistant>nay<user>c<assistant>"
    assert prompt.endswith("<user>c<assistant>")


async def test_engine_errors_have_their_status(client: Client, engine: FakeEngine) -> None:
    engine.refusal = QueueFull(limit=256, retry_after=3)
    response = await client.chat()
    assert response.status == 429
    assert response.headers["retry-after"] == "3"
    assert response.json()["error"]["code"] == "queue_full"
    engine.refusal = ContextLengthExceeded(600, 512)
    assert (await client.chat(stream=True)).status == 400


async def test_failure_in_a_step_is_a_500(client: Client, engine: FakeEngine) -> None:
    engine.script = failure(StepFailed("the step raised"), after="He")
    response = await client.chat()
    assert response.status == 500
    assert response.json()["error"]["code"] == "step_failed"


async def test_a_bug_is_a_500_without_details(client: Client, engine: FakeEngine) -> None:
    engine.script = lambda request: []
    engine.submit = None  # type: ignore[assignment,method-assign]
    response = await client.chat()
    assert response.status == 500
    assert response.json()["error"]["code"] == "internal_error"
    assert "NoneType" not in response.body.decode()
