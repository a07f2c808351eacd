"""Chat completion request → the engine's request, and what the answer needs to know of it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable

from msgspec import Struct

from engine.errors import ContextLengthExceeded
from engine.request import Request, ThoughtBudget
from server import conversation, prepare
from server.answers import ChoiceReader
from server.config import ServerConfig
from server.constraints import OutputGrammar, Thought, Wanted, read_response_format
from server.errors import InvalidRequest, UnsupportedField, UnusableTool, quote
from server.models import ServedModel
from server.protocol.chat_completions import ChatCompletionRequest
from server.protocol.completions import CompletionRequest
from server.tools import Toolset, read_toolset

UNSERVED = ("audio", "web_search_options")
"""Fields that are refused unless they are null, false or an empty list."""


class ChatCall(Struct, frozen=True, kw_only=True):
    """One request on its way: the engine's part, and the fields that the answer repeats."""

    request: Request
    new_reader: Callable[[int], ChoiceReader]
    """By the index of the choice."""
    model: str
    created: int
    fingerprint: str
    service_tier: str
    metadata: dict[str, str] | None
    stream: bool
    include_usage: bool
    legacy_functions: bool
    customs: frozenset[str]
    """Names of the custom tools: their calls carry a text instead of arguments."""
    ignored: tuple[str, ...]
    """What a schema mentions and nothing enforces: formats that are annotations."""


def check_chat(wire: ChatCompletionRequest) -> None:
    """What can be refused before any model is asked. Raises InvalidRequest."""
    prepare.check(wire)
    prepare.check_metadata(wire.metadata)
    refuse_unserved(wire)
    check_continuation(wire)
    include_usage(wire)
    top_logprobs(wire)


async def count_prompt(wire: ChatCompletionRequest, model: ServedModel) -> int:
    """Tokens of the prompt that `prepare_chat` would make. Raises InvalidRequest."""
    check_chat(wire)
    return len((await _prompt(wire, model, read_toolset(wire))).tokens)


async def _prompt(
    wire: ChatCompletionRequest, model: ServedModel, toolset: Toolset | None
) -> conversation.Prompt:
    tools = toolset.offered if toolset is not None else ()
    kwargs = conversation.template_kwargs(wire)
    return await conversation.prompt(
        model, wire.messages, kwargs, tools, continues=bool(wire.continue_final_message)
    )


async def prepare_chat(
    wire: ChatCompletionRequest, model: ServedModel, config: ServerConfig, client: prepare.Client
) -> ChatCall:
    """Raises InvalidRequest, ContextLengthExceeded, EngineUnavailable."""
    info = model.engine.info
    toolset = read_toolset(wire)
    tools = toolset.offered if toolset is not None else ()
    prompt = await _prompt(wire, model, toolset)
    output = await output_grammar(wire, model, toolset, prompt.text)
    id = f"chatcmpl-{uuid.uuid4().hex}"
    separate = wire.separate_reasoning is not False
    return ChatCall(
        request=prepare.request(
            wire,
            prompt.tokens,
            id=id,
            context=info.context,
            n_vocab=info.n_vocab,
            client=client,
            defaults=model.config.sampling,
            max_tokens_cap=config.max_tokens,
            logprobs=top_logprobs(wire),
            grammar=output.grammar if output is not None else None,
            special_tokens=model.answers.special_tokens(tools),
            thought=thought_budget(wire, model, prompt.text),
            checkpoints=prompt.checkpoints,
            prediction=await predicted_tokens(wire, model),
        ),
        new_reader=lambda index: model.answers.reader(
            prompt.text, separate=separate, seed=f"{id}/{index}", tools=tools
        ),
        model=model.name,
        created=int(time.time()),
        fingerprint=info.fingerprint,
        service_tier=wire.service_tier or "default",
        metadata=wire.metadata,
        stream=bool(wire.stream),
        include_usage=include_usage(wire),
        legacy_functions=toolset is not None and toolset.legacy,
        customs=toolset.customs if toolset is not None else frozenset(),
        ignored=output.ignored if output is not None else (),
    )


def unread(wire: ChatCompletionRequest, model: ServedModel, call: ChatCall) -> list[str]:
    """Options for the template, for a thought or a draft, of which this model knows nothing."""
    variables, learned = model.format.template.variables, model.format.learned
    thinks = bool(learned.thought.learned or learned.switch or "enable_thinking" in variables)
    known = {
        "reasoning_effort": thinks or "reasoning_effort" in variables,
        "enable_thinking": thinks,
        "reasoning_budget": call.request.thought is not None,
        "verbosity": "verbosity" in variables,
        "prediction": model.engine.info.can_draft,
    }
    found = [name for name, read in known.items() if not read and asks(getattr(wire, name))]
    kwargs = wire.chat_template_kwargs or {}
    return found + [f"chat_template_kwargs.{name}" for name in kwargs if name not in variables]


