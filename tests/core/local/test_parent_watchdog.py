import os
import subprocess
import sys
from pathlib import Path

import pytest

from pilotlight.local import parent_watchdog

LEASH = str(Path(parent_watchdog.__file__))


def run(gateway_pid: int, tmp_path: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-P", LEASH, str(gateway_pid), *arguments]
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


def test_becomes_the_module_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import sys; print(__name__, sys.argv[1:], sys.path[0])")
    done = run(os.getpid(), tmp_path, "program", "one", "two")
    assert done.stdout == f"__main__ ['one', 'two'] {tmp_path}\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent was killed")
def test_ends_at_once_when_the_gateway_is_gone_already(tmp_path: Path) -> None:
    done = run(1, tmp_path, "program")
    assert (done.returncode, done.stderr) == (1, "The gateway that started this environment is gone.\n")
