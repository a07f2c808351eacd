"""Drives an ASGI application without a socket, with a client that can hang up at any moment."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Message


class Exchange:
    """One request and its answer, as far as it has come."""

    def __init__(self, app: ASGIApp, scope: dict[str, Any], body: bytes, more_body: bool) -> None:
        self._incoming: asyncio.Queue[Message] = asyncio.Queue()
        self._incoming.put_nowait({"type": "http.request", "body": body, "more_body": more_body})
        self._changed = asyncio.Event()
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.chunks: list[bytes] = []
        self.task = asyncio.create_task(self._run(app, scope))

    async def _run(self, app: ASGIApp, scope: dict[str, Any]) -> None:
        await app(scope, self._incoming.get, self._send)

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {k.decode(): v.decode("latin-1") for k, v in message["headers"]}
        elif message.get("body"):
            self.chunks.append(message["body"])
        self._changed.set()

    async def until(self, text: bytes) -> None:
        """Waits until the body contains `text`."""
        while text not in self.body:
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), 10)

    async def hang_up(self) -> None:
        """The client closes the connection."""
        self._incoming.put_nowait({"type": "http.disconnect"})
        await self.finish()

    async def finish(self) -> Exchange:
        """Waits for the application to return."""
        await asyncio.wait_for(self.task, 10)
        return self

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    def json(self) -> Any:
        return json.loads(self.body)

    def events(self) -> list[Any]:
        """The data of each server-sent event; comments are left out."""
        blocks = [b for b in self.body.decode().split("\n\n") if b.startswith("data: ")]
        texts = [block.removeprefix("data: ") for block in blocks]
        return [text if text == "[DONE]" else json.loads(text) for text in texts]


class Client:
    """Requests to one application."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def begin(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        host: str = "127.0.0.1",
        more_body: bool = False,
    ) -> Exchange:
        """Starts a request; bytes are sent as they are, all else as JSON."""
        path, _, query = path.partition("?")
        raw = (
            body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        )
        merged = {"content-type": "application/json", "content-length": str(len(raw))}
        merged["host"] = "127.0.0.1:8080"
        merged |= dict(headers or {})
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in merged.items()],
            "client": (host, 50000),
            "server": ("127.0.0.1", 8080),
        }
        return Exchange(self.app, scope, raw, more_body)

    async def request(self, method: str, path: str, body: Any = None, **kwargs: Any) -> Exchange:
        """The whole exchange."""
        return await self.begin(method, path, body, **kwargs).finish()

    async def get(self, path: str, **kwargs: Any) -> Exchange:
        return await self.request("GET", path, **kwargs)

    async def post(self, path: str, body: Any, **kwargs: Any) -> Exchange:
        return await self.request("POST", path, body, **kwargs)

    async def chat(self, **fields: Any) -> Exchange:
        """One chat completion; a greeting unless messages are given."""
        return await self.post("/v1/chat/completions", chat_body(**fields))


def chat_body(**fields: Any) -> dict[str, Any]:
    return {"model": "fake-model", "messages": [{"role": "user", "content": "Hi"}], **fields}
