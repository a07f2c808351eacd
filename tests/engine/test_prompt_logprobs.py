"""How likely a prompt was: every token's log probability, in whatever pieces it is computed."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from engine.batch import Batch, Clear, Rows, Span
from engine.core import EngineCore, Outgoing
from engine.engine import Engine
from engine.llama.model import Model
from engine.llama.runner import LlamaRunner
from engine.request import Event, Request, RequestDone, SamplingParams, TokenLogprob, TokenOutput
from tests.engine import tiny_models
from tests.engine.fakes import FakeRunner, Harness, continuation, make_core
from tests.engine.test_engine import collect, request, settings, with_engine

GREEDY = SamplingParams(temperature=1e-5)
"""Choices that draw are computed each."""


def outputs(events: list[Event]) -> list[TokenOutput]:
    return [event for event in events if isinstance(event, TokenOutput)]


def fake_request(name: str, prompt: list[int], **fields: object) -> Request:
    options: dict[str, object] = {"sampling": GREEDY, "max_tokens": 3} | fields
    return Request(id=name, prompt=prompt, **options)  # type: ignore[arg-type]


class Listener(Harness):
    """Keeps the log probabilities of prompts too."""

    def __init__(self, core: EngineCore) -> None:
        super().__init__(core)
        self.heard: dict[str, list[tuple[TokenLogprob, ...]]] = {}

    def step(self) -> Outgoing:
        outgoing = super().step()
        for state, event in outgoing:
            if isinstance(event, TokenOutput):
                self.heard.setdefault(state.request.id, []).append(event.prompt_logprobs)
        return outgoing

    def run_and_listen(self) -> dict[str, list[tuple[TokenLogprob, ...]]]:
        self.run()
        return self.heard


def test_a_prompt_longer_than_a_steps_rows_comes_in_pieces() -> None:
    runner = FakeRunner()
    harness = Listener(make_core(runner))
    prompt = [1 + i % 60 for i in range(75)]
    answer = harness.add(fake_request("a", prompt, prompt_logprobs=1))
    (first, *rest) = harness.run_and_listen()["a"]
    assert [each.token for each in first] == prompt[1:]
    assert rest == [(), ()], "they come once"
    assert answer.texts[0] == continuation(prompt, 3)
    lengths = [len(span.tokens) for batch in runner.batches for span in batch.spans]
    assert lengths[:-2] == [16, 16, 16, 16, 11], "in multiples of what all prompts are cut at"


def test_others_keep_their_rows_meanwhile() -> None:
    runner = FakeRunner(slots=4)
    harness = Listener(make_core(runner))
    prompts = {name: [place + i % 50 for i in range(70)] for place, name in enumerate("abcd", 1)}
    for name, prompt in prompts.items():
        k = 2 if name in "bd" else None
        harness.add(fake_request(name, prompt, prompt_logprobs=k, max_tokens=30))
    heard = harness.run_and_listen()
    for name, prompt in prompts.items():
        assert harness.answers[name].texts[0] == continuation(prompt, 30)
        expected = prompt[1:] if name in "bd" else []
        assert [each.token for each in heard[name][0]] == expected
    assert any(len(batch.spans) == 4 for batch in runner.batches)


def test_nothing_of_it_comes_from_the_cache_but_the_next_one_profits() -> None:
    harness = Listener(make_core(FakeRunner()))
    prompt = [1 + i % 60 for i in range(64)]
    harness.add(fake_request("warm", prompt))
    harness.run()
    scored = harness.add(fake_request("scored", prompt, prompt_logprobs=0))
    heard = harness.run_and_listen()["scored"]
    assert isinstance(scored.end, RequestDone)
    assert scored.end.usage.cached_tokens == 0
    assert len(heard[0]) == 63
    later = harness.add(fake_request("later", prompt))
    harness.run()
    assert isinstance(later.end, RequestDone)
    assert later.end.usage.cached_tokens >= 48


@pytest.mark.parametrize("n", [1, 6])
def test_without_tokens_to_generate_only_the_prompt_is_computed(n: int) -> None:
    runner = FakeRunner()
    harness = Listener(make_core(runner))
    answer = harness.add(fake_request("a", [5, 6, 7], max_tokens=0, n=n, prompt_logprobs=0))
    heard = harness.run_and_listen()["a"]
    assert [[each.token for each in part] for part in heard] == [[6, 7], *[[]] * (n - 1)]
    assert answer.texts == dict.fromkeys(range(n), "")
    assert answer.reasons == dict.fromkeys(range(n), "length")
    assert isinstance(answer.end, RequestDone)
    assert answer.end.usage.completion_tokens == 0
    assert sum(batch.n_tokens for batch in runner.batches) == 3


def test_a_request_may_go_while_its_prompt_is_scored() -> None:
    harness = Listener(make_core(FakeRunner()))
    gone = fake_request("gone", [1] * 60, prompt_logprobs=3)
    harness.add(gone)
    harness.step()
    assert harness.core.abort("gone")
    answer = harness.add(fake_request("next", [1] * 60))
    harness.run()
    assert answer.texts[0] == continuation([1] * 60, 3)


@pytest.mark.parametrize("seed", range(5))
def test_any_mixture_keeps_within_the_rows_of_a_step(seed: int) -> None:
    """The fake runner refuses more; every scored prompt is scored once and whole."""
    draw = random.Random(seed)
    harness = Listener(make_core(FakeRunner(slots=4)))
    requests = {}
    for number in range(40):
        prompt = [draw.randrange(1, 60) for _ in range(draw.choice([1, 2, 15, 16, 40, 90]))]
        requests[f"{number}"] = fake_request(
            f"{number}",
            prompt,
            n=draw.choice([1, 1, 3]),
            max_tokens=draw.choice([0, 1, 12]),
            prompt_logprobs=draw.choice([None, 0, 2]),
        )
        harness.add(requests[f"{number}"])
    gone = draw.sample(sorted(requests), 5)
    for name in gone:
        harness.step()
        harness.core.abort(name)
    heard = harness.run_and_listen()
    for name, wanted in requests.items():
        answer = harness.answers[name]
        if answer.end is not None:
            assert answer.texts[0] == continuation(wanted.prompt, wanted.max_tokens)
            scored = [each.token for part in heard[name] for each in part]
            assert scored == ([] if wanted.prompt_logprobs is None else wanted.prompt[1:])
    assert sum(answer.end is None for answer in harness.answers.values()) <= len(gone)


def brute_force(path: Path, prompt: list[int]) -> list[float]:
    """Each token after a computation of all before it, in float64."""
    model = Model(settings(path))
    runner = LlamaRunner(model)
    logprobs = []
    for length in range(1, len(prompt)):
        row = runner.run(Batch([Clear(0)], [Span(0, 0, prompt[:length], Rows.LAST)]))[0]
        exact = row.astype(np.float64)
        shifted = exact - exact.max()
        logprobs.append(float((shifted - np.log(np.exp(shifted).sum()))[prompt[length]]))
    model.close()
    return logprobs


@pytest.mark.parametrize("kind", ["attention", "recurrent"])
def test_they_are_those_of_the_bare_model(kind: str, tmp_path: Path) -> None:
    path = tiny_models.write(tmp_path / "tiny.gguf", kind)
    rng = np.random.default_rng(3)
    prompt = [1, *rng.integers(3, tiny_models.N_VOCAB, 150).tolist()]
    expected = brute_force(path, prompt)

    async def scenario(engine: Engine) -> None:
        wanted = request("a", prompt, max_tokens=2, prompt_logprobs=3)
        _, events = await collect(engine, wanted)
        got = outputs(events)[0].prompt_logprobs
        assert [each.token for each in got] == prompt[1:]
        assert [each.logprob for each in got] == pytest.approx(expected, abs=2e-4)
        for each in got:
            assert len(each.top) == 3
            assert each.logprob <= each.top[0].logprob
            in_top = {top.token: top.logprob for top in each.top}
            assert in_top.get(each.token, each.logprob) == each.logprob

    with_engine(path, scenario)


def test_rows_of_a_prompt_and_of_answers_share_a_step_on_a_real_model(smollm2: Path) -> None:
    async def scenario(engine: Engine) -> None:
        text = "The cat sat on the mat. The dog sat on the log. " * 5
        prompt = engine.tokenizer.encode(text)
        alone = outputs((await collect(engine, request("a", prompt, prompt_logprobs=1)))[1])
        others = [request(f"other {i}", prompt[i : i + 20], max_tokens=24) for i in range(3)]
        streams = [engine.submit(other) for other in others]
        beside = outputs((await collect(engine, request("b", prompt, prompt_logprobs=1)))[1])
        for stream in streams:
            assert [event async for event in stream]
        expected = [each.logprob for each in alone[0].prompt_logprobs]
        got = [each.logprob for each in beside[0].prompt_logprobs]
        assert len(got) == len(prompt) - 1
        # The shape of a batch moves quantized logits a little.
        assert np.abs(np.subtract(got, expected)).mean() < 0.1
        assert sum(got[-30:]) > sum(got[:30]), "what repeats is likely"

    with_engine(smollm2, scenario)
