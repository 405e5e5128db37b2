"""From what a machine is told to torchrun's arguments, and from what its processes say to one exit code."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from functions.train.__main__ import main
from functions.train.data.shared_downloads import FOLDER_VARIABLE
from functions.train.distributed import launcher
from functions.train.distributed.launcher import (
    EXIT_FILE,
    ClusterLayout,
    detect_cluster,
    launch_processes,
    report_exit_code,
)
from functions.train.fault_recovery import FAULT
from pilotlight.errors import InvalidInputError
from tests.functions.train.conftest import TINY
from tests.functions.train.training_process import Process, until

ROOT = Path(__file__).parents[4]

pytestmark = pytest.mark.slow

THERE = "10.0.0.7"
NODES = "--nnodes {} --node-rank {} --nproc-per-node {} --master-addr {}"
MAIN = "AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS"
STANDALONE = "--standalone --nproc-per-node"


def batch(nodes: object, node: object, main: object = 0, **more: str) -> dict[str, str]:
    """AWS Batch's variables; the main node alone has no address of the main node."""
    told = {"NUM_NODES": nodes, "NODE_INDEX": node, "MAIN_NODE_INDEX": main}
    return {f"AWS_BATCH_JOB_{name}": str(value) for name, value in told.items()} | more


@pytest.mark.parametrize(
    ("environment", "processes", "gpus", "expected"),
    [
        ({}, None, 0, None),
        ({}, None, 1, None),
        ({}, None, 8, f"{STANDALONE} 8"),
        ({}, 2, 0, f"{STANDALONE} 2"),
        ({}, 1, 8, None),
        ({"RANK": "0"}, 2, 8, None),  # under somebody's own torchrun
        (batch(1, 0), None, 4, f"{STANDALONE} 4"),
        (batch(1, 0), None, 0, None),
        (batch("", ""), None, 0, None),
        (batch(2, 0), None, 4, NODES.format(2, 0, 4, "127.0.0.1")),
        (batch(2, 1, **{MAIN: THERE}), None, 4, NODES.format(2, 1, 4, THERE)),
        (batch(3, 2, 2), None, 0, NODES.format(3, 0, 1, "127.0.0.1")),
        (batch(3, 0, 2, **{MAIN: THERE}), 2, 0, NODES.format(3, 1, 2, THERE)),
    ],
)  # fmt: skip
def test_arguments_of_torchrun(environment: Mapping[str, str], processes: int, gpus: int, expected: str | None) -> None:
    found = detect_cluster(environment, processes, lambda: gpus)
    if expected is None:
        assert found is None
    else:
        port = [] if "--standalone" in expected else ["--master-port", "29500"]
        assert found is not None
        assert found.torchrun_arguments == [*expected.split(), *port]


def test_node_that_cannot_find_the_main_one_says_so() -> None:
    with pytest.raises(InvalidInputError, match=rf"Node 1 of 2 .* {MAIN} is not set"):
        detect_cluster(batch(2, 1), None, lambda: 1)
    with pytest.raises(InvalidInputError, match="AWS_BATCH_JOB_NUM_NODES is 'two'; it must be a whole number"):
        detect_cluster(batch("two", 0), None, lambda: 1)


