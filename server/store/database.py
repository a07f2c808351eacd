"""The SQLite file: schema, transactions and queries. Blocks; for one thread only."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from server.errors import InvalidRequest, StoreUnavailable
from server.store.documents import Document, Page, Query

log = logging.getLogger("ingle.store")

APPLICATION_ID = 0x496E676C
"""Marks the file as ours: "Ingl"."""
SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE documents (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    created INTEGER NOT NULL,
    model TEXT NOT NULL,
    metadata TEXT NOT NULL,
    body TEXT NOT NULL,
    input TEXT NOT NULL,
    size INTEGER NOT NULL,
    UNIQUE (kind, id)
);
CREATE INDEX by_time ON documents (kind, created, sequence);
CREATE INDEX by_model ON documents (kind, model, created, sequence);
CREATE TABLE notes (
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    sequence INTEGER NOT NULL REFERENCES documents ON DELETE CASCADE,
    PRIMARY KEY (key, value, sequence)
) WITHOUT ROWID;
CREATE INDEX by_document ON notes (sequence);
CREATE TABLE totals (bytes INTEGER NOT NULL);
INSERT INTO totals VALUES (0);
CREATE TRIGGER added AFTER INSERT ON documents
    BEGIN UPDATE totals SET bytes = bytes + new.size; END;
CREATE TRIGGER changed AFTER UPDATE OF size ON documents
    BEGIN UPDATE totals SET bytes = bytes + new.size - old.size; END;
CREATE TRIGGER removed AFTER DELETE ON documents
    BEGIN UPDATE totals SET bytes = bytes - old.size; END;
"""
PUT = """
INSERT INTO documents (kind, id, created, model, metadata, body, input, size)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (kind, id) DO UPDATE SET created = excluded.created, model = excluded.model,
    metadata = excluded.metadata, body = excluded.body, input = excluded.input,
    size = excluded.size
RETURNING sequence
"""
BUSY_SECONDS = 10.0
"""How long another process may hold the file before a write of ours fails."""
BUSY_PAUSE = 0.005
"""Seconds between two tries where SQLite itself does not wait."""

_encoder = msgspec.json.Encoder()
_metadata = msgspec.json.Decoder(dict[str, str])


