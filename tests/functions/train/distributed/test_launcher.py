"""From what a machine is told to torchrun's arguments, and from what its processes say to one exit code."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from functions.train.__main__ import main
from functions.train.distributed import launcher
from functions.train.distributed.launcher import (
    EXIT_FILE,
    ClusterLayout,
    detect_cluster,
    launch_processes,
    report_exit_code,
)
from pilotlight.errors import InvalidInputError
from tests.functions.train.conftest import TINY
from tests.functions.train.training_process import Process, until

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
    for name in (EXIT_FILE, "TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "OMP_NUM_THREADS"):
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
    assert (killed.returncode, out) == (1, ""), err
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


def worker(agent: int) -> int:
    """The last of torchrun's processes: not the lead."""
    command = ["ps", "--no-headers", "-o", "pid", "--ppid", str(agent)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])
