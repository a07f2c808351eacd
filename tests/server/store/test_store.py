"""Documents in, documents out; and what happens when the file is not what it should be."""

from __future__ import annotations

import asyncio
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server.errors import InvalidRequest, StoreUnavailable, UnsupportedField
from server.store import Document, Query, Store, open_store
from server.store.database import SCHEMA_VERSION

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "store.sqlite3"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[Store]:
    opened = open_store(path, 1)
    yield opened
    opened.close()


def document(id: str, *, created: int = 1, model: str = "m", kind: str = "k", **notes: str):
    body = f'{{"id": "{id}"}}'.encode()
    return Document(
        kind=kind, id=id, created=created, model=model, body=body, input=b'["in"]', metadata=notes
    )


async def ids(store: Store, **query: object) -> list[str]:
    page = await store.find(Query(kind="k", **query))  # type: ignore[arg-type]
    return [each.id for each in page.documents]


async def test_nothing_is_on_the_disk_until_something_is_stored(store, path):
    await store.check()
    assert await store.get("k", "a") is None
    assert await ids(store) == []
    assert not await store.delete("k", "a")
    assert await store.set_metadata("k", "a", {}) is None
    assert not path.parent.exists()
    await store.put(document("a"))
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_document_comes_back_as_it_was(store):
    stored = document("a", created=5, model="größe", note="\U0001f600", other="")
    await store.put(stored)
    assert await store.get("k", "a") == stored
    assert await store.get("other kind", "a") is None


async def test_it_is_there_for_the_next_process(store, path):
    await store.put(document("a", note="x"))
    store.close()
    again = open_store(path, 1)
    assert await again.get("k", "a") == document("a", note="x")
    again.close()


async def test_a_second_document_of_the_same_id_replaces_the_first(store):
    await store.put(document("a", old="1", both="1"))
    await store.put(document("a", model="n", both="2"))
    assert await store.get("k", "a") == document("a", model="n", both="2")
    assert await ids(store, metadata={"old": "1"}) == []
    assert await ids(store, metadata={"both": "2"}) == ["a"]


async def test_lists_are_in_the_order_of_creation(store):
    for id, created in (("late", 3), ("early", 1), ("middle", 2), ("middle too", 2)):
        await store.put(document(id, created=created))
    assert await ids(store) == ["early", "middle", "middle too", "late"]
    assert await ids(store, order="desc") == ["late", "middle too", "middle", "early"]
    page = await store.find(Query(kind="k", limit=1))
    assert page.documents[0].input == b"[]", "lists leave the inputs out"


