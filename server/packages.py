"""Model files that came with an installed Python package."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path


class GGUFNotFound(Exception):
    """The package is not installed, or does not say which file is meant."""


def find_gguf(package: str, file: str | None = None) -> Path:
    """The GGUF in an installed package, which is never imported.

    `package` is the name on the package index or the import name; `file` chooses among several.
    """
    found = sorted(gguf_files(package))
    if file is not None:
        found = [path for path in found if path.name == file]
    if len(found) == 1:
        return found[0]
    if not found:
        raise GGUFNotFound(f"the package {package} has no {file or 'GGUF file'} in it")
    names = ", ".join(path.name for path in found)
    raise GGUFNotFound(f"the package {package} has several GGUF files, choose a file: {names}")


def gguf_files(package: str) -> Iterable[Path]:
    # Locating the module is ten times faster than importing importlib.metadata.
    try:
        spec = importlib.util.find_spec(package.replace("-", "_").partition(".")[0])
    except ValueError:
        spec = None
    if spec is not None and spec.submodule_search_locations:
        roots = [Path(root) for root in spec.submodule_search_locations]
        return [path for root in roots for path in root.rglob("*.gguf")]
    return distribution_files(package)


def distribution_files(package: str) -> Iterable[Path]:
    from importlib import metadata

    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        raise GGUFNotFound(f"the package {package} is not installed") from None
    return [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
