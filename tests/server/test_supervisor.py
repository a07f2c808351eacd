"""The parent of the workers, without a server in them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SIGNALLED_BY_FORK = """
import os, signal, sys, time
from server.crashes import CrashRecord
from server.supervisor import Supervisor

fork = os.fork

def fork_and_signal():
    {before}
    worker = fork()
    if worker:
        {after}
    return worker

os.fork = fork_and_signal
code = Supervisor(CrashRecord()).run()
if code is None:
    time.sleep(60)
sys.exit(code)
"""
STOP = "os.kill(os.getpid(), signal.SIGTERM)"


@pytest.mark.parametrize(
    "moments", [{"before": STOP, "after": "pass"}, {"before": "", "after": STOP}]
)
def test_a_signal_while_the_worker_begins_reaches_it(moments: dict[str, str]) -> None:
    script = SIGNALLED_BY_FORK.format(**moments)
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=30, check=False)
    assert ended.returncode == 128 + signal.SIGTERM