def asks(value: object) -> bool:
    """A model that does not think is as one that was told not to."""
    return value is not None and value is not False and value != "none"


async def predicted_tokens(wire: ChatCompletionRequest, model: ServedModel) -> tuple[int, ...]:
    """The prediction as the model would write it; () where it is of no use to this model.

    Raises InvalidRequest for what could not be an answer: it is longer than the context.
    """
    if wire.prediction is None:
        return ()
    content, context = wire.prediction.content, model.engine.info.context
    text = content if isinstance(content, str) else "".join(part.text for part in content)
    try:
        model.prompt_text.check_length(text)
        encode = model.engine.tokenizer.encode
        tokens = await conversation.off_loop_if(len(text), encode, text, parse_special=False)
        if len(tokens) > context:
            raise ContextLengthExceeded(len(tokens), context)
    except ContextLengthExceeded as error:
        raise InvalidRequest(
            f"the prediction has more tokens than the context of one request, {context}",
            loc=("body", "prediction", "content"),
            code="context_length_exceeded",
        ) from error
    return tuple(tokens) if model.engine.info.can_draft else ()


def thought_budget(
    wire: ChatCompletionRequest, model: ServedModel, prompt: str
) -> ThoughtBudget | None:
    """None without a limit, and for models that do not think: they keep any budget."""
    thought = Thought.of(model.format, prompt)
    if wire.reasoning_budget is None or thought is None:
        return None
    return ThoughtBudget(
        tokens=wire.reasoning_budget,
        close=model.engine.tokenizer.encode(thought.close),
        marker=thought.close.strip(),
        open="" if thought.begun else thought.open.strip(),
    )


async def output_grammar(
    wire: ChatCompletionRequest, model: ServedModel, toolset: Toolset | None, prompt: str
) -> OutputGrammar | None:
    """The constraint that response_format and tools put on the answer, compiled in a thread."""
    form = read_response_format(wire.response_format)
    if form is None and toolset is None:
        return None
    format, plan = model.format, None
    if toolset is not None and toolset.callable:
        plan = format.call_plan(toolset.callable, toolset.parallel)
    wanted = Wanted(
        form=form,
        calls=plan,
        must_call=toolset is not None and toolset.must_call,
        banned=format.calls[0].triggers if toolset is not None and not toolset.callable else (),
        thought=Thought.of(format, prompt),
        content_open=format.learned.content_open,
    )
    try:
        return await asyncio.to_thread(model.constrain, wanted)
    except UnusableTool as error:
        error.loc = toolset.schema_loc(error.tool) if toolset is not None else error.loc
        raise


def refuse_unserved(wire: ChatCompletionRequest) -> None:
    """Names the first field that asks for what this server does not do."""
    for name in UNSERVED:
        value = getattr(wire, name)
        if value is not None and value is not False and value != []:
            raise UnsupportedField(f"{name} is not supported", loc=("body", name))
    for index, modality in enumerate(wire.modalities or ()):
        if modality != "text":
            raise UnsupportedField(
                f"modality {quote(modality)} is not supported; text is",
                loc=("body", "modalities", index),
            )


def check_continuation(wire: ChatCompletionRequest) -> None:
    """What is continued must be text, and free: a document is made whole or not at all."""
    if not wire.continue_final_message or not wire.messages:
        return
    last, loc = wire.messages[-1], ("body", "messages", len(wire.messages) - 1)
    if last.role != "assistant" or last.tool_calls or last.function_call:
        raise InvalidRequest("only text of the assistant can be continued", loc=loc)
    if not last.content or (isinstance(last.content, str) and not last.content.strip()):
        raise InvalidRequest("there is no text to continue", loc=(*loc, "content"))
    if read_response_format(wire.response_format) is not None:
        raise UnsupportedField(
            "an answer in a format cannot begin with the last message", loc=("body", "messages")
        )


def top_logprobs(wire: ChatCompletionRequest) -> int | None:
    """How many likely tokens to report at each position; None is no logprobs at all."""
    if wire.logprobs:
        return wire.top_logprobs or 0
    if wire.top_logprobs:
        raise InvalidRequest(
            f"top_logprobs is {wire.top_logprobs}, but logprobs is not true",
            loc=("body", "top_logprobs"),
        )
    return None


def include_usage(wire: ChatCompletionRequest | CompletionRequest) -> bool:
    """Whether the stream ends with a chunk of token counts."""
    if wire.stream_options is None:
        return False
    if not wire.stream:
        raise InvalidRequest(
            "stream_options may only be given where stream is true",
            loc=("body", "stream_options"),
        )
    return bool(wire.stream_options.include_usage)
