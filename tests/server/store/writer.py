"""A process that stores documents and says which ones it was told are stored; it is killed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from server.store import Document, open_store

AT_ONCE = 16


async def main(path: Path, count: int) -> None:
    store = open_store(path, 64)
    numbers = iter(range(count))

    async def write() -> None:
        for number in numbers:
            body = b'"%d %s"' % (number, b"x" * 500)
            await store.put(
                Document(kind="k", id=str(number), created=number, model="m", body=body)
            )
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(write())
    store.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
