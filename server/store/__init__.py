"""Documents that outlive the process, such as stored completions, in one SQLite file."""

from server.store.documents import Document, Page, Query
from server.store.store import Store, open_store

__all__ = ["Document", "Page", "Query", "Store", "open_store"]
