"""Model files from the Hugging Face hub, through huggingface_hub and its cache.

What is in the cache is taken without asking the network. HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE and
HF_TOKEN mean what they mean to that library; a token is taken from the environment only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from msgspec import Struct

from engine.errors import ModelFileNotFound, ModelLoadError
from engine.gguf_check import SHARD
from engine.memory import gigabytes

HUB_PREFIX = "hf:"
REPO = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
PREFERRED = ("Q4_K_M", "Q4_0", "Q8_0")
"""Taken in this order where no quantization is named and there are several."""

Report = Callable[[str, float], None]


class HubSource(Struct, frozen=True):
    """A file of a repository: the one of a quantization, or of a name."""

    repo: str
    quantization: str | None = None
    file: str | None = None

    @classmethod
    def parse(cls, text: str, file: str | None = None) -> HubSource:
        """`user/repo` or `user/repo:Q4_K_M`; raises ValueError with what is wrong."""
        repo, _, quantization = text.partition(":")
        if not REPO.fullmatch(repo):
            raise ValueError(f"{text!r} is not allowed, expected user/repo or user/repo:QUANT")
        return cls(repo, quantization or None, file)

    def __str__(self) -> str:
        wanted = self.file or self.quantization
        return f"{self.repo}:{wanted}" if wanted else self.repo


def fetch(source: HubSource, report: Report) -> Path:
    """The file, downloaded if need be; of a model in parts the first. Blocks.

    Raises ModelFileNotFound, or ModelLoadError where the hub cannot be reached.
    """
    cached = find_cached(source)
    return cached if cached is not None else download(source, report)


def find_cached(source: HubSource) -> Path | None:
    """The newest complete copy in the cache."""
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        return None
    for repo in repos:
        if (repo.repo_id, repo.repo_type) != (source.repo, "model"):
            continue
        for revision in sorted(repo.revisions, key=lambda each: -each.last_modified):
            root = Path(revision.snapshot_path)
            paths = {
                Path(each.file_path).relative_to(root).as_posix(): each for each in revision.files
            }
            if path := _complete(source, paths, root):
                return path
    return None


def _complete(source: HubSource, names: Mapping[str, Any], root: Path) -> Path | None:
    try:
        first = choose(source, names)
    except ModelFileNotFound:
        return None
    return root / first if names.keys() >= set(parts_of(first)) else None


def download(source: HubSource, report: Report) -> Path:
    """From the hub into the cache; a download that was cut short goes on where it ended."""
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
    )

    # httpx's, or httpx2's, or that of requests: which one depends on the library's version.
    http_error: type[Exception] = HfHubHTTPError.__bases__[0]
    token = os.environ.get("HF_TOKEN") or False
    report(f"asking the hub for {source}", 0.0)
    try:
        first = choose(source, HfApi(token=token).list_repo_files(source.repo))
        paths = [
            hf_hub_download(source.repo, part, token=token, tqdm_class=progress_bar(report))
            for part in parts_of(first)
        ]
    except GatedRepoError as error:
        raise ModelFileNotFound(
            f"{source.repo} is gated: accept its terms on the hub, and set HF_TOKEN"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelFileNotFound(
            f"the hub has no repository {source.repo}, or it is private and HF_TOKEN is not set"
        ) from error
    except (http_error, HFValidationError, OSError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ModelLoadError(f"{source} cannot be downloaded: {reason}") from error
    return Path(paths[0])


def choose(source: HubSource, names: Iterable[str]) -> str:
    """The file that is meant, of a model in parts the first; raises ModelFileNotFound."""
    models = sorted(name for name in names if is_model(name))
    if source.file is not None:
        found = [name for name in models if source.file in (name, PurePosixPath(name).name)]
    elif source.quantization is not None:
        found = of_quantization(models, source.quantization)
    else:
        found = models if len(models) == 1 else preferred(models)
    if len(found) == 1:
        return found[0]
    there = ", ".join(models) or "no GGUF file at all"
    if not found and not (source.file or source.quantization) and models:
        raise ModelFileNotFound(f"{source.repo} has several files, name one of: {there}")
    what = "several files" if found else "no file"
    raise ModelFileNotFound(f"{source.repo} has {what} for {source}; there is: {there}")


def is_model(name: str) -> bool:
    """A GGUF that is not an image encoder, and not a later part of a model."""
    path = PurePosixPath(name)
    if path.suffix != ".gguf" or path.name.startswith("mmproj"):
        return False
    part = SHARD.match(path.name)
    return part is None or int(part["index"]) == 1


def of_quantization(models: Sequence[str], quantization: str) -> list[str]:
    """`Q4_K` is not in `Q4_K_M`, nor `Q4_0` in `IQ4_0`."""
    word = re.compile(rf"(?<![a-z0-9]){re.escape(quantization)}(?![a-z0-9_])", re.IGNORECASE)
    return [name for name in models if word.search(PurePosixPath(name).stem)]


def preferred(models: Sequence[str]) -> list[str]:
    by_preference = (of_quantization(models, quantization) for quantization in PREFERRED)
    return next((found for found in by_preference if len(found) == 1), [])


def parts_of(first: str) -> list[str]:
    """All files of a model whose first is `first`."""
    path = PurePosixPath(first)
    part = SHARD.match(path.name)
    if part is None:
        return [first]
    count = int(part["count"])
    names = (f"{part['stem']}-{i:05d}-of-{count:05d}.gguf" for i in range(1, count + 1))
    return [str(path.with_name(name)) for name in names]


def progress_bar(report: Report) -> type[Any]:
    """What huggingface_hub tells its progress bar, told to `report`; nothing is drawn."""
    from tqdm.auto import tqdm

    class Progress(tqdm):  # type: ignore[misc]
        """One file."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **(kwargs | {"disable": True}))
            self._done = kwargs.get("initial") or 0
            self._whole = kwargs.get("total") or 0

        def update(self, n: float | None = 1) -> bool | None:
            """`n` more bytes are here."""
            self._done += n or 0
            fraction = min(1.0, self._done / self._whole) if self._whole else 0.0
            # Where there is no bar, a step is a line: one every tenth.
            tenths = int(fraction * 10) * 10
            report(f"downloading {gigabytes(self._whole)}: {tenths} %", fraction)
            return None

    return Progress
