"""Anthropic's turns → OpenAI's: blocks become text, calls, results and thoughts; pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence

from server.checks import check_word
from server.errors import InvalidRequest, Loc, UnsupportedField, field_path
from server.protocol.anthropic import (
    ContentBlock,
    DocumentBlock,
    ImageBlock,
    InputMessage,
    RedactedThinkingBlock,
    ResultContent,
    SearchResultBlock,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from server.protocol.messages import ChatMessage, FunctionCall, ToolCall

ROLES = ("user", "assistant", "system")
BILLING_LINE = re.compile(r"\s*x-anthropic-billing-header:[^\n]*\n*")
"""Claude Code's note to its maker, new with every request: no prefix would ever be met again."""
KEPT_THOUGHT = "ingle-thought:"
"""Begins the signature of a thought that was not shown, and holds it."""

_JOINT = "\n\n"


def chat_messages(
    system: str | Sequence[TextBlock] | None, messages: Sequence[InputMessage]
) -> tuple[list[ChatMessage], list[str]]:
    """The conversation, and the paths of blocks that say nothing here. Raises InvalidRequest."""
    if not messages:
        raise InvalidRequest("messages must not be empty", loc=("body", "messages"))
    chat = [ChatMessage("system", text)] if (text := system_text(system)) else []
    ignored: list[str] = []
    for index, message in enumerate(messages):
        loc = ("body", "messages", index)
        check_word(message.role, ROLES, (*loc, "role"))
        chat += _turns(message, (*loc, "content"), ignored)
    return chat, ignored


def system_text(system: str | Sequence[TextBlock] | None) -> str:
    """The system blocks as one text, without the billing line that heads them."""
    texts = [system] if isinstance(system, str) else [block.text for block in system or ()]
    if texts:
        texts[0] = BILLING_LINE.sub("", texts[0], count=1) if _is_billed(texts[0]) else texts[0]
    return _JOINT.join(text for text in texts if text)


def signature(thought: str, shown: bool) -> str:
    """What the block of a thought is signed with; a thought that is not shown travels in it."""
    if shown:
        return hashlib.blake2b(thought.encode(), digest_size=16).hexdigest()
    return KEPT_THOUGHT + base64.b64encode(thought.encode()).decode()


def _is_billed(text: str) -> bool:
    return BILLING_LINE.match(text) is not None


def _turns(message: InputMessage, loc: Loc, ignored: list[str]) -> list[ChatMessage]:
    content = message.content
    if isinstance(content, str):
        return [ChatMessage(message.role, content)]
    if message.role == "assistant":
        return [_assistant(content, loc, ignored)]
    if message.role == "system":
        return [ChatMessage("system", _JOINT.join(_texts(content, loc, "system")))]
    return _user(content, loc)


def _user(blocks: Sequence[ContentBlock], loc: Loc) -> list[ChatMessage]:
    """Results and text in their order; neighbouring texts are one message."""
    turns: list[ChatMessage] = []
    texts: list[str] = []
    for index, block in enumerate(blocks):
        at = (*loc, index)
        if not isinstance(block, ToolResultBlock):
            texts += _texts([block], at[:-1], "user", index)
            continue
        if texts:
            turns.append(ChatMessage("user", "\n".join(texts)))
            texts = []
        turns.append(_result(block, at))
    if texts or not turns:
        turns.append(ChatMessage("user", "\n".join(texts)))
    return turns


def _result(block: ToolResultBlock, loc: Loc) -> ChatMessage:
    content = block.content
    if isinstance(content, list):
        content = "\n".join(_texts(content, (*loc, "content"), "tool_result"))
    text = f"Error: {content or ''}" if block.is_error else content or ""
    return ChatMessage("tool", text, tool_call_id=block.tool_use_id)


def _assistant(blocks: Sequence[ContentBlock], loc: Loc, ignored: list[str]) -> ChatMessage:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[ToolCall] = []
    for index, block in enumerate(blocks):
        match block:
            case ThinkingBlock():
                thoughts.append(block.thinking or _kept_thought(block.signature))
            case RedactedThinkingBlock():
                ignored.append(field_path((*loc[1:], index)))
            case ToolUseBlock():
                calls.append(ToolCall(FunctionCall(block.name, block.input), block.id))
            case _:
                texts += _texts([block], loc, "assistant", index)
    return ChatMessage(
        "assistant",
        "".join(texts) or None,
        tool_calls=calls or None,
        reasoning_content="\n".join(filter(None, thoughts)) or None,
    )


def _texts(
    blocks: Sequence[ContentBlock | ResultContent], loc: Loc, where: str, first: int = 0
) -> list[str]:
    """Of blocks that are text in some way; `first` is the place of the first one."""
    return [_text(block, (*loc, first + i), where) for i, block in enumerate(blocks)]


def _text(block: ContentBlock | ResultContent, loc: Loc, where: str) -> str:
    match block:
        case TextBlock():
            return block.text
        case DocumentBlock():
            return _document(block, loc)
        case SearchResultBlock():
            found = [block.title, block.source, *(part.text for part in block.content)]
            return "\n".join(filter(None, found))
        case ImageBlock():
            raise UnsupportedField("image blocks are not supported here", loc=(*loc, "type"))
    kind = block.__struct_config__.tag
    raise InvalidRequest(f"{kind} blocks have no place in {where} content", loc=(*loc, "type"))


def _document(block: DocumentBlock, loc: Loc) -> str:
    data = block.source.get("data")
    if block.source.get("type") != "text" or not isinstance(data, str):
        raise UnsupportedField(
            "document blocks are not supported here, but for plain text", loc=(*loc, "source")
        )
    return "\n".join(filter(None, (block.title, block.context, data)))


def _kept_thought(sign: str) -> str:
    if not sign.startswith(KEPT_THOUGHT):
        return ""
    try:
        return base64.b64decode(sign.removeprefix(KEPT_THOUGHT), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
