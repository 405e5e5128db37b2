"""Runs that are killed, as processes: what is left goes on, and ends as if nothing had happened."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from functions.train import __main__ as command
from functions.train.__main__ import main
from functions.train.pipeline import run_recipe
from functions.train.run_setup import resolve_run_name
from functions.train.training.interruption import InterruptionMonitor
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.schema import Recipe
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import ObjectStore, open_store
from tests.functions.train.conftest import TINY, Finished, silence, tiny_recipe
from tests.functions.train.training_process import Process, until

LATEST_STEP = 30  # of 34


def unbroken(tiny: Finished) -> str:
    return tiny.outcome.manifest.get_file("model.fp32.onnx").sha256


@pytest.mark.slow
def test_sigterm_saves_and_the_run_goes_on_to_the_same_weights(tiny: Finished, tmp_path: Path) -> None:
    job = Process(tmp_path, steps=1)
    process = job.start()
    job.reach(process, random.randrange(1, LATEST_STEP))  # noqa: S311 - no secret
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
    assert process.returncode == 75
    assert out == ""
    assert f"Stopped by SIGTERM and saved after step {job.steps()[-1]}; start the same run again" in err
    left, last = job.start(), job.steps()[-1]
    out, err = left.communicate()
    assert (left.returncode, out) == (0, "tiny:1\n")
    assert f"goes on after step {last}" in err
    assert job.weights() == unbroken(tiny)
    assert job.steps() == []


@pytest.mark.slow
def test_sigkill_loses_one_interval_at_most(tiny: Finished, tmp_path: Path) -> None:
    job, killed = Process(tmp_path, steps=2), 0
    for step in sorted(random.sample(range(1, LATEST_STEP), 2)):
        process = job.start()
        job.reach(process, step)
        time.sleep(random.random() / 20)  # noqa: S311 - no secret
        reached = job.steps()[-1] if job.steps() else 0
        process.kill()
        err = process.communicate()[1]
        killed += process.returncode == -signal.SIGKILL
        assert "skipped" not in err or "never finished" in err
    process = job.start()
    out, err = process.communicate()
    assert (process.returncode, out, killed) == (0, "tiny:1\n", 2)
    (went_on,) = (int(line.split()[-1]) for line in err.splitlines() if line.startswith("goes on after step"))
    assert went_on >= reached
    assert job.weights() == unbroken(tiny)


@pytest.mark.parametrize("noted", [True, False])
def test_published_run_says_its_reference_again(
    noted: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["digits", "--set", *TINY, "epochs=1", "--store", str(tmp_path), "--run", "r", "--json"]
    assert main(arguments) == 0
    first = json.loads(capsys.readouterr().out)
    if not noted:  # killed between the commit and the note of it
        open_store(str(tmp_path)).delete("runs/r/published.json")
    assert main(arguments) == 0
    again = json.loads(capsys.readouterr().out)
    assert again | {"seconds": {}} == first | {"seconds": {}}
    assert Registry(open_store(str(tmp_path))).list_versions("tiny") == [1]


def test_another_recipe_under_the_same_name_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["digits", "--store", str(tmp_path), "--run", "r", "--set", *TINY]
    assert main([*arguments, "epochs=1"]) == 0
    capsys.readouterr()
    assert main([*arguments, "epochs=1", "seed=5"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1] == (
        "The run 'r' was started with another recipe: seed differ; give that recipe again, or another --run."
    )


def test_time_budget_however_short_lets_each_life_take_a_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["digits", "--store", str(tmp_path), "--run", "r", "--time-budget", "1e-9", "--set", *TINY]
    for step in (1, 2):
        assert main(arguments) == 75
        assert capsys.readouterr().err.splitlines()[-1] == (
            f"Stopped at the end of the time budget of 1e-09 s and saved after step {step}; "
            "start the same run again, and it goes on."
        )


@pytest.mark.parametrize("word", ["0", "-1", "nan", "soon"])
def test_wrong_time_budget_ends_with_two(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["digits", "--time-budget", word])
    assert caught.value.code == 2
    assert repr(word) in capsys.readouterr().err


def test_run_that_is_stopped_after_its_training_does_not_train_again(tmp_path: Path) -> None:
    store, stopping = open_store(str(tmp_path)), InterruptionMonitor()

    def at_the_evaluation() -> None:
        if list(store.list_paths("runs/r/checkpoints")):
            raise KeyboardInterrupt

    progress = silence()
    progress.before_stage = at_the_evaluation
    with pytest.raises(KeyboardInterrupt):
        run_recipe(tiny_recipe(), store, progress, "r", stopping)
    trained = store.get("runs/r/metrics.jsonl").data
    run_recipe(tiny_recipe(), store, silence(), "r", stopping)
    assert store.get("runs/r/metrics.jsonl").data == trained


def test_name_of_a_run() -> None:
    assert resolve_run_name(None, {}) is None
    assert resolve_run_name("mine", {"AWS_BATCH_JOB_ID": "a"}) == "mine"
    assert resolve_run_name(None, {"AWS_BATCH_JOB_ID": "1b2c-3d:4#5"}) == "batch-1b2c-3d-4-5"
    with pytest.raises(InvalidInputError, match=r"--run '\.\./up' is not a name"):
        resolve_run_name("../up", {})


def test_sigterm_before_the_first_stage_pauses_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def signalled(
        recipe: Recipe, store: ObjectStore, name: str | None, interruption: InterruptionMonitor, folder: Path
    ) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        until(lambda: interruption.reason is not None)
        interruption.raise_if_interrupted()

    monkeypatch.setattr(command, "join_and_run", signalled)
    assert main(["digits", "--store", str(tmp_path)]) == 75


def test_sigterm_is_only_noted_and_the_handler_goes_again() -> None:
    before = signal.getsignal(signal.SIGTERM)
    interruption = InterruptionMonitor()
    with interruption.handle_sigterm():
        assert interruption.reason is None
        os.kill(os.getpid(), signal.SIGTERM)
        until(lambda: interruption.reason == "Stopped by SIGTERM")
    assert signal.getsignal(signal.SIGTERM) == before