@pytest.mark.parametrize(
    ("written", "ended", "signalled", "expected"),
    [
        ("0", 0, False, 0),
        ("75", 0, False, 75),
        ("75", 0, True, 75),
        ("2", 1, False, 2),
        ("1", 1, False, 1),
        (None, 1, False, 1),  # killed before it could say anything
        (None, 75, False, 75),  # signalled before it could
        (None, 1, True, 75),  # and before there was anybody to hand the signal on to
    ],
)
def test_exit_code_is_the_leads(
    written: str | None, ended: int, signalled: bool, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def agent(arguments: Sequence[str], words: Sequence[str]) -> int:
        if written:
            Path(os.environ[EXIT_FILE]).write_text(written)
        if signalled:
            os.kill(os.getpid(), signal.SIGTERM)
            until(lambda: False)  # the handler ends this
        return ended

    monkeypatch.setattr(launcher, "run_torchrun_agent", agent)
    for name in (EXIT_FILE, FOLDER_VARIABLE, "TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")  # put back afterwards
    assert launch_processes(ClusterLayout(2), ["wine"]) == expected


def test_first_process_of_a_machine_leaves_its_exit_code(tmp_path: Path) -> None:
    told = {EXIT_FILE: str(tmp_path / "code")}
    assert report_exit_code(1, told | {"LOCAL_RANK": "1"}) == 1
    assert not (tmp_path / "code").exists()
    assert report_exit_code(75, told | {"LOCAL_RANK": "0"}) == 0  # torchrun would take 75 for a failure
    assert (tmp_path / "code").read_text() == "75"
    assert report_exit_code(75, {}) == 75


def test_wrong_recipe_ends_before_anything_is_started(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["digits", "--processes", "2", "--set", "epochs=0"]) == 2
    assert "epochs" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main(["digits", "--processes", "0"])
    assert caught.value.code == 2


def test_processes_are_killed_and_stopped_and_fewer_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = Process(tmp_path, steps=1)
    job.also("--processes", "2")
    killed = job.start()
    job.reach(killed, 2)
    os.kill(worker(killed.pid), signal.SIGKILL)
    out, err = killed.communicate()
    assert (killed.returncode, out) == (75, ""), err  # there is a checkpoint, and it is the first such fault
    stopped = job.start()
    job.reach(stopped, job.steps()[-1] + 2)
    stopped.send_signal(signal.SIGTERM)
    out, err = stopped.communicate()
    last = job.steps()[-1]
    assert (stopped.returncode, out) == (75, ""), err
    assert f"Stopped by SIGTERM and saved after step {last}" in err
    assert main(["digits", "--set", *TINY, "checkpoint.steps=1", "--store", str(job.store), "--run", "r"]) == 0
    out, err = capsys.readouterr()
    assert out == "tiny:1\n"
    assert f"goes on after step {last}" in err


def worker(agent: int, place: int = -1) -> int:
    """One of torchrun's processes, the last unless told otherwise; the first is the lead."""
    command = ["ps", "--no-headers", "-o", "pid", "--ppid", str(agent), "--sort", "pid"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[place])


@pytest.mark.parametrize("place", [0, -1], ids=["lead", "worker"])
def test_run_that_lost_a_process_ends_with_the_weights_of_an_unbroken_one(place: int, tmp_path: Path) -> None:
    broken, unbroken = Process(tmp_path / "broken", steps=3), Process(tmp_path / "unbroken", steps=3)
    for job in (broken, unbroken):
        job.also("--processes", "2")
    killed = broken.start()
    broken.reach(killed, 3)
    os.kill(worker(killed.pid, place), signal.SIGKILL)
    out, err = killed.communicate()
    assert (killed.returncode, out) == (75, ""), err
    assert "The run goes on from its checkpoint of step" in err
    for job in (broken, unbroken):
        finished = job.start()
        out, err = finished.communicate()
        assert (finished.returncode, out) == (0, "tiny:1\n"), err
    assert broken.weights() == unbroken.weights()


@pytest.mark.parametrize(
    ("codes", "agent", "expected"),
    [
        ({0: FAULT, 1: FAULT}, FAULT, FAULT),
        ({0: FAULT}, 137, FAULT),  # the other was killed, and the lead lost it
        ({}, 137, 137),  # the lead was killed
        ({0: FAULT, 1: 1}, 1, 1),  # the other's program failed, and the lead lost it by that
        ({0: FAULT, 1: 2}, 1, 2),
        ({0: FAULT}, 1, 1),  # the other raised what nobody expected
        ({0: 0, 1: 0}, 0, 0),
        ({0: 75, 1: 75}, 0, 75),
        ({0: 0}, 137, 0),  # killed after the version was published
    ],
)
def test_own_failures_count_and_not_that_others_lost_a_process(
    codes: dict[int, int], agent: int, expected: int
) -> None:
    assert launcher.combine_exit_codes(codes, agent) == expected


@pytest.mark.parametrize(
    ("exit_codes", "expected"),
    [
        ([-9], 137),
        ([-9, -15], 137),
        ([-15, -6], 134),
        ([FAULT, -9], FAULT),
        ([1, -15], 1),
        ([FAULT, 1], 1),
        ([-15], 143),
    ],
)
def test_how_processes_failed(exit_codes: list[int], expected: int) -> None:
    assert launcher.summarize_failures(exit_codes) == expected


@pytest.mark.parametrize("node", [0, 1])
def test_main_machine_alone_decides_on_a_fault(node: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(launcher, "run_torchrun_agent", lambda *_: 137)
    monkeypatch.setattr(launcher, "name_network_interface", lambda *_: None)
    for name in (EXIT_FILE, FOLDER_VARIABLE, "TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    layout = ClusterLayout(1, nodes=2, node_rank=node)

    def decide(reason: str) -> int:
        asked.append(reason)
        return 75

    assert launch_processes(layout, [], decide) == (1 if node else 75)
    assert asked == ([] if node else ["a process was ended by signal 9"])


def test_lack_of_memory_is_told_and_not_retried(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kills = iter([3, 4])
    monkeypatch.setattr(launcher, "count_oom_kills", lambda: next(kills))
    monkeypatch.setattr(launcher, "run_torchrun_agent", lambda *_: 137)
    for name in (EXIT_FILE, FOLDER_VARIABLE, "TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    assert launch_processes(ClusterLayout(2), [], lambda _: 75) == 1
    assert "killed for lack of memory" in capsys.readouterr().err


def test_a_process_that_is_done_ends_whatever_its_libraries_do_at_their_end() -> None:
    program = (
        "import atexit, os; from functions.train.distributed.launcher import end_process; "
        "atexit.register(os.abort); print('published'); end_process(3)"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "published\n", "")
