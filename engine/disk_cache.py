"""Prefixes on disk, across restarts. One thread reads and writes; the engine's keeps the index.

Nothing on disk is trusted: a file whose hashes do not hold is deleted, never restored.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from msgspec import Struct

from engine.errors import ModelLoadError
from engine.prefix_file import SUFFIX, DamagedFile, Header, digest, read, read_header, write
from engine.prefix_index import Held, PrefixIndex

log = logging.getLogger("ingle.cache")

QUEUE_BYTES = 256 << 20
"""Most that waits to be written; while the disk is slower than that, evicted prefixes are lost."""
_STALE_SECONDS = 600
"""Age from which an unfinished file is nobody's any more."""


class DiskEntry(Struct, eq=False):
    """A prefix in a file."""

    path: Path
    header: Header

    @property
    def held(self) -> Held:
        """What it gives."""
        return Held(self.header.tokens, self.header.lora, self.header.n_prompt)


class Fetch(Struct, eq=False):
    """A file that is being read."""

    entry: DiskEntry
    pending: bool = True
    data: bytearray | None = None
    """None once it is not pending: it was damaged or is gone."""
    seconds: float = 0.0


class DiskCache:
    """Every method belongs to the engine's thread."""

    def __init__(
        self,
        directory: Path,
        *,
        fingerprint: str,
        budget: int,
        most_tokens: int,
        least_tokens: int = 128,
    ) -> None:
        """`budget` bytes for the whole directory, whichever models it serves. Prefixes of fewer
        than `least_tokens` are not worth a file, those of more than `most_tokens` fit no slot.
        Raises ModelLoadError where the directory cannot be written."""
        self._root = directory
        self._directory = directory / fingerprint
        self._fingerprint = fingerprint
        self._budget = budget
        self._most_tokens = most_tokens
        self._least_tokens = least_tokens
        self._index: PrefixIndex[DiskEntry] = PrefixIndex()
        self._entries: dict[Path, DiskEntry] = {}
        self._fetches: dict[Path, Fetch] = {}
        self._fetched: list[DiskEntry] = []
        self._queued = 0
        self._full = False
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._results: deque[Callable[[], None]] = deque()
        """What the other thread has to tell the index."""
        self._news = threading.Event()
        try:
            # One by one: the mode is of the last directory of a path alone.
            self._root.mkdir(0o700, parents=True, exist_ok=True)
            self._directory.mkdir(0o700, exist_ok=True)
            self._scan()
        except OSError as error:
            raise ModelLoadError(f"prefix_cache_dir: {error}") from error
        self._thread = threading.Thread(target=self._work, name="prefix-disk", daemon=True)
        self._thread.start()

    # The engine's thread

    def candidates(self, wanted: Held) -> list[DiskEntry]:
        """Files with which `wanted` may begin."""
        return self._index.candidates(wanted)

    def has(self, held: Held) -> bool:
        """Whether there is a file of exactly this."""
        return self._index.has(held)

    @property
    def n_files(self) -> int:
        """Files of this model."""
        return len(self._entries)

    @property
    def fetching(self) -> bool:
        """Whether a file is being read."""
        return bool(self._fetches)

    def fetch(self, entry: DiskEntry) -> Fetch:
        """Begin to read; what comes of it `poll` returns."""
        fetch = self._fetches.get(entry.path)
        if fetch is None:
            fetch = self._fetches[entry.path] = Fetch(entry)
            self._jobs.put(partial(self._read, fetch))
        return fetch

    def store(self, held: Held, data: memoryview, *, at_exit: bool = False, age: int = 0) -> None:
        """Have it written, unless too much waits already. `age` in seconds ranks what is written
        at once; `at_exit` nothing more is computed, so that waiting costs nothing."""
        if self._full or not self._least_tokens <= len(held.tokens) <= self._most_tokens:
            return
        if self.has(held) or (self._queued + data.nbytes > QUEUE_BYTES and not at_exit):
            return
        self._queued += data.nbytes
        self._jobs.put(partial(self._write, held, data, time.time() - age))

    def poll(self) -> list[Fetch]:
        """Take in what the other thread has done; returns the files that were read."""
        done: list[Fetch] = []
        self._news.clear()
        while self._results:
            self._results.popleft()()
        for path, fetch in list(self._fetches.items()):
            if not fetch.pending:
                done.append(self._fetches.pop(path))
        self._fetched += [fetch.entry for fetch in done if fetch.data is not None]
        return done

    def wait(self, timeout: float) -> None:
        """Until there is something to poll, at most `timeout` seconds."""
        self._news.wait(timeout)

    def distrust(self) -> None:
        """A step failed: delete whatever was restored from here, in case that was the reason."""
        for entry in self._fetched:
            self._forget(entry.path)
            self._jobs.put(partial(entry.path.unlink, missing_ok=True))
        self._fetched.clear()

    def close(self, timeout: float) -> None:
        """Write what waits, at most `timeout` seconds."""
        self._jobs.put(None)
        self._thread.join(timeout)
        if self._thread.is_alive():
            log.warning("the prefix cache was not written to the end: the disk is too slow")

    def _add(self, entry: DiskEntry) -> None:
        if entry.path not in self._entries:
            self._entries[entry.path] = entry
            self._index.insert(entry.held, entry)

    def _forget(self, path: Path) -> None:
        """Of the index; the file may be there still."""
        entry = self._entries.pop(path, None)
        if entry is not None:
            self._index.remove(entry.held)

    def _scan(self) -> None:
        """Index what an earlier run left; delete what is damaged."""
        for path, stat in _present(self._directory.glob("*.tmp")):
            if time.time() - stat.st_mtime > _STALE_SECONDS:
                path.unlink(missing_ok=True)
        for path in self._directory.glob(f"*{SUFFIX}"):
            try:
                entry = DiskEntry(path, read_header(path, self._fingerprint))
            except (DamagedFile, FileNotFoundError) as error:
                self._discard(path, error)
                continue
            if len(entry.header.tokens) <= self._most_tokens:
                self._add(entry)

    # The other thread; `_discard` also serves the scan before it starts.

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except OSError as error:
                self._stop_writing(error)
            except Exception:
                log.exception("a job of the prefix cache failed")
            self._news.set()

    def _read(self, fetch: Fetch) -> None:
        began = time.monotonic()
        path = fetch.entry.path
        try:
            fetch.data = read(path, fetch.entry.header)
            with suppress(OSError):  # Only its turn to go suffers.
                path.touch()
        except (DamagedFile, OSError) as error:
            self._results.append(partial(self._forget, path))
            self._discard(path, error)
        finally:
            # A request waits for as long as it is pending, whatever went wrong.
            fetch.seconds = time.monotonic() - began
            fetch.pending = False

    def _write(self, held: Held, data: memoryview, stamp: float) -> None:
        try:
            if self._full or not self._make_room(data.nbytes, stamp):
                return
            header = Header(
                fingerprint=self._fingerprint,
                tokens=held.tokens,
                lora=held.lora,
                n_prompt=held.n_prompt,
                size=data.nbytes,
                digest=digest(data),
            )
            path = write(self._directory, header, data)
            os.utime(path, (stamp, stamp))
            self._results.append(partial(self._add, DiskEntry(path, header)))
        finally:
            self._results.append(partial(self._written, data.nbytes))

    def _written(self, size: int) -> None:
        self._queued -= size

    def _make_room(self, size: int, stamp: float) -> bool:
        """Delete the least recently used files until `size` fits; False if it never would
        without deleting what was used after `stamp`."""
        found = _present(self._root.glob(f"*/*{SUFFIX}"))
        files = [(stat.st_mtime, stat.st_size, path) for path, stat in found]
        excess = sum(length for _, length, _ in files) + size - self._budget
        doomed = []
        for used, length, path in sorted(files):
            if excess <= 0 or used > stamp:
                break
            excess -= length
            doomed.append(path)
        if excess > 0:
            return False
        for path in doomed:
            path.unlink(missing_ok=True)
            self._results.append(partial(self._forget, path))
        return True

    def _discard(self, path: Path, reason: Exception) -> None:
        log.warning("dropped %s from the prefix cache: %s", path.name, reason)
        path.unlink(missing_ok=True)

    def _stop_writing(self, error: OSError) -> None:
        if not self._full:
            log.warning("the prefix cache is written to disk no more: %s", error)
        self._full = True


def _present(paths: Iterable[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    """Those that are still there: caches of other models delete files of this directory too."""
    for path in paths:
        with suppress(FileNotFoundError):
            yield path, path.stat()
