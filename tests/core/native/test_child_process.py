"""A process with limits ends with a sentence, however it ends."""

from pathlib import Path

import pytest

from pilotlight.native import child_process

MODULES = {
    "fine": "import sys; print(sys.argv[1:], sys.stdin.read())",
    "fails": "import sys; sys.exit('noise\\nThe input is wrong.')",
    "silent": "import os; os._exit(3)",
    "aborts": "import os; os.abort()",
    "greedy": "held = bytearray(600_000_000)",
    "endless": "while True: pass",
    # As Rust does whose panic for lack of memory waits for a lock that it holds itself.
    "hanging": "import sys, time\nsys.stderr.write('memory allocation of 24576 bytes failed\\n')\nsys.stderr.flush()\n"
    "time.sleep(1000)",
}


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A module of that name, which the process finds as this one does."""
    (tmp_path / f"child_{request.param}.py").write_text(MODULES[request.param])
    monkeypatch.syspath_prepend(str(tmp_path))
    return f"child_{request.param}"


def run(module: str, seconds: float = 60.0) -> child_process.ChildOutcome:
    return child_process.run_module(module, ["a", "b"], memory_bytes=500_000_000, seconds=seconds, stdin=b"given")


@pytest.mark.parametrize("module", ["fine"], indirect=True)
def test_what_succeeds_gives_its_output(module: str) -> None:
    assert run(module) == child_process.ChildOutcome(b"['a', 'b'] given\n", "")


@pytest.mark.parametrize(
    ("module", "failure"),
    [
        ("fails", "The input is wrong"),
        ("silent", "its process ended with 3 and said nothing"),
        ("aborts", "its process was ended by SIGABRT (it may use 500 MB): it said nothing"),
        ("greedy", "MemoryError"),
    ],
    indirect=["module"],
)
def test_what_fails_says_why(module: str, failure: str) -> None:
    assert run(module).failure == failure


@pytest.mark.parametrize("module", ["endless"], indirect=True)
def test_what_does_not_end_is_ended(module: str) -> None:
    assert run(module, seconds=0.5).failure == "it did not end within 0.5 s"


@pytest.mark.parametrize("module", ["hanging"], indirect=True)
def test_what_announces_its_end_and_hangs_is_ended(module: str) -> None:
    failure = run(module).failure
    assert failure == ("its process was ended by SIGKILL (it may use 500 MB): memory allocation of 24576 bytes failed")


@pytest.mark.parametrize("module", ["endless"], indirect=True)
def test_what_takes_more_processor_time_than_it_may_is_ended(module: str) -> None:
    with pytest.raises(child_process.OverdueError, match=r"within 0\.2 s of processor time"):
        list(child_process.stream_module(module, [], memory_bytes=500_000_000, seconds=60, cpu_seconds=0.2))