class Database:
    """Opened by the first transaction that needs it, and again after a failure."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._deleted = False

    @contextmanager
    def transaction(self, *, write: bool, create: bool) -> Iterator[bool]:
        """All or nothing; what was written is on the disk when the block is left.

        Yields False where there is no file and `create` is not set. Raises StoreUnavailable.
        """
        try:
            if not self._open(create):
                yield False
                return
            self._db.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            yield True
            self._db.execute("COMMIT")
            if self._deleted:
                # Until then the log still has what is gone from the file; a reader in another
                # process can be in the way, and then the next transaction tries again.
                result = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                self._deleted = result[0] != 0
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise StoreUnavailable(
                f"the store {self._path} cannot be used: {error}",
                headers={"x-should-retry": "false"},
            ) from error
        except BaseException:
            if self._connection is not None:
                self._connection.execute("ROLLBACK")
            raise

    @property
    def _db(self) -> sqlite3.Connection:
        assert self._connection is not None
        return self._connection

    def _open(self, create: bool) -> bool:
        if self._connection is not None:
            if self._is_current():
                return True
            self.close()
        if not self._path.exists():
            if not create:
                return False
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # SQLite would make it readable by everybody.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        self._connect()
        return True

    def _is_current(self) -> bool:
        """Whether the path still leads to the file that is open: writes to a removed one are
        lost."""
        try:
            return self._path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def _connect(self) -> None:
        self._inode = self._path.stat().st_ino
        self._connection = sqlite3.connect(
            self._path, isolation_level=None, timeout=BUSY_SECONDS, cached_statements=32
        )
        self._use_log()
        # FULL: a commit returns once the log is on the disk, not only with the kernel.
        for pragma in ("synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.execute("BEGIN IMMEDIATE")
        self._check_schema()
        self._db.execute("COMMIT")

    def _use_log(self) -> None:
        """SQLite heeds no timeout here: of two that open a new file one would fail at once."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not is_busy or time.monotonic() > deadline:
                    raise
            time.sleep(BUSY_PAUSE)

    def _check_schema(self) -> None:
        tables = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not tables:
            for statement in _statements(SCHEMA):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            return
        if self._db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise sqlite3.DatabaseError("it is the database of another program")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version != SCHEMA_VERSION:
            raise sqlite3.DatabaseError(
                f"its format is version {version}, this server writes {SCHEMA_VERSION}"
            )

    def close(self) -> None:
        """Let go of the file; an open transaction is undone."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # Within a transaction

    def put(self, document: Document) -> None:
        """Add, or replace the one with the same kind and id; the oldest make room."""
        row = (
            *(document.kind, document.id, document.created, document.model),
            _encoder.encode(document.metadata).decode(),
            *(document.body.decode(), document.input.decode(), document.size),
        )
        (sequence,) = self._db.execute(PUT, row).fetchone()
        self._note(sequence, document.metadata)
        self._shrink(keep=sequence)

    def _note(self, sequence: int, metadata: dict[str, str]) -> None:
        self._db.execute("DELETE FROM notes WHERE sequence = ?", (sequence,))
        rows = [(key, value, sequence) for key, value in metadata.items()]
        self._db.executemany("INSERT INTO notes VALUES (?, ?, ?)", rows)

    def _shrink(self, keep: int) -> None:
        oldest = "(SELECT min(sequence) FROM documents WHERE sequence != ?)"
        while self._db.execute("SELECT bytes FROM totals").fetchone()[0] > self._max_bytes:
            query = f"DELETE FROM documents WHERE sequence = {oldest} RETURNING kind, id"
            for kind, id in self._db.execute(query, (keep,)).fetchall():
                log.info("the store is full: %s %s made room", kind, id)

    def get(self, kind: str, id: str) -> Document | None:
        """With its input."""
        query = (
            "SELECT kind, id, created, model, metadata, body, input FROM documents"
            " WHERE kind = ? AND id = ?"
        )
        row = self._db.execute(query, (kind, id)).fetchone()
        return _document(row) if row is not None else None

    def find(self, query: Query) -> Page:
        """One page of a list. Raises InvalidRequest if `after` is not there."""
        where = ["kind = ?"]
        values: list[str | int] = [query.kind]
        if query.model is not None:
            where.append("model = ?")
            values.append(query.model)
        for pair in query.metadata.items():
            where.append("sequence IN (SELECT sequence FROM notes WHERE key = ? AND value = ?)")
            values.extend(pair)
        order, beyond = ("DESC", "<") if query.order == "desc" else ("ASC", ">")
        if query.after is not None:
            where.append(f"(created, sequence) {beyond} (?, ?)")
            values.extend(self._place(query.kind, query.after))
        rows = self._db.execute(
            "SELECT kind, id, created, model, metadata, body, '[]' FROM documents"
            f" WHERE {' AND '.join(where)} ORDER BY created {order}, sequence {order} LIMIT ?",
            (*values, query.limit + 1),
        ).fetchall()
        return Page([_document(row) for row in rows[: query.limit]], len(rows) > query.limit)

    def _place(self, kind: str, id: str) -> tuple[int, int]:
        query = "SELECT created, sequence FROM documents WHERE kind = ? AND id = ?"
        place: tuple[int, int] | None = self._db.execute(query, (kind, id)).fetchone()
        if place is None:
            raise InvalidRequest(
                f"after: nothing with the id {id} is stored", loc=("query", "after")
            )
        return place

    def set_metadata(self, kind: str, id: str, metadata: dict[str, str]) -> Document | None:
        """Replace the notes; the document as it is then, None if there is none."""
        document = self.get(kind, id)
        if document is None:
            return None
        document = msgspec.structs.replace(document, metadata=metadata)
        self.put(document)
        return document

    def delete(self, kind: str, id: str) -> bool:
        """Whether it was there."""
        query = "DELETE FROM documents WHERE kind = ? AND id = ?"
        found = self._db.execute(query, (kind, id)).rowcount > 0
        self._deleted = self._deleted or found
        return found


def _document(row: tuple[str, str, int, str, str, str, str]) -> Document:
    kind, id, created, model, metadata, body, input = row
    return Document(
        kind=kind,
        id=id,
        created=created,
        model=model,
        metadata=_metadata.decode(metadata),
        body=body.encode(),
        input=input.encode(),
    )


def _statements(script: str) -> Iterator[str]:
    """One by one, as `executescript` would commit in between."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
