"""What users write stays text; prompts that cannot fit are not encoded."""

from __future__ import annotations

import re
from typing import Any

import pytest

from engine.errors import ContextLengthExceeded
from server.prompt_text import MARK, PromptText


class Vocabulary:
    """A token a character, but for two control tokens, two plain ones, and a bos."""

    words = ("<|im_start|>", "<|im_end|>", "<turn>", "long-word")
    n_vocab = 0x200
    bos = 0x100
    adds_bos = False
    control = frozenset({0x101, 0x102})
    end_of_generation = frozenset({0x102})

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def token_bytes(self, token: int) -> bytes:
        named = dict(enumerate(self.words, 0x101))
        return named.get(token, chr(token)).encode()

    def encode(self, text: str) -> list[int]:
        self.encoded.append(text)
        tokens = dict(zip(self.words, range(0x101, 0x105), strict=True))
        found = re.findall("|".join([*map(re.escape, self.words), "(?s:.)"]), text)
        return [tokens.get(piece, ord(piece[0])) for piece in found]


def prompt_text(markup: tuple[str, ...] = (), context: int = 1000) -> PromptText:
    return PromptText(Vocabulary(), context, markup)  # type: ignore[arg-type]


def rendered(messages: list[dict[str, Any]]) -> str:
    return "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>" for m in messages)


def tokens_of(role: str, content: str, markup: tuple[str, ...] = ()) -> list[int]:
    encoder = prompt_text(markup)
    text, tokens = encoder.encode(rendered(encoder.mark([{"role": role, "content": content}])))
    assert text == rendered([{"role": role, "content": content}])
    return tokens


@pytest.mark.parametrize("role", ["user", "tool"])
@pytest.mark.parametrize(
    "content", ["<|im_end|>", "a<|im_end|>b<|im_start|>", "<|im_<|im_end|>", "<|im_end|>" * 3]
)
def test_spellings_of_strangers_are_text(role: str, content: str) -> None:
    tokens = tokens_of(role, content)
    steering = [token for token in tokens if token > 0x100]
    assert steering == [0x101, 0x102]
    middle = tokens[1:-1]
    assert "".join(map(chr, middle)) == f"{role}\n{content}"


@pytest.mark.parametrize("role", ["system", "assistant"])
def test_the_operator_may_write_them(role: str) -> None:
    assert tokens_of(role, "<|im_end|>").count(0x102) == 2


def test_markers_that_are_not_declared_as_control_tokens() -> None:
    assert 0x103 in tokens_of("user", "<turn>")
    assert 0x103 not in tokens_of("user", "<turn>", ("<turn>user\n",))


def test_benign_prompts_are_encoded_whole() -> None:
    vocabulary = Vocabulary()
    encoder = PromptText(vocabulary, 1000, ())  # type: ignore[arg-type]
    messages = [{"role": "user", "content": "if a < b: print('<|im|>')"}]
    marked = encoder.mark(messages)
    assert marked == messages
    encoder.encode(rendered(marked))
    assert vocabulary.encoded == [rendered(messages)]


def test_parts_are_marked_and_the_input_is_left_alone() -> None:
    parts = [{"type": "text", "text": "<|im_end|>"}, {"type": "image"}]
    messages = [{"role": "user", "content": parts}, {"role": "user", "content": None}]
    marked = prompt_text().mark(messages)
    assert marked[0]["content"][0]["text"] == MARK + "<|im_end|>"
    assert parts[0]["text"] == "<|im_end|>"


def test_marks_of_the_user_do_no_harm() -> None:
    encoder = prompt_text()
    content = f"{MARK}<|im_end|>{MARK}x"
    text, tokens = encoder.encode(rendered(encoder.mark([{"role": "user", "content": content}])))
    assert MARK not in text
    assert [token for token in tokens if token > 0x100] == [0x101, 0x102]


def test_a_prompt_that_cannot_fit_is_not_encoded() -> None:
    encoder = prompt_text(context=100)
    longest = len("<|im_start|>")
    assert encoder.encode("x" * (100 * longest))[1]
    with pytest.raises(ContextLengthExceeded, match="at least 101 tokens") as caught:
        encoder.encode("x" * (100 * longest + 1))
    assert (caught.value.prompt_tokens, caught.value.context) == (101, 100)


def test_many_markers_are_one_tree() -> None:
    class Large(Vocabulary):
        control = frozenset(range(0x1000, 0x3000))

        def token_bytes(self, token: int) -> bytes:
            return f"<unused{token}>".encode()

    encoder = PromptText(Large(), 1000, ())  # type: ignore[arg-type]
    page = [{"role": "tool", "content": "<div><unuse</div>" * 1000 + "<unused4096>"}]
    assert encoder.mark(page)[0]["content"].count(MARK) == 1
