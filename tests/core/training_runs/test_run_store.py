"""The documents of a run's folder, as an older or a newer job may have left them."""

import msgspec
import pytest

from pilotlight.contracts.codec import encode_document
from pilotlight.contracts.names import ModelReference
from pilotlight.contracts.run import EpochRecord, RunStatus
from pilotlight.errors import NotFoundError
from pilotlight.storage.object_store import ObjectStore, open_store
from pilotlight.training_runs.run_store import (
    TrainingRun,
    find_best_epoch,
    format_duration,
    list_pictures,
    list_runs,
    load_run,
    load_runs,
)

AT = "2026-11-23T18:00:00+00:00"


def line(number: int, loss: float | None, **others: float) -> EpochRecord:
    return EpochRecord(number=number, train_loss=1.0, validation_loss=loss, validation_accuracy=0.5, **others)  # type: ignore[arg-type]  # numbers alone


@pytest.fixture
def memory() -> ObjectStore:
    return open_store("memory://")


def write(store: ObjectStore, run: str, **files: bytes) -> TrainingRun:
    for name, data in {"recipe.yaml": b"name: x\n", **files}.items():
        store.put(f"runs/{run}/{name}", data)
    return load_run(store, run)


def test_run_is_read_back(memory: ObjectStore) -> None:
    status = RunStatus(state="paused", started=AT, at=AT, lives=2, seconds=9.5, reason="Stopped by SIGTERM")
    lines = b"".join(msgspec.json.encode(each) + b"\n" for each in (line(1, 0.5), line(2, 0.25, seconds=3.0)))
    files = {"status.json": encode_document(status), "metrics.jsonl": lines, "curves.png": b"", "confusion.png": b""}
    found = write(memory, "r", **files)
    assert (found.state, found.status, found.seconds, found.last_update) == ("paused", status, 9.5, AT)
    assert found.epochs == (line(1, 0.5), line(2, 0.25, seconds=3.0))
    assert list_pictures(memory, "r") == ["runs/r/confusion.png", "runs/r/curves.png"]
    assert list_runs(memory) == ["r"]
    assert load_runs(memory, ["r", "r"]) == [found, found]


def test_published_run_is_finished_whatever_it_said_last(memory: ObjectStore) -> None:
    files = {
        "published.json": b'{"reference": "x:3"}',
        "status.json": encode_document(RunStatus(state="running", started=AT, at=AT)),
    }
    found = write(memory, "r", **files)
    assert (found.state, found.published_reference) == ("finished", ModelReference("x", 3))


def test_run_from_before_there_was_a_status_is_unknown(memory: ObjectStore) -> None:
    older = b'{"number": 1, "train_loss": NaN, "validation_loss": Infinity, "validation_accuracy": 0.1, "new": []}\n'
    found = write(memory, "r", **{"metrics.jsonl": older})
    assert (found.state, found.last_update, found.seconds) == ("unknown", "", 0.0)
    assert (found.epochs[0].train_loss, found.epochs[0].validation_loss) == (None, None)


def test_missing_run_and_broken_lines_are_told(memory: ObjectStore) -> None:
    with pytest.raises(NotFoundError, match="There is no run 'r'"):
        load_run(memory, "r")
    for broken in (b"{", b'{"number": "one"}', b"[1]", b'{"number": 1, "at": "noon"}', b"[" * 100_000):
        run = write(memory, "r", **{"metrics.jsonl": msgspec.json.encode(line(1, 0.5)) + b"\n" + broken})
        assert [epoch.number for epoch in run.epochs] == [1]
        assert run.error.startswith("line 2 of runs/r/metrics.jsonl is not an epoch: ")


def test_kept_epoch_is_early_stoppings() -> None:
    lines = [line(1, None), line(2, 1.0), line(3, 0.95), line(4, 0.8), line(5, 0.8)]
    assert find_best_epoch(lines) == lines[3]
    assert find_best_epoch(lines, min_delta=0.5) == lines[1]
    assert find_best_epoch(lines[:1]) is None


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (3599.9, "1 h 00 min")],
)
def test_duration_in_words(seconds: float, said: str) -> None:
    assert format_duration(seconds) == said
