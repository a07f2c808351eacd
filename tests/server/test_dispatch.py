"""Loading on first use, fallbacks, and streams that begin before their model is there."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.errors import InvalidModelFile, QueueFull, RequestError
from engine.request import SamplingParams
from engine.settings import ModelSettings
from server.app import create_app
from server.config import ModelConfig, ServerConfig
from server.dispatch import Asked, Dispatcher, Submitted
from server.models import Models, ServedModel
from tests.server.asgi import Client, chat_body
from tests.server.fakes import INFO, FakeEngine, answer

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"


class Loading:
    """Loads fake engines as the test says."""

    def __init__(self, **engines: FakeEngine) -> None:
        self.engines = engines
        self.calls: list[str] = []
        self.errors: dict[str, Exception] = {}
        self.proceed = threading.Event()
        self.proceed.set()
        self.begun: dict[str, asyncio.Event] = {name: asyncio.Event() for name in engines}
        self._loop = asyncio.get_running_loop()

    def __call__(self, config: ModelConfig, progress: Callable[[str, float], None]) -> FakeEngine:
        self.calls.append(config.name)
        self._loop.call_soon_threadsafe(self.begun[config.name].set)
        assert self.proceed.wait(10)
        if error := self.errors.get(config.name):
            raise error
        return self.engines[config.name]


def config_of(*names: str, **changes: object) -> ServerConfig:
    models = tuple(
        ModelConfig(name=name, settings=ModelSettings(path=Path(f"{name}.gguf"))) for name in names
    )
    return ServerConfig(models=models, **changes)  # type: ignore[arg-type]


@asynccontextmanager
async def serving(config: ServerConfig, loading: Loading) -> AsyncIterator[Client]:
    models = Models(config.models, loading)  # type: ignore[arg-type]
    app = create_app(config, models)
    async with app.router.lifespan_context(app):
        await models.wait_loaded()
        yield Client(app)


async def test_only_the_first_model_is_loaded_at_the_start() -> None:
    loading = Loading(a=FakeEngine(), b=FakeEngine(answer("from b")))
    async with serving(config_of("a", "b"), loading) as client:
        assert loading.calls == ["a"]
        health = await client.get("/health")
        assert (health.status, health.json()["models"]["b"]) == (200, {"state": "unloaded"})
        response = await client.chat(model="b")
        assert response.json()["choices"][0]["message"]["content"] == "from b"
        assert loading.calls == ["a", "b"]
    assert loading.engines["b"].closed


@pytest.mark.parametrize("stream", [False, True])
async def test_many_requests_load_a_model_once(stream: bool) -> None:
    loading = Loading(a=FakeEngine(), b=FakeEngine())
    async with serving(config_of("a", "b"), loading) as client:
        loading.proceed.clear()
        body = chat_body(model="b", stream=stream)
        exchanges = [client.begin("POST", CHAT, body) for _ in range(10)]
        await loading.begun["b"].wait()
        assert (await client.get("/v1/models/b")).json()["state"] == "loading"
        loading.proceed.set()
        assert [(await exchange.finish()).status for exchange in exchanges] == [200] * 10
        assert loading.calls == ["a", "b"]


async def test_who_leaves_does_not_stop_the_load_for_others() -> None:
    loading = Loading(a=FakeEngine(), b=FakeEngine())
    async with serving(config_of("a", "b"), loading) as client:
        loading.proceed.clear()
        leaving = client.begin("POST", CHAT, chat_body(model="b"))
        await loading.begun["b"].wait()
        staying = client.begin("POST", CHAT, chat_body(model="b"))
        await leaving.hang_up()
        loading.proceed.set()
        assert (await staying.finish()).status == 200
        assert len(loading.engines["b"].requests) == 1


async def test_stream_begins_while_its_model_loads() -> None:
    loading = Loading(a=FakeEngine(), b=FakeEngine())
    async with serving(config_of("a", "b", keepalive=0.1), loading) as client:
        loading.proceed.clear()
        exchange = client.begin("POST", CHAT, chat_body(model="b", stream=True, nonsense=1))
        await exchange.until(b": keepalive\n\n: keepalive\n\n")
        assert exchange.status == 200
        assert exchange.headers["x-ignored-params"] == "nonsense"
        loading.proceed.set()
        await exchange.finish()
        texts = [c["choices"][0]["delta"].get("content", "") for c in exchange.events()[:-1]]
        assert "".join(texts) == "Hello"
        assert loading.engines["b"].cancelled == []


async def test_patience_is_for_loads_alone() -> None:
    """The first model is there, and slow to take the request: its refusal stays a status."""
    loading = Loading(a=FakeEngine(), b=FakeEngine())
    models = Models(config_of("a", "b").models, loading)  # type: ignore[arg-type]
    models.start()
    await models.wait_loaded()
    dispatcher = Dispatcher(models, keepalive=15, patience=0)

    async def attempt(model: ServedModel) -> Submitted[str]:
        await asyncio.sleep(0.05)
        raise RequestError("no")

    with pytest.raises(RequestError):
        await dispatcher.stream(Asked("a", ["b"]), attempt, None)  # type: ignore[arg-type]
    await models.close()


async def test_load_that_fails_late_is_an_event() -> None:
    loading = Loading(a=FakeEngine(), b=FakeEngine())
    loading.errors["b"] = InvalidModelFile("b.gguf is no model")
    async with serving(config_of("a", "b"), loading) as client:
        loading.proceed.clear()
        exchange = client.begin("POST", CHAT, chat_body(model="b", stream=True))
        await exchange.until(b": keepalive")
        loading.proceed.set()
        await exchange.finish()
        (event,) = exchange.events()
        assert event["error"]["code"] == "invalid_model_file"


async def test_load_that_fails_at_once_is_a_status_and_is_not_tried_again() -> None:
    loading = Loading(a=FakeEngine(), b=FakeEngine())
    loading.errors["b"] = InvalidModelFile("b.gguf is no model")
    async with serving(config_of("a", "b"), loading) as client:
        for stream in (True, False):
            response = await client.chat(model="b", stream=stream)
            assert response.status == 503
            assert response.json()["error"]["code"] == "invalid_model_file"
        assert loading.calls == ["a", "b"]
        assert (await client.get("/health")).status == 200


async def test_bad_request_does_not_load_a_model() -> None:
    loading = Loading(a=FakeEngine(), b=FakeEngine())
    async with serving(config_of("a", "b"), loading) as client:
        assert (await client.chat(model="b", temperature=3)).status == 400
        assert (await client.chat(model="b", web_search_options={"a": 1})).status == 400
        assert loading.calls == ["a"]


async def test_hanging_up_while_the_model_loads() -> None:
    loading = Loading(a=FakeEngine(), b=FakeEngine())
    async with serving(config_of("a", "b"), loading) as client:
        loading.proceed.clear()
        exchange = client.begin("POST", CHAT, chat_body(model="b", stream=True))
        await exchange.until(b": keepalive")
        await exchange.hang_up()
        loading.proceed.set()
        assert (await client.chat(model="b")).status == 200
        assert len(loading.engines["b"].requests) == 1


async def test_models_own_sampling_holds_where_the_request_says_nothing() -> None:
    loading = Loading(a=FakeEngine())
    config = config_of("a")
    sampling = SamplingParams(temperature=0.3, top_k=7, repetition_penalty=1.2)
    config = replace(config, models=(replace(config.models[0], sampling=sampling),))
    async with serving(config, loading) as client:
        await client.chat(model="a")
        await client.chat(model="a", temperature=0, top_k=-1)
    silent, outspoken = (request.sampling for request in loading.engines["a"].requests)
    assert (silent.temperature, silent.top_k, silent.repetition_penalty) == (0.3, 7, 1.2)
    assert (outspoken.temperature, outspoken.top_k, outspoken.repetition_penalty) == (0, 0, 1.2)


# Fallbacks


async def test_full_queue_moves_on_and_the_answer_says_so() -> None:
    loading = Loading(a=FakeEngine(), b=FakeEngine(answer("from b")))
    loading.engines["a"].refusal = QueueFull(1, 1)
    async with serving(config_of("a", "b"), loading) as client:
        body = (await client.chat(model="org/a", fallbacks=["b"])).json()
        assert body["model"] == "b"
        assert body["choices"][0]["message"]["content"] == "from b"
        fields = body["extra_fields"]
        assert (fields["provider"], fields["model_requested"]) == ("ingle", "org/a")
        assert isinstance(fields["latency"], int)
        first, second = fields["attempts"]
        assert (first["model"], first["error"]) == ("a", "queue_full")
        assert (second["model"], second["error"]) == ("b", None)


async def test_stream_says_so_in_its_last_chunk() -> None:
    loading = Loading(a=FakeEngine(), b=FakeEngine())
    loading.engines["a"].refusal = QueueFull(1, 1)
    async with serving(config_of("a", "b"), loading) as client:
        response = await client.chat(model="a", fallbacks=["b"], stream=True)
        *chunks, last, _ = response.events()
        assert {chunk["model"] for chunk in chunks} == {"b"}
        assert [tried["model"] for tried in last["extra_fields"]["attempts"]] == ["a", "b"]
        assert last["choices"] == []
        assert "usage" not in last


async def test_prompt_too_long_moves_on_to_a_longer_context() -> None:
    long = FakeEngine(info=replace(INFO, context=4096))
    loading = Loading(a=FakeEngine(), b=long)
    async with serving(config_of("a", "b"), loading) as client:
        fields = {"messages": [{"role": "user", "content": "x" * 1000}], "model": "a"}
        refused = await client.chat(**fields)
        assert refused.json()["error"]["code"] == "context_length_exceeded"
        body = (await client.chat(**fields, fallbacks=["b"])).json()
        assert body["model"] == "b"
        assert body["extra_fields"]["attempts"][0]["error"] == "context_length_exceeded"


async def test_load_failure_moves_on() -> None:
    loading = Loading(a=FakeEngine(), b=FakeEngine())
    loading.errors["b"] = InvalidModelFile("b.gguf is no model")
    async with serving(config_of("a", "b"), loading) as client:
        body = (await client.chat(model="b", fallbacks=["a"])).json()
        assert body["model"] == "a"
        assert body["extra_fields"]["attempts"][0]["message"] == "b.gguf is no model"


async def test_where_none_answers_the_first_error_counts() -> None:
    loading = Loading(a=FakeEngine(), b=FakeEngine())
    loading.engines["a"].refusal = QueueFull(7, 1)
    loading.errors["b"] = InvalidModelFile("b.gguf is no model")
    async with serving(config_of("a", "b"), loading) as client:
        response = await client.chat(model="a", fallbacks=["b"])
        assert response.status == 429


async def test_fault_of_the_request_does_not_move_on() -> None:
    loading = Loading(a=FakeEngine(), b=FakeEngine())
    loading.engines["a"].refusal = RequestError("no")
    async with serving(config_of("a", "b"), loading) as client:
        assert (await client.chat(model="a", fallbacks=["b"])).status == 400
        assert loading.calls == ["a"]


async def test_configured_fallbacks_are_for_requests_without_their_own() -> None:
    loading = Loading(a=FakeEngine(), b=FakeEngine())
    loading.engines["a"].refusal = QueueFull(1, 1)
    config = config_of("a", "b")
    first = replace(config.models[0], fallbacks=("b",))
    config = replace(config, models=(first, config.models[1]))
    async with serving(config, loading) as client:
        assert (await client.chat(model="a")).json()["model"] == "b"
        assert (await client.chat(model="a", fallbacks=[])).status == 429


async def test_without_fallbacks_nothing_is_said() -> None:
    loading = Loading(a=FakeEngine())
    async with serving(config_of("a"), loading) as client:
        assert "extra_fields" not in (await client.chat(model="a")).json()
        events = (await client.chat(model="a", stream=True)).events()
        assert all("extra_fields" not in event for event in events[:-1])


async def test_unknown_fallback_is_named() -> None:
    loading = Loading(a=FakeEngine())
    async with serving(config_of("a"), loading) as client:
        response = await client.chat(model="a", fallbacks=["a", "gpt-9"])
        assert response.status == 400
        error = response.json()["error"]
        assert (error["param"], error["code"]) == ("fallbacks[1]", "model_not_found")


async def test_fallbacks_of_text_completions() -> None:
    full = FakeEngine()
    full.refusal = QueueFull(1, 1)
    loading = Loading(a=full, b=FakeEngine(answer("from b")))
    async with serving(config_of("a", "b"), loading) as client:
        for prompt in ("Hi", ["Hi", "you"]):
            body = {"model": "a", "fallbacks": ["b"], "prompt": prompt}
            whole = (await client.post("/v1/completions", body)).json()
            assert (whole["model"], whole["choices"][-1]["text"]) == ("b", "from b")
            assert [each["model"] for each in whole["extra_fields"]["attempts"]] == ["a", "b"]
            events = (await client.post("/v1/completions", {**body, "stream": True})).events()
            assert events[-2]["extra_fields"]["model_requested"] == "a"


async def test_what_a_fallback_answered_is_stored_as_its_answer(tmp_path: Path) -> None:
    full = FakeEngine()
    full.refusal = QueueFull(1, 1)
    loading = Loading(a=full, b=FakeEngine(answer("from b")))
    config = config_of("a", "b", store=tmp_path / "store.sqlite3")
    async with serving(config, loading) as client:
        for stream in (False, True):
            await client.chat(model="a", fallbacks=["b"], store=True, stream=stream)
        page = (await client.get(f"{CHAT}?model=b")).json()
        assert len(page["data"]) == 2
        for stored in page["data"]:
            assert stored["choices"][0]["message"]["content"] == "from b"
            assert stored["extra_fields"]["model_requested"] == "a"
