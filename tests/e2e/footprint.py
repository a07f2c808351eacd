"""What a server's processes hold and have used, as Linux counts it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Self

from msgspec import Struct


class Footprint(Struct, frozen=True):
    """Of a process and all its children."""

    mib: float
    """Resident."""
    threads: int
    files: int
    cpu: float
    """Seconds of processor time since the start."""

    @classmethod
    def of(cls, pid: int) -> Self:
        """As it is now."""
        process = Path(f"/proc/{pid}")
        fields = (process / "stat").read_text().rsplit(")", 1)[1].split()
        found = cls(
            mib=int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 2**20,
            threads=int(fields[17]),
            files=len(list((process / "fd").iterdir())),
            cpu=(int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
        )
        for child in (process / f"task/{pid}/children").read_text().split():
            with suppress(FileNotFoundError):
                found += cls.of(int(child))
        return found

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.mib + other.mib,
            self.threads + other.threads,
            self.files + other.files,
            self.cpu + other.cpu,
        )
