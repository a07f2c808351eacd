"""An engine without a model: one token per character, and a script instead of a mind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from msgspec.structs import replace

from engine.counters import Counters
from engine.engine_thread import EngineStats
from engine.errors import EngineError
from engine.probe import ProbeResult
from engine.request import (
    Event,
    FinishReason,
    Grammar,
    Request,
    RequestDone,
    RequestFailed,
    Timings,
    TokenLogprob,
    TokenOutput,
    Usage,
)
from engine.settings import ModelInfo, ModelSettings
from engine.snapshot import CacheState, SlotState, Snapshot
from engine.stream import Stream

N_VOCAB = 0x110000

INFO = ModelInfo(
    architecture="fake",
    description="fake 1B Q4_0",
    quantization="Q4_0",
    n_params=1_000_000_000,
    file_bytes=500_000_000,
    kv_bytes=1_000_000,
    context=512,
    context_trained=2048,
    parallel=4,
    n_vocab=N_VOCAB,
    chat_template=(
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
        "{% if enable_thinking is defined %}[thinking={{ enable_thinking }}]{% endif %}"
        "{% if verbosity is defined %}[verbosity={{ verbosity }}]{% endif %}"
        "{% if reasoning_effort is defined %}[effort={{ reasoning_effort }}]{% endif %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    ),
    bos_token="",
    eos_token="",
    device="CPU",
    fingerprint="fp_fake",
)


class FakeTokenizer:
    """A token is a code point; no text of it is of the private use area."""

    n_vocab = N_VOCAB
    adds_bos = False
    bos = -1
    eos = 2
    infill = None
    control = frozenset(range(0xE000, 0xF900))
    end_of_generation = frozenset({2})

    def encode(
        self, text: str, *, add_special: bool = False, parse_special: bool = True
    ) -> list[int]:
        return [ord(char) for char in text]

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(map(chr, tokens))

    def token_bytes(self, token: int) -> bytes:
        return chr(token).encode("utf-8", "surrogatepass")


Script = Callable[[Request], Iterable[Event]]


class FakeEngine:
    """Answers every request with what `script` says; `hold` keeps requests waiting."""

    def __init__(self, script: Script | None = None, info: ModelInfo = INFO) -> None:
        self.info = info
        self.tokenizer = FakeTokenizer()
        self.state = "ready"
        self.failure: str | None = None
        self.script = script or answer("Hello")
        self.refusal: EngineError | None = None
        self.hold = asyncio.Event()
        self.hold.set()
        self.requests: list[Request] = []
        self.compiled: list[Grammar] = []
        self.cancelled: list[str] = []
        self.cancellation = asyncio.Event()
        self.submitted = asyncio.Event()
        self.closed = False
        self.settings: ModelSettings | None = None
        self.probed: ProbeResult | None = None
        self.counters = Counters()
        self.cache = CacheState(
            usage=0.25,
            copies=1,
            copied_tokens=40,
            copied_bytes=4096,
            budget_bytes=8192,
            files=0,
            queried_tokens=100,
            hit_tokens={"slot": 30, "running": 0, "memory": 10, "disk": 0},
        )
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        assert loop is asyncio.get_running_loop()

    def enable_constraints(self, text_tokens: frozenset[int] = frozenset()) -> None:
        self.text_tokens = text_tokens

    def compile_grammar(self, grammar: Grammar) -> None:
        self.compiled.append(grammar)

    def stats(self) -> EngineStats:
        return EngineStats(running=len(self.requests), waiting=0, slots=self.info.parallel)

    def snapshot(self) -> Snapshot:
        return Snapshot(
            running=0,
            waiting=0,
            slots=[SlotState(slot=0, state="idle", tokens=12)],
            cache=self.cache,
            steps=self.counters.steps.total,
            step_seconds=self.counters.steps.sum,
            prompt_tokens=self.counters.prompt_tokens,
            generated_tokens=self.counters.generated_tokens,
            draft_tokens=self.counters.draft_tokens,
            accepted_tokens=self.counters.accepted_tokens,
            threads=2,
        )

    def submit(self, request: Request) -> Stream:
        if self.refusal is not None:
            raise self.refusal
        self.requests.append(request)
        self.submitted.set()
        task: asyncio.Task[None]

        def cancel() -> None:
            task.cancel()
            self.cancelled.append(request.id)
            self.cancellation.set()

        stream = Stream(cancel)
        task = asyncio.create_task(self._play(request, stream))
        self._tasks.add(task)
        return stream

    async def _play(self, request: Request, stream: Stream) -> None:
        for event in self.script(request):
            await self.hold.wait()
            stream.put(event)
            await asyncio.sleep(0)

    async def drain(self, timeout: float) -> None:
        self.state = "draining"

    def close(self) -> None:
        self.state, self.closed = "stopped", True


def done(prompt: int = 10, completion: int = 5, cached: int = 4) -> RequestDone:
    return RequestDone(
        Usage(prompt, completion, cached), Timings(0.25, 0.5, 2.0), (FinishReason.STOP,)
    )


def answer(text: str, finish: FinishReason = FinishReason.STOP, stop: object = 2) -> Script:
    """`text` in every choice, a character at a time, with logprobs where they are asked for."""

    def script(request: Request) -> Iterable[Event]:
        for index in range(request.n):
            for i, char in enumerate(text):
                last = i == len(text) - 1
                yield TokenOutput(
                    index=index,
                    text=char,
                    n_tokens=1,
                    logprobs=logprobs(char, request.logprobs),
                    finish_reason=finish if last else None,
                    stop_reason=stop if last else None,  # type: ignore[arg-type]
                )
        yield done(len(request.prompt), len(text) * request.n)

    return script


def logprobs(char: str, k: int | None) -> tuple[TokenLogprob, ...]:
    if k is None:
        return ()
    ranked = [(ord(char) + place, -1.0 - place) for place in range(k)]
    return (TokenLogprob(ord(char), char.encode(), -1.0, ranked, utf_8),)


def utf_8(token: int) -> bytes:
    """Of the character that the token is."""
    return chr(token).encode()


def thinking_engine() -> FakeEngine:
    """Its prompts open a thought, unless they are told not to; its answer closes it."""
    template = (
        "{% for m in messages %}<{{ m.role }}>{% if m.reasoning_content %}<think>\n"
        "{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content }}<end>{% endfor %}"
        "{% if add_generation_prompt %}<assistant><think>\n"
        "{% if enable_thinking is defined and not enable_thinking %}\n</think>\n\n{% endif %}"
        "{% endif %}"
    )
    return FakeEngine(answer("Hm.\n</think>\n\nHello"), replace(INFO, chat_template=template))


def failure(error: EngineError, after: str = "") -> Script:
    """Some text, then the error."""

    def script(request: Request) -> Iterable[Event]:
        for char in after:
            yield TokenOutput(index=0, text=char, n_tokens=1)
        yield RequestFailed(error)

    return script
