"""What is served and what is loaded, in Ollama's shapes; and what this server does not manage."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from server.api.http import json_response, with_ignored
from server.api.ollama.answer import MEDIA_TYPE, encoded
from server.api.ollama.body import Body, find, tagged, timestamp
from server.api.ollama.facts import (
    capabilities_of,
    details_of,
    facts_of,
    model_info,
    template_of,
)
from server.config import ServerConfig
from server.errors import ModelNotFound, NotManaged, UnsupportedField
from server.loader import Headers
from server.models import Models, ServedModel
from server.protocol.ollama import (
    ListedModel,
    ModelListing,
    ModelRequest,
    RunningModel,
    ShownModel,
    Status,
    Version,
)

API_VERSION = "0.13.0"
"""The release of Ollama whose API is spoken here; clients ask for a minimum."""
FOREVER = timedelta(days=100 * 365)
"""Stands for the end of what is never unloaded: dates have no infinity."""
UNMANAGED = (
    ("/api/push", "POST"),
    ("/api/create", "POST"),
    ("/api/copy", "POST"),
    ("/api/delete", "DELETE"),
    ("/api/blobs/{digest}", "POST"),
    ("/api/blobs/{digest}", "HEAD"),
)


class OllamaListing:
    """Nothing here loads a model."""

    def __init__(self, config: ServerConfig, models: Models) -> None:
        self._config = config
        self._models = models
        self._body = Body(ModelRequest)
        self._headers = Headers()

    def routes(self) -> list[Route]:
        """Starlette adds HEAD to GET."""
        unmanaged = [Route(path, self.refuse, methods=[method]) for path, method in UNMANAGED]
        return [
            Route("/", self.root, methods=["GET"]),
            Route("/api/version", self.version, methods=["GET"]),
            Route("/api/tags", self.tags, methods=["GET"]),
            Route("/api/ps", self.running, methods=["GET"]),
            Route("/api/show", self.show, methods=["POST"]),
            Route("/api/pull", self.pull, methods=["POST"]),
            *unmanaged,
        ]

    async def root(self, request: Request) -> Response:
        """By these words clients know what they talk to."""
        return PlainTextResponse("Ollama is running")

    async def version(self, request: Request) -> Response:
        """Not Ingle's own."""
        return json_response(Version(API_VERSION))

    async def tags(self, request: Request) -> Response:
        """Every served model."""
        models = self._models.models
        return json_response(ModelListing([await listed(each, self._headers) for each in models]))

    async def running(self, request: Request) -> Response:
        """Every loaded one."""
        models = self._models.models
        return json_response(
            ModelListing([await running(model, self._headers) for model in models if model.loaded])
        )

    async def show(self, request: Request) -> Response:
        """One model's file."""
        wire, ignored = await self._body.read(request, self._config.max_body_bytes)
        model = find(self._models, wire.model or wire.name)
        body = await shown(model, self._headers, verbose=bool(wire.verbose))
        return with_ignored(json_response(body), ignored)

    async def pull(self, request: Request) -> Response:
        """Some clients pull whatever they use: a served model is there already."""
        wire, ignored = await self._body.read(request, self._config.max_body_bytes)
        try:
            find(self._models, wire.model or wire.name)
        except ModelNotFound as error:
            raise UnsupportedField(
                f"{error}; models are not pulled here but listed in models.toml",
                loc=("body", "model"),
            ) from None
        done = Status("success")
        if wire.stream is False:
            return with_ignored(json_response(done), ignored)
        return with_ignored(Response(encoded(done), media_type=MEDIA_TYPE), ignored)

    async def refuse(self, request: Request) -> Response:
        """Models are files and settings here."""
        raise NotManaged(
            f"{request.url.path} is not served: models are added and removed in models.toml"
        )


async def listed(model: ServedModel, headers: Headers) -> ListedModel:
    """One line of the list."""
    facts = await facts_of(model, headers)
    return ListedModel(
        name=tagged(model.name),
        model=tagged(model.name),
        modified_at=timestamp(facts.modified),
        size=facts.size,
        digest=facts.digest,
        details=details_of(model, facts),
    )


async def running(model: ServedModel, headers: Headers) -> RunningModel:
    """One that is loaded: memory, and until when it stays if nobody asks for it."""
    info = model.info  # It may be unloaded while its file is read.
    facts = await facts_of(model, headers)
    size = info.file_bytes + info.kv_bytes
    idle = 0.0 if model.users else max(0.0, time.monotonic() - model.last_used)
    forever = math.isinf(model.keep_alive)
    stays = FOREVER if forever else timedelta(seconds=max(0.0, model.keep_alive - idle))
    return RunningModel(
        name=tagged(model.name),
        model=tagged(model.name),
        size=size,
        digest=facts.digest,
        details=details_of(model, facts),
        expires_at=timestamp(datetime.now(UTC) + stays),
        size_vram=0 if info.device.startswith("CPU") else size,
        context_length=info.context,
    )


async def shown(model: ServedModel, headers: Headers, *, verbose: bool) -> ShownModel:
    """Everything."""
    facts = await facts_of(model, headers)
    body = ShownModel(
        modelfile=f"FROM {model.path.name}\n",
        parameters=f"num_ctx {model.info.context}" if model.loaded else "",
        template=model.config.chat_template or template_of(facts),
        details=details_of(model, facts),
        model_info=model_info(model, facts, verbose=verbose),
        capabilities=await capabilities_of(model, facts),
        modified_at=timestamp(facts.modified),
    )
    if facts.header is not None and "general.license" in facts.header.metadata:
        body.license = str(facts.header.metadata["general.license"])
    return body
