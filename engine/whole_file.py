"""Files of the caches: under its name a file is whole, or it is not there."""

from __future__ import annotations

import tempfile
from pathlib import Path


def write_whole(path: Path, *parts: bytes | memoryview) -> None:
    """Written beside, as `*.tmp`, and renamed: readers see the old or the new file. Raises OSError,
    and leaves nothing behind then."""
    file = tempfile.NamedTemporaryFile(  # noqa: SIM115 - it is closed before it is renamed
        dir=path.parent, suffix=".tmp", delete=False
    )
    unfinished = Path(file.name)
    try:
        with file:
            for part in parts:
                file.write(part)
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