async def test_pages_meet_without_gap_or_overlap(store):
    for number in range(7):
        await store.put(document(str(number), created=number // 3))
    for order in ("asc", "desc"):
        seen: list[str] = []
        more, after = True, None
        while more:
            page = await store.find(Query(kind="k", after=after, limit=3, order=order))
            seen += [each.id for each in page.documents]
            more, after = page.has_more, seen[-1]
        assert seen == sorted("0123456", reverse=order == "desc")


async def test_a_page_after_nothing_is_refused_and_hurts_nobody_else(store):
    await store.put(document("a"))
    bad = store.find(Query(kind="k", after="ghost"))
    results = await asyncio.gather(bad, store.put(document("b")), return_exceptions=True)
    assert isinstance(results[0], InvalidRequest)
    assert results[0].loc == ("query", "after")
    assert await ids(store) == ["a", "b"]


async def test_filters(store):
    await store.put(document("a", colour="red", size="l"))
    await store.put(document("b", colour="red", size="s", model="n"))
    await store.put(document("c", colour="blue"))
    await store.put(document("d", kind="other", colour="red"))
    assert await ids(store, metadata={"colour": "red"}) == ["a", "b"]
    assert await ids(store, metadata={"colour": "red", "size": "s"}) == ["b"]
    assert await ids(store, model="m", metadata={"colour": "red"}) == ["a"]
    assert await ids(store, metadata={"colour": "green"}) == []


async def test_metadata_can_be_replaced(store):
    await store.put(document("a", old="1"))
    assert await store.set_metadata("k", "a", {"new": "2"}) == document("a", new="2")
    assert await ids(store, metadata={"old": "1"}) == []
    assert await ids(store, metadata={"new": "2"}) == ["a"]


async def test_delete(store, path):
    await store.put(document("a", note="x"))
    assert any(b'"id": "a"' in file.read_bytes() for file in path.parent.iterdir())
    assert await store.delete("k", "a")
    assert not await store.delete("k", "a")
    assert await ids(store, metadata={"note": "x"}) == []
    for file in path.parent.iterdir():
        assert b'"id": "a"' not in file.read_bytes(), "what is deleted is gone from the disk too"


async def test_the_oldest_make_room(path):
    store = Store(path, max_bytes=1000)
    for number in range(20):
        body = b'"' + b"x" * 300 + b'"'
        await store.put(Document(kind="k", id=str(number), created=1, model="m", body=body))
    assert await ids(store) == ["17", "18", "19"]
    await store.delete("k", "18")
    await store.put(Document(kind="k", id="new", created=1, model="m", body=b"1"))
    assert await ids(store) == ["17", "19", "new"], "deleting made room"
    with pytest.raises(StoreUnavailable, match="1002 bytes, the store takes 1000"):
        huge = Document(kind="k", id="big", created=1, model="m", body=b"1" * 1000)
        await store.put(huge)
    store.close()


async def test_a_store_of_no_size_stores_nothing(path):
    store = open_store(path, 0)
    with pytest.raises(UnsupportedField):
        await store.check()
    assert not path.exists()


async def test_the_event_loop_never_waits_for_the_file(store):
    await store.put(document("a"))
    went_on = threading.Event()
    blocked = store._do(lambda database: went_on.wait(10), False)
    task = asyncio.create_task(blocked)
    await asyncio.sleep(0)
    went_on.set()
    assert await task


async def test_what_a_client_no_longer_waits_for_is_not_begun(store):
    begun, release = threading.Event(), threading.Event()

    def occupy(database: object) -> None:
        begun.set()
        release.wait(10)

    first = asyncio.create_task(store._do(occupy, None, create=True))
    assert await asyncio.to_thread(begun.wait, 10)
    second = asyncio.create_task(store.put(document("a")))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    release.set()
    await first
    assert await ids(store) == []


@pytest.mark.parametrize("where", ["header", "pages"])
async def test_a_broken_file_is_an_error_and_no_end(where, path):
    store = open_store(path, 1)
    await store.put(document("a", note="x" * 500))
    store.close()
    data = bytearray(path.read_bytes())
    start = 0 if where == "header" else 4096
    data[start : start + 12_000] = b"\xa5" * 12_000
    path.write_bytes(data)
    for attempt in (store.check(), store.put(document("b")), store.get("k", "a")):
        if where == "pages" and attempt.__name__ == "check":
            attempt.close()
            continue
        with pytest.raises(StoreUnavailable, match=r"store\.sqlite3 cannot be used"):
            await attempt
    path.unlink()
    await store.put(document("c"))
    assert await ids(store) == ["c"], "a new file is made once the broken one is out of the way"
    store.close()


async def test_files_of_others_are_left_alone(path):
    path.parent.mkdir()
    with sqlite3.connect(path) as foreign:
        foreign.execute("CREATE TABLE theirs (x)")
    foreign.close()
    store = open_store(path, 1)
    with pytest.raises(StoreUnavailable, match="another program"):
        await store.put(document("a"))
    store.close()


async def test_a_newer_format_is_refused(store, path):
    await store.put(document("a"))
    store.close()
    newer = sqlite3.connect(path)
    newer.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    newer.close()
    with pytest.raises(StoreUnavailable, match=f"version {SCHEMA_VERSION + 1}"):
        await store.get("k", "a")


async def test_a_file_that_was_removed_under_way_is_made_anew(store, path):
    await store.put(document("a"))
    path.unlink()
    await store.put(document("b"))
    store.close()
    again = open_store(path, 1)
    assert await ids(again) == ["b"]
    again.close()


async def test_two_servers_may_share_a_file(store, path):
    other = open_store(path, 1)
    writers = {"a": store, "b": other}
    puts = [each.put(document(f"{name}{i}")) for i in range(20) for name, each in writers.items()]
    await asyncio.gather(*puts)
    assert sorted(await ids(store, limit=100)) == sorted(await ids(other, limit=100))
    assert len(await ids(store, limit=100)) == 40
    other.close()


async def test_servers_that_create_the_file_at_once_wait_for_each_other(tmp_path):
    """SQLite gives up at once where two turn on the log of a new file: one in ten of these."""
    for round in range(100):
        path = tmp_path / str(round) / "store.sqlite3"
        stores = [open_store(path, 1) for _ in range(3)]
        puts = [each.put(document(str(i))) for i, each in enumerate(stores)]
        await asyncio.gather(*puts)
        assert sorted(await ids(stores[0])) == ["0", "1", "2"]
        for each in stores:
            each.close()


def start_writer(path: Path, count: int, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.server.store.writer", str(path), str(count)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload,no-any-return]


ENDLESS = 50_000
"""Documents: minutes of writing."""


@pytest.mark.parametrize("kill_after", [1, 250, 700])
async def test_kill_9_loses_nothing_that_was_acknowledged(path, kill_after):
    with start_writer(path, ENDLESS) as writer:
        assert writer.stdout is not None
        acknowledged = [writer.stdout.readline() for _ in range(kill_after)]
        writer.send_signal(signal.SIGKILL)
        acknowledged += writer.stdout.readlines()
        assert writer.wait() == -signal.SIGKILL
    promised = {line.strip() for line in acknowledged if line.endswith("\n")}
    assert kill_after <= len(promised) < ENDLESS
    store = open_store(path, 64)
    found = set(await ids(store, limit=ENDLESS))
    assert promised <= found
    await store.put(document("after"))
    assert await store.get("k", "after")
    store.close()


async def test_a_full_disk_is_an_error_and_what_was_stored_stays(path):
    """The limit on the size of a file stands in for the disk's."""
    limit = 400_000

    def set_limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    options = {"preexec_fn": set_limit, "stderr": subprocess.PIPE}
    with start_writer(path, 5000, **options) as writer:
        out, err = writer.communicate(timeout=60)
    assert writer.returncode == 1
    assert "StoreUnavailable" in err
    store = open_store(path, 64)
    found = set(await ids(store, limit=5000))
    assert set(out.split()) <= found
    await store.put(document("room again"))
    store.close()
