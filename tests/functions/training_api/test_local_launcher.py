"""Processes beside the gateway: they outlive who started them, are found dead or alive, and end by SIGTERM."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from functions.training_api.local_launcher import PAGE_BYTES, LocalLauncher, filter_environment, find_end_of_lines
from pilotlight.errors import InvalidInputError, LimitExceededError, UnavailableError
from tests import fakes

JOB = """
import signal, sys, time
def leave(*_):
    print("saved")
    sys.exit(75)
signal.signal(signal.SIGTERM, leave)
print("words", *sys.argv[1:], flush=True)
sys.stderr.write("half a line")
sys.stderr.flush()
time.sleep(60)
"""


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalLauncher]:
    """A launcher whose training job says its words and sleeps."""
    for name in ("functions/train", "torch"):  # functions itself is no package, as in the checkout
        (tmp_path / "path" / name).mkdir(parents=True)
        (tmp_path / "path" / name / "__init__.py").touch()
    (tmp_path / "path" / "functions" / "train" / "__main__.py").write_text(JOB)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    monkeypatch.syspath_prepend(tmp_path / "path")  # so that there is a torch to be found
    made = LocalLauncher(str(tmp_path / "store"), tmp_path / "trainings")
    yield made
    for file in (tmp_path / "trainings").glob("*.json"):
        made.stop_job(file.stem, "the test is over")
        fakes.eventually(lambda job=file.stem: made.poll([job])[job].phase == "over")  # type: ignore[misc]  # as is the default


def test_a_training_from_start_to_stop(local: LocalLauncher, tmp_path: Path) -> None:
    job = local.start_job("monday", 1)
    assert local.poll([job, "local-unknown"]).keys() == {job}
    assert (local.poll([job])[job].phase, local.poll([job])[job].launcher_state) == ("running", "RUNNING")
    fakes.eventually(lambda: local.read_log(job, "", "").lines != [])
    page = local.read_log(job, "", "")
    assert page.lines == [
        f"words store:runs/monday/recipe.yaml --store {tmp_path / 'store'} --run monday"
    ]  # and not half a line
    assert local.read_log(job, "", page.token).lines == []
    assert local.find_job("monday", "") == job
    assert local.find_job("tuesday", "") is None
    local.stop_job(job, "enough")
    fakes.eventually(lambda: local.poll([job])[job].phase == "over")
    assert local.read_log(job, "", page.token).lines == ["half a linesaved"]
    assert local.find_job("monday", "") is None
    local.stop_job(job, "enough")  # whatever has its process id by now lives on


def test_a_training_outlives_who_started_it(local: LocalLauncher, tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from functions.training_api.local_launcher import LocalLauncher; "
        f"print(LocalLauncher({str(tmp_path / 'store')!r}, Path({str(tmp_path / 'trainings')!r})).start_job('monday', "
        "1))"
    )
    # The real launcher in another process, whose own path has the checkout before the fake job.
    root = Path(__file__).parents[3]
    starter = f"import sys; sys.path[:0] = [{str(root)!r}, {str(root / 'layers/core')!r}]; {program}"
    done = subprocess.run([sys.executable, "-c", starter], capture_output=True, text=True, check=True)
    job = done.stdout.strip()
    assert local.poll([job])[job].phase == "running"


def test_a_process_that_was_killed_is_over(local: LocalLauncher, tmp_path: Path) -> None:
    job = local.start_job("monday", 1)
    process = (tmp_path / "trainings" / f"{job}.json").read_text()
    subprocess.run(["kill", "-KILL", process.partition('"pid":')[2].partition(",")[0]], check=True)
    fakes.eventually(lambda: local.poll([job])[job].phase == "over")


def test_a_hundred_trainings_at_once_are_two(local: LocalLauncher) -> None:
    def start(number: int) -> str:
        try:
            return local.start_job(f"run-{number}", 1)
        except LimitExceededError as exc:
            return f"{exc.retry_after} {exc}"

    with ThreadPoolExecutor(8) as threads:
        started = list(threads.map(start, range(100)))
    jobs = [each for each in started if each.startswith("local-")]
    assert len(jobs) == 2
    assert all("2 trainings are running here, and 2 may at once." in each for each in started if each not in jobs)
    local.stop_job(jobs[0], "enough")
    fakes.eventually(lambda: local.poll(jobs)[jobs[0]].phase == "over")
    assert local.start_job("another", 1).startswith("local-")


def test_what_cannot_be_trained_here(local: LocalLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match="nodes is 2"):
        local.check_nodes(2)
    with pytest.raises(UnavailableError, match="memory://"):
        LocalLauncher("memory://", tmp_path).check_nodes(1)
    monkeypatch.setattr("functions.training_api.local_launcher.find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match="needs torch"):
        local.check_nodes(1)


@pytest.mark.parametrize("token", ["x", "-1", "1.5"])
def test_a_token_is_a_place(local: LocalLauncher, token: str) -> None:
    with pytest.raises(InvalidInputError, match="which is not one that a log's `next` gave"):
        local.read_log("local-1", "", token)


@pytest.mark.parametrize(
    ("part", "lives", "end"),
    [
        (b"a\nb", True, 2),
        (b"a\nb", False, 3),
        (b"", False, 0),
        (b"x" * PAGE_BYTES, True, PAGE_BYTES),
        (b"a\n" + b"x" * (PAGE_BYTES - 2), False, 2),
    ],
)
def test_a_page_ends_with_a_line(part: bytes, lives: bool, end: int) -> None:
    assert find_end_of_lines(part, is_alive=lives) == end


def test_a_training_is_told_nothing_of_the_environment_that_ends_before_it() -> None:
    told = {"PATH": "/bin", "AWS_REGION": "x", "TMPDIR": "/tmp/x", "_HANDLER": "x", "AWS_LAMBDA_RUNTIME_API": "x"}  # noqa: S108
    assert filter_environment(told) == {"PATH": "/bin", "AWS_REGION": "x"}
