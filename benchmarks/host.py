"""What the host of a virtual machine withholds while something is measured."""

from __future__ import annotations

from pathlib import Path


class Stolen:
    """From the moment it is made: of the processors' time, what others were given."""

    def __init__(self) -> None:
        self._stolen, self._all = _ticks()

    def share(self) -> float:
        """0 to 1, so far. Figures beside more than a few hundredths tell of the host."""
        stolen, everything = _ticks()
        return (stolen - self._stolen) / max(1, everything - self._all)


def _ticks() -> tuple[int, int]:
    """(stolen, all) since the start of the machine; Linux only."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    ticks = [int(each) for each in fields[1:9]]
    return ticks[7], sum(ticks)
