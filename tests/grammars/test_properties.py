"""Random schemas and values: valid ones are accepted in declared order, mutated ones are not."""

# ruff: noqa: E501 - rows of tables

import json
import os
import random

import hypothesis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis_jsonschema import from_schema

import grammars
from tests.grammars.support import DONE, GbnfMatcher, Judges, dumps, is_valid

LONG = int(os.environ.get("INGLE_FUZZ", "200"))
"""How many random schemas the fuzz tries; the long form is 10000."""

NAMES = st.sampled_from(["a", "b", "long name", "é", "x1"])
SCALARS = st.one_of(
    st.builds(lambda low, span: {"type": "integer", "minimum": low, "maximum": low + span},
              st.integers(-50, 50), st.integers(0, 300)),
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.builds(lambda low, span: {"type": "string", "minLength": low, "maxLength": low + span},
              st.integers(0, 3), st.integers(0, 20)),
    st.just({"type": "string", "pattern": "^[a-c]{1,4}(x|yz)?$"}),
    st.just({"enum": ["one", 2, None, [3], {"four": 5}]}),
)  # fmt: skip


def _objects(inner):
    return st.builds(
        lambda props, n: {"type": "object", "properties": props, "required": sorted(props)[:n],
                          "additionalProperties": False},
        st.dictionaries(NAMES, inner, max_size=4), st.integers(0, 4),
    )  # fmt: skip


def _arrays(inner):
    return st.builds(
        lambda items, low, span: {"type": "array", "items": items, "minItems": low, "maxItems": low + span},
        inner, st.integers(0, 2), st.integers(0, 3),
    )  # fmt: skip


SCHEMAS = st.recursive(
    SCALARS,
    lambda inner: _objects(inner) | _arrays(inner) | st.builds(lambda a, b: {"anyOf": [a, b]}, inner, inner),
    max_leaves=5,
)  # fmt: skip


def values(schema):
    """Values of a schema. hypothesis-jsonschema makes the scalars; its objects do not work with
    this version of hypothesis."""
    if "anyOf" in schema:
        return st.one_of([values(s) for s in schema["anyOf"]])
    if schema.get("type") == "object":
        props = {n: values(s) for n, s in schema["properties"].items()}
        required = {n: props.pop(n) for n in schema["required"]}
        return st.fixed_dictionaries(required, optional=props)
    if schema.get("type") == "array":
        low, high = schema["minItems"], schema["maxItems"]
        return st.lists(values(schema["items"]), min_size=low, max_size=high)
    return from_schema(schema)


def in_order(schema, value):
    """The value with its properties as the schema declares them."""
    if isinstance(value, dict):
        for branch in [schema, *schema.get("anyOf", [])]:
            props = branch.get("properties", {})
            if is_valid(branch, value) and "anyOf" not in branch:
                return {n: in_order(props[n], value[n]) for n in props if n in value} or value
        return next(
            (in_order(b, value) for b in schema.get("anyOf", []) if is_valid(b, value)), value
        )
    if isinstance(value, list):
        branches = [b for b in [schema, *schema.get("anyOf", [])] if is_valid(b, value)]
        items = next((b["items"] for b in branches if "items" in b), None)
        if items is not None:
            return [in_order(items, v) for v in value]
        return next(
            (in_order(b, value) for b in branches if "anyOf" in b and b is not schema), value
        )
    return value


def mutate(text, rng):
    at = rng.randrange(len(text))
    new = rng.choice(['"', "0", "a", ",", "]", "}", ":", "\\", " ", "-1", "null", "é", ""])
    return text[:at] + new + text[at + rng.randrange(2) :]


def judged_as_it_is(judges, schema, text):
    """What is accepted parses and is valid."""
    if judges.judge(text) == DONE:
        assert is_valid(schema, json.loads(text)), text


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_valid_instances_are_accepted_and_mutants_are_not(data):
    schema = data.draw(SCHEMAS)
    judges = Judges(grammars.compile(schema))
    value = data.draw(values(schema))
    text = dumps(in_order(schema, value))
    hypothesis.note(text)
    assert judges.judge(text) == DONE
    rng = random.Random(data.draw(st.integers(0, 99)))
    for _ in range(12):
        judged_as_it_is(judges, schema, mutate(text, rng))


