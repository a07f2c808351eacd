"""The official test suite, out of jsonschema's source package: no invalid instance is accepted.

The package is downloaded once into pytest's cache; without a network the test is skipped.
"""

import json
import subprocess
import sys
import tarfile
from importlib.metadata import version

import pytest

import grammars
from tests.grammars.support import DONE, Judges, dumps

DRAFTS = ("draft2020-12", "draft7")
ENFORCED = 0.85
"""Share of the groups that must compile and accept one of their valid instances."""


@pytest.fixture(scope="module")
def suite(request):
    folder = request.config.cache.mkdir("json-schema-test-suite")
    wanted = f"jsonschema=={version('jsonschema')}"
    archives = list(folder.glob("jsonschema-*.tar.gz"))
    if not archives:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary",
                   "jsonschema", wanted, "-d", str(folder)]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        archives = list(folder.glob("jsonschema-*.tar.gz"))
        if not archives:
            pytest.skip(f"the source package of jsonschema cannot be had: {done.stderr[-200:]}")
    with tarfile.open(archives[0]) as archive:
        files = {}
        for member in archive.getmembers():
            parts = member.name.split("/")
            if (
                parts[1:3] == ["json", "tests"]
                and parts[3] in DRAFTS
                and member.name.endswith(".json")
            ):
                text = archive.extractfile(member).read().decode()
                files["/".join(parts[3:])] = json.loads(text)
    return files


def _groups(suite, draft):
    for name, groups in suite.items():
        optional = "/optional/" in name and "/format/" not in name
        if name.startswith(draft) and not optional:
            for group in groups:
                yield name, group


def _verdict(name, group):
    """ok, refused or narrow (no valid instance is accepted); asserts that nothing invalid is."""
    schema = group["schema"]
    if isinstance(schema, dict):
        schema = {
            "$schema": f"https://json-schema.org/draft/{name.split('/')[0][5:]}/schema",
            **schema,
        }
        if name.startswith("draft7"):
            schema["$schema"] = "http://json-schema.org/draft-07/schema#"
    valid = [t for t in group["tests"] if t["valid"]]
    try:
        judges = Judges(grammars.compile(schema))
    except grammars.UnsupportedSchema:
        return "refused" if valid else "ok"
    taken = 0
    for test in group["tests"]:
        done = judges.judge(dumps(test["data"])) == DONE
        assert test["valid"] or not done, f"{name}: {group['description']}: {test['description']}"
        taken += done
    return "ok" if taken or not valid else "narrow"


@pytest.mark.parametrize("draft", DRAFTS)
def test_nothing_invalid_is_accepted(suite, draft):
    verdicts = [_verdict(name, group) for name, group in _groups(suite, draft)]
    assert len(verdicts) > 150
    assert verdicts.count("ok") >= ENFORCED * len(verdicts)
