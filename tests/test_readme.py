"""The README against the code: its tree, its settings, its routes, its paths."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from starlette.routing import Route

from engine.settings import ModelSettings
from server.app import create_app
from server.config import ModelConfig, ServerConfig
from server.models import Models
from server.options import OPTIONS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
TREE = README.partition("## Where things are")[2].partition("```\n")[2].partition("```")[0]
OTHERS_FLAGS = {"--dev", "--help", "--tools"}
"""Of the installer, of argparse, of Claude Code."""


@pytest.mark.parametrize("package", ["engine", "server"])
def test_the_tree_names_every_module(package: str) -> None:
    part = re.search(rf"^{package}/.*\n((?:  .*\n)*)", TREE, re.MULTILINE)
    assert part is not None
    named = re.findall(r"(?<=\s)([a-z_]+\.py|[a-z]+/)(?=\s)", part[1])
    there = {each.name for each in (ROOT / package).glob("*.py")} - {"__init__.py"}
    folders = {f"{each.parent.name}/" for each in (ROOT / package).glob("*/__init__.py")}
    assert sorted(each for each in named if each != "__main__.py") == sorted(
        (there | folders) - {"__main__.py"}
    )


def test_every_setting_is_named_and_nothing_else() -> None:
    flags = {option.flag_name for option in OPTIONS if option.flag}
    switched_off = {f"--no-{o.flag_name[2:]}" for o in OPTIONS if o.is_switch and o.flag}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README))
    assert named - flags - switched_off == OTHERS_FLAGS
    assert {f for f in flags if f not in named and f"--no-{f[2:]}" not in named} == set()
    sample = README.partition("# models.toml, with every key")[2].partition("```")[0]
    keys = set(re.findall(r"^(\w+) =", sample, re.MULTILINE))
    assert {o.name for o in OPTIONS if o.scope != "server"} == keys - {"memory_budget"}
    variables = set(re.findall(r"INGLE_[A-Z_]+", README))
    assert variables - {option.env_name for option in OPTIONS} == {"INGLE_LONG"}


def test_every_route_is_named() -> None:
    config = ServerConfig(
        models=(ModelConfig(name="m", settings=ModelSettings(path=Path("m.gguf"))),)
    )
    app = create_app(config, Models(config.models, lambda *_: pytest.fail("nothing is loaded")))
    table = (
        README.partition("| route | what |")[2].partition("## ")[0]
        + README.partition("### Ollama")[2]
    )
    for path in {route.path for route in app.routes if isinstance(route, Route)}:
        *_, last = [part for part in path.split("/") if part and "{" not in part] or [""]
        assert re.search(rf"\b{last}\b", table), path


def test_every_path_is_there() -> None:
    paths = re.findall(r"`((?:tests|benchmarks|engine|server|grammars)/[\w/.]*)`", README)
    assert len(paths) > 30
    assert [path for path in paths if not (ROOT / path).exists()] == []
