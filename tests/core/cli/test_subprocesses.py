"""A program that runs another one hands on its signals and ends as it did."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pilotlight.cli.subprocesses import run_command

ROOT = Path(__file__).parents[3]
RUN = """
import os, sys
from pilotlight.cli.subprocesses import run_command
sys.exit(run_command([sys.executable, "-c", sys.argv[1]], os.environ))
"""
WAIT = """
import signal, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, lambda number, frame: sys.exit(75))
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("code", [0, 1, 2, 75])
def test_exit_code_comes_back(code: int) -> None:
    assert run_command([sys.executable, "-c", f"raise SystemExit({code})"], os.environ) == code


def test_end_by_a_signal_is_told_as_a_shell_does() -> None:
    assert run_command([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], os.environ) == 137


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_go_on_to_the_other_program(number: signal.Signals) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "layers/core")}
    command = [sys.executable, "-c", RUN, WAIT]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait() == 75


def test_our_own_handlers_come_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
    run_command([sys.executable, "-c", ""], os.environ)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)] == before
