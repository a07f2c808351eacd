"""GET /metrics: Prometheus' text format."""

from __future__ import annotations

from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.metrics import Metrics


class MetricsApi:
    """Needs a key where keys are set: Prometheus can send one."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def routes(self) -> list[Route]:
        """Where Prometheus looks unless told otherwise."""
        return [Route("/metrics", self.show, methods=["GET"])]

    async def show(self, request: Request) -> Response:
        """A few milliseconds, whatever the load."""
        return Response(self._metrics.render(), media_type=CONTENT_TYPE_LATEST)