class RandomSchemas:
    """Schemas of any keyword, many of them odd, contradictory or recursive."""

    def __init__(self, seed):
        self.rng = random.Random(seed)

    def schema(self, depth=3):
        rng = self.rng
        if depth == 0 or rng.random() < 0.1:
            return rng.choice([True, False, {}, {"type": "integer"}, {"$ref": "#"}, {"$ref": "#/$defs/d"},
                               {"const": 1}, {"type": "string"}])  # fmt: skip
        keywords = rng.sample(sorted(self.MAKERS), rng.randrange(1, 5))
        return {k: self.MAKERS[k](self, depth - 1) for k in keywords}

    def root(self):
        schema = self.schema()
        if isinstance(schema, dict):
            schema.setdefault("$defs", {"d": self.schema(2)})
        return schema

    def name(self):
        return self.rng.choice(["a", "b", "ab", "", "x y", 'q"', "é"])

    def value(self):
        return self.rng.choice(
            [None, True, 0, -1, 2.5, 1e20, "", "ab", 'q"\n', [], [1, "a"], {}, {"a": 1}]
        )

    def several(self, depth):
        return [self.schema(depth) for _ in range(self.rng.randrange(1, 4))]

    def named(self, depth):
        return {self.name(): self.schema(depth) for _ in range(self.rng.randrange(3))}

    def pattern(self):
        return self.rng.choice(["^a", "b$", "^[a-z]{1,3}$", r"\d+", "a|b", r"^(?!a).*$", "(", "x{2,1}", r"(a)\1",
                                r"\bab\b", "^$", ".", r"^\p{L}+$"])  # fmt: skip

    def small(self):
        return self.rng.choice([0, 1, 2, 3, 7, 2.0, 40])

    def names(self):
        return sorted({self.name() for _ in range(self.rng.randrange(3))})

    MAKERS = {  # noqa: RUF012 - a table
        "type": lambda s, d: s.rng.choice(["object", "array", "string", "integer", "number", "null",
                                           ["string", "object"], ["array", "integer", "boolean"]]),
        "enum": lambda s, d: [s.value() for _ in range(s.rng.randrange(4))],
        "const": lambda s, d: s.value(),
        "minimum": lambda s, d: s.rng.choice([-10, 0, 2.5, 7]),
        "maximum": lambda s, d: s.rng.choice([-1, 0, 3.25, 1000]),
        "exclusiveMinimum": lambda s, d: s.rng.choice([-3, 0.1]),
        "multipleOf": lambda s, d: s.rng.choice([1, 2, 0.5, 3, 7, 0.01]),
        "minLength": lambda s, d: s.small(),
        "maxLength": lambda s, d: s.small(),
        "pattern": lambda s, d: s.pattern(),
        "format": lambda s, d: s.rng.choice(["date", "ipv4", "uuid", "nope"]),
        "items": lambda s, d: s.schema(d),
        "prefixItems": lambda s, d: s.several(d),
        "contains": lambda s, d: s.schema(d),
        "minContains": lambda s, d: s.small(),
        "maxContains": lambda s, d: s.small(),
        "minItems": lambda s, d: s.small(),
        "maxItems": lambda s, d: s.small(),
        "uniqueItems": lambda s, d: s.rng.random() < 0.8,
        "properties": lambda s, d: s.named(d),
        "patternProperties": lambda s, d: {s.pattern(): s.schema(d)},
        "additionalProperties": lambda s, d: s.schema(d),
        "propertyNames": lambda s, d: s.schema(d),
        "required": lambda s, d: s.names(),
        "minProperties": lambda s, d: s.small(),
        "maxProperties": lambda s, d: s.small(),
        "dependentRequired": lambda s, d: {s.name(): s.names()},
        "dependentSchemas": lambda s, d: s.named(d),
        "allOf": lambda s, d: s.several(d),
        "anyOf": lambda s, d: s.several(d),
        "oneOf": lambda s, d: s.several(d),
        "not": lambda s, d: s.schema(d),
        "if": lambda s, d: s.schema(d),
        "then": lambda s, d: s.schema(d),
        "else": lambda s, d: s.schema(d),
        "unevaluatedProperties": lambda s, d: s.schema(d),
        "unevaluatedItems": lambda s, d: s.schema(d),
        "$ref": lambda s, d: s.rng.choice(["#", "#/$defs/d", "#/nope"]),
    }  # fmt: skip


PROBES = [None, True, 0, 1, -1, 2.5, 7, "", "a", "ab", "b", "abc", [], [1], [1, 1], ["a"], [1, "a"],
          [0, 1, 2], {}, {"a": 1}, {"a": "ab"}, {"b": 1}, {"a": 1, "b": 2}, {"ab": []}, {"": 0},
          {"a": {"a": 1}}, [[]], [{}], [{"a": 1}]]  # fmt: skip


def oracle(schema, value):
    """jsonschema's verdict; None where it fails itself (endless references, odd patterns)."""
    try:
        return is_valid(schema, value)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - its Rust parts panic when a reference never ends
        return None


@pytest.mark.parametrize("block", range(10))
def test_random_schemas_are_enforced_or_refused(block):
    compiled = 0
    for number in range(LONG // 10):
        schema = RandomSchemas(f"{block}/{number}").root()
        try:
            text = grammars.compile_schema(schema)
        except grammars.UnsupportedSchema as error:
            assert error.path and error.reason, schema
            continue
        compiled += 1
        matcher = GbnfMatcher(text)
        for value in PROBES:
            if matcher.judge(dumps(value)) == DONE:
                assert oracle(schema, value) in (True, None), (schema, value)
    assert compiled > LONG // 100
