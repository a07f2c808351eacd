"""What the store keeps, and what it can be asked."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Order = Literal["asc", "desc"]


class Document(Struct, frozen=True, kw_only=True):
    """One stored answer. `kind` names the API that wrote it; ids are unique within a kind."""

    kind: str
    id: str
    created: int
    """Seconds since 1970."""
    model: str
    body: bytes
    """JSON; the store never looks inside."""
    input: bytes = b"[]"
    """JSON: what it answers, such as the messages; left out of lists."""
    metadata: dict[str, str] = {}
    """The client's notes, which lists can be filtered by."""

    @property
    def size(self) -> int:
        """Bytes that count against the store's limit."""
        notes = sum(len(key) + len(value) for key, value in self.metadata.items())
        return len(self.body) + len(self.input) + notes


class Query(Struct, frozen=True, kw_only=True):
    """Which documents of one kind to list, in the order of their creation."""

    kind: str
    model: str | None = None
    metadata: dict[str, str] = {}
    """A document matches if it has every one of these pairs."""
    after: str | None = None
    """The id that the page before ended with."""
    limit: int = 20
    order: Order = "asc"


class Page(Struct, frozen=True):
    """Part of a list, without the documents' inputs."""

    documents: list[Document]
    has_more: bool
