"""Short ways to ask the real model."""

from __future__ import annotations

from typing import Any

import httpx
from openai import OpenAI
from openai.types.chat import ChatCompletion

MODEL = "embedded"
SYSTEM = {"role": "system", "content": "Be brief."}


def messages(text: str) -> list[Any]:
    """A short system message keeps the template from adding its own longer one."""
    return [SYSTEM, {"role": "user", "content": text}]


QUESTION = messages("Name three colours.")


def ask(client: OpenAI, **fields: Any) -> Any:
    """A greedy answer of a few tokens; fields that the client does not know go into the body."""
    known = {"model": MODEL, "messages": QUESTION, "max_tokens": 8, "temperature": 0} | fields
    extra = {name: known.pop(name) for name in list(known) if name in EXTENSIONS}
    create: Any = client.chat.completions.create
    return create(**known, extra_body=extra)


EXTENSIONS = frozenset(
    {
        "top_k",
        "min_p",
        "repetition_penalty",
        "include_stop_str_in_output",
        "ignore_eos",
        "context_length_exceeded_behavior",
        "chat_template_kwargs",
        "enable_thinking",
        "separate_reasoning",
        "fallbacks",
        "reasoning_budget",
        "nonsense",
    }
)


def text_of(completion: ChatCompletion) -> str:
    """The first choice's."""
    content = completion.choices[0].message.content
    assert content is not None
    return content


def post(http: httpx.Client, **fields: Any) -> httpx.Response:
    """A chat completion without the official client."""
    body = {"model": MODEL, "messages": QUESTION, "max_tokens": 4, "temperature": 0} | fields
    return http.post("/v1/chat/completions", json=body)
