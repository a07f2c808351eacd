"""The asynchronous front of the store: one thread does the work, the event loop never waits."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct

from server.errors import InvalidRequest, StoreUnavailable, UnsupportedField
from server.store.database import Database
from server.store.documents import Document, Page, Query

MAX_GROUP = 64
"""Most operations that share one transaction, and so one wait for the disk."""

T = TypeVar("T")


class Job(Struct):
    """One operation; `absent` is its result where there is no file yet."""

    run: Callable[[Database], Any]
    absent: Any
    write: bool
    create: bool
    future: Future[Any]


class Store:
    """Documents by kind and id. Every method raises StoreUnavailable where the file is broken,
    full or another program's; the next call tries again. A method that has returned has its
    effect on the disk: neither kill −9 nor, as far as fsync goes, a power cut undoes it.

    The file is made by the first `put`. Beyond `max_bytes` the oldest documents are deleted.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        """With `max_bytes` 0 nothing is ever stored."""
        self._max_bytes = max_bytes
        self._database = Database(path, max_bytes)
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def check(self) -> None:
        """Raises what `put` would raise, as far as it can be known: call before computing an
        answer that is to be stored. UnsupportedField where nothing is stored here at all."""
        if not self._max_bytes:
            raise UnsupportedField("this server stores nothing", loc=("body", "store"))
        await self._do(lambda database: None, None)

    async def put(self, document: Document) -> None:
        """Add a document, or replace the one with its kind and id."""
        if document.size > self._max_bytes:
            raise StoreUnavailable(
                f"{document.id} has {document.size} bytes, the store takes {self._max_bytes}",
                headers={"x-should-retry": "false"},
            )
        await self._do(lambda database: database.put(document), None, write=True, create=True)

    async def get(self, kind: str, id: str) -> Document | None:
        """None if there is none."""
        return await self._do(lambda database: database.get(kind, id), None)

    async def find(self, query: Query) -> Page:
        """One page of a list. Raises InvalidRequest if the document `after` is not there."""
        return await self._do(lambda database: database.find(query), Page([], False))

    async def set_metadata(self, kind: str, id: str, metadata: dict[str, str]) -> Document | None:
        """Replace a document's notes; returns it as it is then, None if there is none."""
        return await self._do(
            lambda database: database.set_metadata(kind, id, metadata), None, write=True
        )

    async def delete(self, kind: str, id: str) -> bool:
        """Whether it was there."""
        return await self._do(lambda database: database.delete(kind, id), False, write=True)

    def close(self) -> None:
        """Finish what was asked for and let go of the file."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None

    async def _do(
        self, run: Callable[[Database], T], absent: T, *, write: bool = False, create: bool = False
    ) -> T:
        future: Future[T] = Future()
        self._jobs.put(Job(run, absent, write, create, future))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="store", daemon=True)
            self._thread.start()
        return await asyncio.wrap_future(future)

    def _work(self) -> None:
        ended = False
        while not ended:
            group = [self._jobs.get()]
            while len(group) < MAX_GROUP and not self._jobs.empty():
                group.append(self._jobs.get())
            ended = None in group
            self._run_group(
                [job for job in group if job and job.future.set_running_or_notify_cancel()]
            )
        self._database.close()

    def _run_group(self, jobs: list[Job]) -> None:
        write, create = any(job.write for job in jobs), any(job.create for job in jobs)
        try:
            with self._database.transaction(write=write, create=create) as exists:
                outcomes = [_outcome(job, self._database, exists) for job in jobs]
        except Exception as error:  # noqa: BLE001, it is raised where the results are awaited
            outcomes = [error] * len(jobs)
        _resolve(zip(jobs, outcomes, strict=True))


def open_store(path: Path | None, mebibytes: int) -> Store:
    """The store at `path`, or in the user's data directory. Touches no file yet."""
    if path is None:
        import platformdirs

        directory = Path(platformdirs.user_data_dir("ingle", appauthor=False))
        path = directory / "store.sqlite3"
    return Store(path, mebibytes << 20)


def _outcome(job: Job, database: Database, exists: bool) -> Any:
    """A query that names what is not there fails alone; it has changed nothing."""
    try:
        return job.run(database) if exists else job.absent
    except InvalidRequest as error:
        return error


def _resolve(outcomes: Iterable[tuple[Job, Any]]) -> None:
    for job, outcome in outcomes:
        if isinstance(outcome, Exception):
            job.future.set_exception(outcome)
        else:
            job.future.set_result(outcome)
