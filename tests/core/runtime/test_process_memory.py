import os
import resource
import subprocess
import sys

import pytest

from pilotlight.runtime import process_memory

MIB = 1 << 20


HOLDING = """
import os
print(flush=True)
input()
pages, file = b"x" * (64 << 20), os.memfd_create("model")
os.truncate(file, 64 << 20)
print(flush=True)
input()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what another process holds")
def test_what_a_process_holds_is_its_pages_and_its_files_in_memory() -> None:
    command, pipe = [sys.executable, "-c", HOLDING], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, bufsize=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        before = process_memory.resident_bytes(process.pid)
        process.stdin.write(b"\n")
        process.stdout.readline()
        after = process_memory.resident_bytes(process.pid)
        process.stdin.write(b"\n")
    assert after - before == pytest.approx(128 * MIB, abs=8 * MIB)


def test_a_process_that_has_ended_holds_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert process_memory.resident_bytes(process.pid) == 0


def test_the_peak_outlives_what_made_it() -> None:
    code = (
        "from pilotlight.runtime import process_memory; x = b'x' * (64 << 20); del x; "
        "print(process_memory.peak_resident_bytes())"
    )
    path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    said = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True, check=True).stdout
    assert 64 * MIB < int(said) < 256 * MIB
    assert process_memory.peak_child_bytes() >= 64 * MIB


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_systems_count_in_units_of_their_own(monkeypatch: pytest.MonkeyPatch, platform: str, unit: int) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert process_memory.peak_child_bytes() == most * unit
