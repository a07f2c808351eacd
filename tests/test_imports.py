"""The law of imports: `server` → `engine`, `grammars`; neither of these imports another."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("server", "engine", "grammars")
FILES = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))

FORBIDDEN = {
    "server": {"tests", "benchmarks"},
    "engine": {"server", "grammars", "tests", "benchmarks"},
    "grammars": {"server", "engine", "tests", "benchmarks"},
}
ONLY_UNDER = {
    "llama_cpp": "engine/llama",
    "starlette": "server",
    "uvicorn": "server",
    "jinja2": "server",
    "rich": "server",
}
TOUCH_NATIVE = ("engine.py", "embedding_engine.py", "probe.py")
"""The only modules of the engine outside `engine/llama` that reach native code."""


def imported_modules(source: str, package: str = "") -> Iterator[str]:
    """Every module that a file of `package` imports, wherever in it, by its absolute name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: 1 - node.level or None] if node.level else []
            module = ".".join([*parents, *filter(None, [node.module])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def is_under(path: Path, directory: str) -> bool:
    return path.is_relative_to(ROOT / directory)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_what_its_place_allows(path):
    parents = path.relative_to(ROOT).parent.parts
    modules = imported_modules(path.read_text("utf-8"), ".".join(parents))
    tops = {module.partition(".")[0] for module in modules}
    assert not tops & FORBIDDEN[parents[0]]
    strangers = {name for name, home in ONLY_UNDER.items() if not is_under(path, home)}
    assert not tops & strangers


@pytest.mark.parametrize("path", sorted((ROOT / "engine").glob("*.py")), ids=lambda path: path.name)
def test_native_code_is_reached_in_few_places(path):
    modules = set(imported_modules(path.read_text("utf-8"), "engine"))
    native = {module for module in modules if module.startswith(("engine.llama", "ctypes"))}
    assert not native or path.name in TOUCH_NATIVE


def test_the_installer_needs_only_the_standard_library():
    import sys

    source = (ROOT / "engine" / "install.py").read_text("utf-8")
    tops = {module.partition(".")[0] for module in imported_modules(source)}
    assert tops <= sys.stdlib_module_names | {"__future__"}


def test_the_reader_of_imports_sees_them_all():
    source = "import a.b\ndef f():\n    from c import d\nif x:\n    import e as g"
    assert set(imported_modules(source)) == {"a.b", "c", "c.d", "e"}
    relative = "from . import a\nfrom .b import c\nfrom ..d import e"
    found = {"p.q", "p.q.a", "p.q.b", "p.q.b.c", "p.d", "p.d.e"}
    assert set(imported_modules(relative, "p.q")) == found
