"""What Prometheus is told: requests counted as they end, engines read when they are asked.

The names are the field's, after `ingle_`. No label comes from a client: routes are templates,
models are those that are configured, users and keys do not occur.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, cast

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from starlette.routing import BaseRoute, Route
from starlette.types import Scope

from engine.counters import Histogram as StepHistogram
from engine.request import RequestDone
from server.models import Models, ServedModel

if TYPE_CHECKING:
    from engine.engine import Engine
    from server.middleware import RequestLog

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)
TOKEN_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5)
STATES = ("unloaded", "loading", "ready", "draining", "unloading", "stopped", "failed")
OTHER = "other"
"""Stands for paths that no route has."""


class Metrics:
    """One registry of its own; `observe` once a request, `render` once a scrape."""

    def __init__(self, models: Models, restarts: int = 0) -> None:
        """`restarts`: how many workers died before this one."""
        # A second family beside each, with the time of its first use.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = self._registry = CollectorRegistry(auto_describe=False)
        self._routes: dict[object, str] = {}
        self._requests = Counter(
            "ingle_requests",
            "Requests that ended.",
            ("route", "status", "model"),
            registry=registry,
        )
        self._finished = Counter(
            "ingle_request_success",
            "Generations that ended, by why their choices did.",
            ("model", "finished_reason"),
            registry=registry,
        )
        self._latency = self._histogram(
            "e2e_request_latency_seconds", "From the request to its last byte."
        )
        self._queue = self._histogram(
            "request_queue_time_seconds", "From submission to the first step."
        )
        self._prefill = self._histogram(
            "request_prefill_time_seconds", "From the first step to the first token."
        )
        self._first = self._histogram(
            "time_to_first_token_seconds", "From submission to the first token."
        )
        self._decode = self._histogram(
            "request_decode_time_seconds", "From the first token to the last."
        )
        self._per_token = self._histogram(
            "request_time_per_output_token_seconds",
            "Of each token after the first: the mean of one request.",
            TOKEN_SECONDS,
        )
        Info("ingle_build", "What is running.", registry=registry).info(
            {"python": platform.python_version(), "llama_cpp_python": _version("llama-cpp-python")}
        )
        Gauge(
            "ingle_worker_restarts", "Workers that were killed and replaced.", registry=registry
        ).set(restarts)
        ProcessCollector(registry=registry)
        registry.register(_Engines(models))

    def _histogram(self, name: str, text: str, buckets: Iterable[float] = SECONDS) -> Histogram:
        return Histogram(
            f"ingle_{name}", text, ("model",), buckets=tuple(buckets), registry=self._registry
        )

    def know_routes(self, routes: Iterable[BaseRoute]) -> None:
        """Paths by endpoint; one that has several goes by the first."""
        for route in routes:
            if isinstance(route, Route):
                self._routes.setdefault(route.endpoint, route.path)

    def observe(self, scope: Scope, record: RequestLog, seconds: float) -> None:
        """A request has ended, however it did."""
        route = self._routes.get(scope.get("endpoint"), OTHER)
        model = str(record.fields.get("model", ""))
        self._requests.labels(route, str(record.status or 0), model).inc()
        if model:
            self._latency.labels(model).observe(seconds)
        if record.done is not None:
            self._generation(model, record.done)

    def _generation(self, model: str, done: RequestDone) -> None:
        timings, tokens = done.timings, done.usage.completion_tokens
        for reason in done.finish_reasons:
            self._finished.labels(model, reason).inc()
        self._queue.labels(model).observe(timings.queued)
        self._prefill.labels(model).observe(timings.prefill)
        self._first.labels(model).observe(timings.queued + timings.prefill)
        self._decode.labels(model).observe(timings.decode)
        after_first = tokens - max(1, len(done.finish_reasons))
        if after_first > 0:
            self._per_token.labels(model).observe(timings.decode / after_first)

    def render(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)


class _Engines(Collector):
    """Reads every engine at the moment of a scrape: steps pay nothing for being watched."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        """What there is of each loaded model, and the state of all."""
        yield self._states()
        loaded = [model for model in self._models.models if model.loaded]
        yield from _load(loaded)
        generating = [
            (model.name, cast("Engine", model.loaded_engine))
            for model in loaded
            if model.info.task == "generate"
        ]
        yield from _tokens(generating)
        yield from _steps(generating)
        yield from _cache(generating)

    def _states(self) -> Metric:
        family = GaugeMetricFamily(
            "ingle_model_state", "1 for the state that a model is in.", labels=("model", "state")
        )
        for model in self._models.models:
            for state in STATES:
                family.add_metric((model.name, state), float(model.state == state))
        return family


def _load(models: Iterable[ServedModel]) -> Iterator[Metric]:
    running = GaugeMetricFamily(
        "ingle_num_requests_running", "Requests that have a slot.", labels=("model",)
    )
    waiting = GaugeMetricFamily(
        "ingle_num_requests_waiting", "Requests that wait for one.", labels=("model",)
    )
    slots = GaugeMetricFamily("ingle_slots", "Requests that can run at once.", labels=("model",))
    for model in models:
        stats = model.loaded_engine.stats()
        running.add_metric((model.name,), stats.running)
        waiting.add_metric((model.name,), stats.waiting)
        slots.add_metric((model.name,), stats.slots)
    yield from (running, waiting, slots)


def _tokens(engines: Iterable[tuple[str, Engine]]) -> Iterator[Metric]:
    prompt = CounterMetricFamily(
        "ingle_prompt_tokens",
        "Tokens of prompts that were computed: not those found in the cache.",
        labels=("model",),
    )
    generated = CounterMetricFamily(
        "ingle_generation_tokens", "Tokens of answers.", labels=("model",)
    )
    drafted = CounterMetricFamily(
        "ingle_spec_decode_num_draft_tokens",
        "Predicted tokens that were computed ahead.",
        labels=("model",),
    )
    accepted = CounterMetricFamily(
        "ingle_spec_decode_num_accepted_tokens",
        "Of these, the ones that the answers took.",
        labels=("model",),
    )
    for name, engine in engines:
        prompt.add_metric((name,), engine.counters.prompt_tokens)
        generated.add_metric((name,), engine.counters.generated_tokens)
        drafted.add_metric((name,), engine.counters.draft_tokens)
        accepted.add_metric((name,), engine.counters.accepted_tokens)
    yield from (prompt, generated, drafted, accepted)


def _steps(engines: Iterable[tuple[str, Engine]]) -> Iterator[Metric]:
    steps = HistogramMetricFamily(
        "ingle_step_duration_seconds", "One pass of llama.cpp over a batch.", labels=("model",)
    )
    gaps = HistogramMetricFamily(
        "ingle_inter_token_latency_seconds",
        "From one token of an answer to the next.",
        labels=("model",),
    )
    for name, engine in engines:
        _add(steps, name, engine.counters.steps)
        _add(gaps, name, engine.counters.token_gaps)
    yield from (steps, gaps)


def _add(family: HistogramMetricFamily, model: str, histogram: StepHistogram) -> None:
    counts, buckets, seen = list(histogram.counts), [], 0
    for bound, count in zip((*map(str, histogram.bounds), "+Inf"), counts, strict=True):
        seen += count
        buckets.append((bound, seen))
    family.add_metric((model,), buckets, histogram.sum)


def _cache(engines: Iterable[tuple[str, Engine]]) -> Iterator[Metric]:
    usage = GaugeMetricFamily(
        "ingle_kv_cache_usage_ratio",
        "Part of the cells that running requests fill.",
        labels=("model",),
    )
    copied = GaugeMetricFamily(
        "ingle_prefix_cache_bytes", "Bytes of prefixes copied to host memory.", labels=("model",)
    )
    queries = CounterMetricFamily(
        "ingle_prefix_cache_queries", "Tokens of prompts that were looked up.", labels=("model",)
    )
    hits = CounterMetricFamily(
        "ingle_prefix_cache_hits",
        "Tokens that were found: in an idle slot, one at work, host memory or on disk.",
        labels=("model", "level"),
    )
    for name, engine in engines:
        cache = engine.snapshot().cache
        usage.add_metric((name,), cache.usage)
        copied.add_metric((name,), cache.copied_bytes)
        queries.add_metric((name,), cache.queried_tokens)
        for level, tokens in cache.hit_tokens.items():
            hits.add_metric((name, level), tokens)
    yield from (usage, copied, queries, hits)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
