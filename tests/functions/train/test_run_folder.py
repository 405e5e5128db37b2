"""A run's folder says how the run is, in every way that a run can end."""

import json
import math
from pathlib import Path

import pytest
import torch

from functions.train import pipeline as protocol
from functions.train.__main__ import main
from functions.train.errors import ExportError, PausedError
from functions.train.run_folder import RunFolder
from functions.train.training.step import StepResult, TrainStep
from functions.train.training.training_history import EpochMetrics
from pilotlight.contracts.run import RunStatus
from pilotlight.errors import StoreError
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import ObjectStore, open_store
from pilotlight.training_runs import run_store
from tests.functions.train.conftest import TINY, tiny_recipe


@pytest.fixture
def memory() -> ObjectStore:
    return open_store("memory://")


def status(store: ObjectStore) -> RunStatus:
    found = run_store.load_run(store, "r").status
    assert found is not None
    return found


def ended(journal: RunFolder, error: BaseException) -> None:
    """A life of a run that an error ends."""
    with journal.track_status():
        raise error


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (PausedError("Stopped by SIGTERM."), "paused", "Stopped by SIGTERM."),
        (KeyboardInterrupt(), "interrupted", "Interrupted; start the same run again, and it goes on"),
        (StoreError("The store failed."), "failed", "The store failed."),
        (ZeroDivisionError("oops"), "failed", "ZeroDivisionError: oops"),
    ],
)
def test_end_of_a_life_is_noted_and_passed_on(
    memory: ObjectStore, error: BaseException, state: str, reason: str
) -> None:
    journal = RunFolder(memory, tiny_recipe(), "r")
    with pytest.raises(type(error)):
        ended(journal, error)
    assert status(memory).state == state
    assert status(memory).reason.startswith(reason)


def test_lives_of_a_run_are_counted_and_their_seconds_added(memory: ObjectStore) -> None:
    before = 0.0
    for life in (1, 2, 3):
        with RunFolder(memory, tiny_recipe(), "r").track_status():
            assert (status(memory).state, status(memory).lives, status(memory).seconds) == ("running", life, before)
        assert status(memory).seconds > before
        before, started = status(memory).seconds, status(memory).started
        assert (status(memory).state, status(memory).reason) == ("finished", "")
        assert started <= status(memory).at


def command(store: Path, *words: str) -> int:
    return main(["digits", "--store", str(store), "--run", "r", "--set", *TINY, *words])


def nan_from(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the gradient of a step, and so all weights after it, be no numbers."""
    take = TrainStep.take_step

    def poisoned(
        self: TrainStep, batch: torch.Tensor, truth: torch.Tensor, rate: float, number: int, examples: int
    ) -> StepResult:
        return take(self, batch * torch.nan if number == step else batch, truth, rate, number, examples)

    monkeypatch.setattr(TrainStep, "take_step", poisoned)


def test_nan_loss_stops_with_step_and_rate_and_the_last_good_checkpoint_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as broken:
        nan_from(12, broken)
        assert command(tmp_path, "checkpoint.steps=5") == 1
    out, err = capsys.readouterr()
    said = err.splitlines()[-1]
    assert out == ""
    assert said.startswith("Training diverged in epoch 1: training loss nan after step 15; try a smaller")
    assert said.endswith(", or clip_norm.")
    assert "optimiser.learning_rate than the 0.00" in said
    store = open_store(str(tmp_path))
    assert Registry(store).list_models() == []
    assert (status(store).state, status(store).reason) == ("failed", said)
    kept = RunFolder(store, tiny_recipe("checkpoint.steps=5"), "r").open_checkpoints("checkpoints")
    assert kept.list_steps()[0] == 10
    monkeypatch.setattr(protocol, "export_onnx", enough)
    assert command(tmp_path, "checkpoint.steps=5") == 1  # what spoiled it is gone: it goes on from there
    err = capsys.readouterr().err
    assert "goes on after step 10" in err
    assert "2 epochs on" in err
    assert (status(store).reason, status(store).lives) == ("Trained enough.", 2)


def enough(*_: object) -> None:
    raise ExportError("Trained enough.")


def test_paused_run_says_so_and_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["digits", "--store", str(tmp_path), "--run", "r", "--time-budget", "1e-9", "--set", *TINY]) == 75
    assert status(open_store(str(tmp_path))).state == "paused"
    assert capsys.readouterr().err.splitlines()[-1] == status(open_store(str(tmp_path))).reason


def test_lines_are_json_to_every_reader(memory: ObjectStore) -> None:
    journal = RunFolder(memory, tiny_recipe(), "r")
    memory.put("runs/r/metrics.jsonl", b"")
    assert journal.epochs == []

    def refuse(word: str) -> None:
        raise AssertionError(word)

    epoch = EpochMetrics(1, 0.5, 0.8, 0.4, 0.9, 1e-3, 0.1)
    journal.record_epoch(epoch, math.inf)
    (line,) = memory.get("runs/r/metrics.jsonl").data.decode().splitlines()
    assert json.loads(line, parse_constant=refuse)["remaining_s"] is None
    assert journal.epochs == [epoch]
