"""Anthropic's requests in OpenAI's words: every block, and the path of every refusal."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from server.api.messages_call import translate
from server.api.messages_input import signature
from server.errors import ApiError
from server.protocol.anthropic import MessagesRequest
from server.protocol.chat_completions import ChatCompletionRequest

TOOL = {"name": "look", "description": "Looks.", "input_schema": {"type": "object"}}


def translated(**fields: Any) -> ChatCompletionRequest:
    body = {"max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]} | fields
    return translate(msgspec.convert(body, MessagesRequest)).chat


def turns(*messages: tuple[str, Any], **fields: Any) -> list[dict[str, Any]]:
    """The messages of the translation but the last; fields without a value are left out."""
    listed = [{"role": role, "content": content} for role, content in (*messages, ("user", "End"))]
    chat = msgspec.to_builtins(translated(messages=listed, **fields).messages)[:-1]
    return [{k: v for k, v in message.items() if v is not None} for message in chat]


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words, "cache_control": {"type": "ephemeral"}}


def refused(**fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        translated(**fields)
    return caught.value


@pytest.mark.parametrize("system", ["Be brief.", [text("Be brief.")]])
def test_system_goes_first(system: Any) -> None:
    assert turns(("user", "Hi"), system=system) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
    ]


def test_system_blocks_are_paragraphs_of_one_message() -> None:
    assert turns(("user", "Hi"), system=[text("One."), text("Two.")])[0]["content"] == (
        "One.\n\nTwo."
    )


BILLING = "x-anthropic-billing-header: cc_version=2.1.37.0d9; cc_entrypoint=cli; cch={};"


@pytest.mark.parametrize("hash", ["fa690", "00000"])
def test_the_billing_line_is_left_out(hash: str) -> None:
    line = BILLING.format(hash)
    assert turns(("user", "Hi"), system=[text(line), text("You are.")])[0]["content"] == "You are."
    assert turns(("user", "Hi"), system=f"{line}\nYou are.")[0]["content"] == "You are."
    assert turns(("user", "Hi"), system=[text(line)]) == [{"role": "user", "content": "Hi"}]


def test_words_about_the_billing_line_stay() -> None:
    about = "Explain x-anthropic-billing-header: what is it?"
    assert turns(("user", "Hi"), system=about)[0]["content"] == about
    assert turns(("user", BILLING))[0]["content"] == BILLING


def test_a_system_message_keeps_its_place() -> None:
    conversation = [("user", "Hi"), ("system", [text("Now in French.")]), ("assistant", "Oui")]
    assert [turn["role"] for turn in turns(*conversation)] == ["user", "system", "assistant"]


def test_a_call_its_thought_and_its_text_are_one_turn() -> None:
    blocks = [
        {"type": "thinking", "thinking": "Where?", "signature": "abc"},
        text("I look."),
        {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": "sky"}},
    ]
    assert turns(("user", "Hi"), ("assistant", blocks))[1] == {
        "role": "assistant",
        "content": "I look.",
        "reasoning_content": "Where?",
        "tool_calls": [
            {
                "function": {"name": "look", "arguments": {"at": "sky"}},
                "id": "toolu_1",
                "type": "function",
            }
        ],
    }


def test_results_are_turns_of_their_own() -> None:
    def result(id: str, **fields: Any) -> dict[str, Any]:
        return {"type": "tool_result", "tool_use_id": id, **fields}

    blocks = [
        result("a", content="blue"),
        result("b", content=[text("one"), text("two")]),
        result("c", content="no such tool", is_error=True),
        result("d"),
        text("Go on."),
    ]
    assert turns(("user", blocks)) == [
        {"role": "tool", "content": "blue", "tool_call_id": "a"},
        {"role": "tool", "content": "one\ntwo", "tool_call_id": "b"},
        {"role": "tool", "content": "Error: no such tool", "tool_call_id": "c"},
        {"role": "tool", "content": "", "tool_call_id": "d"},
        {"role": "user", "content": "Go on."},
    ]


def test_plain_documents_and_search_results_are_text() -> None:
    document = {
        "type": "document",
        "source": {"type": "text", "media_type": "text/plain", "data": "Body."},
        "title": "Head",
    }
    found = {"type": "search_result", "title": "T", "source": "S", "content": [text("C")]}
    assert turns(("user", [document, found]))[0]["content"] == "Head\nBody.\nT\nS\nC"


def test_a_hidden_thought_comes_back_in_its_signature() -> None:
    hidden = {"type": "thinking", "thinking": "", "signature": signature("secret", shown=False)}
    assert turns(("assistant", [hidden, text("Hi")]))[0]["reasoning_content"] == "secret"
    foreign = {"type": "thinking", "thinking": "", "signature": "ingle-thought:%%%"}
    assert "reasoning_content" not in turns(("assistant", [foreign, text("Hi")]))[0]


def test_what_nobody_can_read_is_listed() -> None:
    redacted = {"type": "redacted_thinking", "data": "xyz"}
    messages = [{"role": "assistant", "content": [redacted]}, {"role": "user", "content": "Hi"}]
    body = {"max_tokens": 1, "messages": messages}
    assert translate(msgspec.convert(body, MessagesRequest)).ignored == ["messages[0].content[0]"]


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "x"}}
PDF = {"type": "document", "source": {"type": "url", "url": "http://x/y.pdf"}}


@pytest.mark.parametrize(
    ("role", "content", "path"),
    [
        ("user", [text("Look:"), IMAGE], ("content", 1, "type")),
        ("user", [PDF], ("content", 0, "source")),
        (
            "user",
            [{"type": "tool_result", "tool_use_id": "a", "content": [text("x"), IMAGE]}],
            ("content", 0, "content", 1, "type"),
        ),
        ("user", [{"type": "thinking", "thinking": "x"}], ("content", 0, "type")),
        ("assistant", [{"type": "tool_result", "tool_use_id": "a"}], ("content", 0, "type")),
        ("system", [text("x"), IMAGE], ("content", 1, "type")),
        ("tool", "x", ("role",)),
    ],
)
def test_what_has_no_place_is_refused_by_path(role: str, content: Any, path: Any) -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": role, "content": content}]
    assert refused(messages=messages).loc == ("body", "messages", 1, *path)


def test_a_last_message_of_the_assistant_is_continued() -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "{"}]
    assert translated(messages=messages).continue_final_message
    assert not translated(messages=messages[:1]).continue_final_message


def test_messages_must_not_be_empty() -> None:
    assert refused(messages=[], system="x").loc == ("body", "messages")


def test_options_have_their_names() -> None:
    chat = translated(
        temperature=0.5,
        top_p=0.9,
        top_k=4,
        stop_sequences=["END"],
        metadata={"user_id": "me"},
        service_tier="standard_only",
        stream=True,
    )
    assert (chat.max_tokens, chat.temperature, chat.top_p, chat.top_k) == (9, 0.5, 0.9, 4)
    assert (chat.stop, chat.user, chat.service_tier, chat.stream) == (
        ["END"],
        "me",
        "default",
        True,
    )


def test_tools_are_functions() -> None:
    assert translated(tools=[TOOL | {"strict": True}]).tools == [
        {
            "type": "function",
            "function": {
                "name": "look",
                "description": "Looks.",
                "parameters": {"type": "object"},
                "strict": True,
            },
        }
    ]


def test_tools_that_others_run_are_left_out_and_listed() -> None:
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}
    body = {"max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]}
    translation = translate(msgspec.convert(body | {"tools": [search, TOOL]}, MessagesRequest))
    assert translation.ignored == ["tools[0] (web_search_20250305)"]
    assert translation.tools == (1,)
    choice = {"type": "tool", "name": "web_search"}
    assert refused(tools=[search], tool_choice=choice).loc == ("body", "tool_choice", "name")


def test_a_tool_needs_a_schema() -> None:
    assert refused(tools=[{"name": "x"}]).loc == ("body", "tools", 0, "input_schema")


@pytest.mark.parametrize(
    ("choice", "expected", "parallel"),
    [
        ({"type": "auto"}, "auto", None),
        ({"type": "any", "disable_parallel_tool_use": True}, "required", False),
        ({"type": "none"}, "none", None),
        (
            {"type": "tool", "name": "look", "disable_parallel_tool_use": False},
            {"type": "function", "function": {"name": "look"}},
            None,
        ),
    ],
)
def test_tool_choice(choice: Any, expected: Any, parallel: bool | None) -> None:
    chat = translated(tools=[TOOL], tool_choice=choice)
    assert (chat.tool_choice, chat.parallel_tool_calls) == (expected, parallel)


@pytest.mark.parametrize("choice", [{"type": "some"}, {"type": "tool"}])
def test_unknown_tool_choice(choice: Any) -> None:
    assert refused(tools=[TOOL], tool_choice=choice).loc == ("body", "tool_choice")


@pytest.mark.parametrize(
    ("thinking", "enabled", "budget"),
    [
        ({"type": "enabled", "budget_tokens": 2048}, True, 2048),
        ({"type": "adaptive", "display": "summarized"}, True, None),
        ({"type": "disabled"}, False, None),
        (None, None, None),
    ],
)
def test_thinking(thinking: Any, enabled: bool | None, budget: int | None) -> None:
    chat = translated(thinking=thinking)
    assert (chat.enable_thinking, chat.reasoning_budget) == (enabled, budget)


def test_unknown_ways_of_thinking() -> None:
    assert refused(thinking={"type": "hard"}).loc == ("body", "thinking", "type")
    shown = {"type": "adaptive", "display": "loud"}
    assert refused(thinking=shown).loc == ("body", "thinking", "display")


def test_output_config() -> None:
    form = {"type": "json_schema", "schema": {"type": "object"}}
    chat = translated(output_config={"effort": "high", "format": form})
    assert chat.reasoning_effort == "high"
    expected = {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}
    assert chat.response_format == expected
    assert translated(output_format=form).response_format == expected
    wrong = {"format": form | {"type": "xml"}}
    assert refused(output_config=wrong).loc == ("body", "output_config", "format", "type")
