"""A context of 256 tokens: what is cut, what is refused, what is the default."""

from __future__ import annotations

import httpx
import pytest
from openai import BadRequestError, OpenAI

from tests.e2e.chat import ask, messages
from tests.e2e.conftest import KEY
from tests.e2e.server_process import ServerProcess

CONTEXT = 256
NEARLY_FULL = messages("word " * (CONTEXT - 24))
OVERFULL = messages("word " * CONTEXT)


def test_max_tokens_is_cut_to_the_context(narrow_client: OpenAI) -> None:
    completion = ask(narrow_client, messages=NEARLY_FULL, max_tokens=100_000, ignore_eos=True)
    assert completion.usage.total_tokens == CONTEXT
    assert completion.choices[0].finish_reason == "length"


def test_behaviour_error_refuses_instead(narrow_client: OpenAI) -> None:
    with pytest.raises(BadRequestError) as caught:
        ask(
            narrow_client,
            messages=NEARLY_FULL,
            max_tokens=100_000,
            context_length_exceeded_behavior="error",
        )
    assert caught.value.code == "context_length_exceeded"
    assert str(CONTEXT) in caught.value.message
    assert "100000" in caught.value.message


def test_behaviour_error_takes_what_fits(narrow_client: OpenAI) -> None:
    usage = ask(narrow_client, max_tokens=2, context_length_exceeded_behavior="error").usage
    assert usage.completion_tokens == 2


@pytest.mark.parametrize("behaviour", ["truncate", "error", None])
@pytest.mark.parametrize("stream", [True, False])
def test_prompt_that_does_not_fit_is_refused(
    narrow_client: OpenAI, behaviour: str | None, stream: bool
) -> None:
    with pytest.raises(BadRequestError) as caught:
        ask(
            narrow_client,
            messages=OVERFULL,
            stream=stream,
            context_length_exceeded_behavior=behaviour,
        )
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.param == "messages"
    assert str(CONTEXT) in caught.value.message


def test_default_of_max_tokens_is_capped_by_the_setting(narrow_client: OpenAI) -> None:
    completion = ask(narrow_client, max_tokens=None, ignore_eos=True)
    assert completion.usage.completion_tokens == 5


def test_the_model_list_tells_the_context(narrow_client: OpenAI) -> None:
    (model,) = narrow_client.models.list().data
    assert model.model_extra is not None
    assert model.model_extra["context_length"] == CONTEXT
    assert model.model_extra["loaded"] is True
    assert narrow_client.models.retrieve(model.id).id == model.id


def test_keys_are_asked_for(narrow: ServerProcess) -> None:
    url = narrow.root_url
    assert httpx.get(f"{url}/health").status_code == 200
    for headers in ({}, {"authorization": "Bearer wrong"}, {"x-api-key": "wrong"}):
        response = httpx.get(f"{url}/v1/models", headers=headers)
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"
    for headers in ({"authorization": f"Bearer {KEY}"}, {"x-api-key": KEY}):
        assert httpx.get(f"{url}/v1/models", headers=headers).status_code == 200
