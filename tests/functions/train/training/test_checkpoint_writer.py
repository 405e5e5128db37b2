"""A checkpoint is written while the training goes on, one at a time, and a failing store does not end it."""

import threading
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save

from functions.train.data.split import Splits
from functions.train.errors import PausedError
from functions.train.training import checkpoint, checkpoint_writer, tensor_file
from functions.train.training.checkpoint import CheckpointStore
from functions.train.training.checkpoint_policy import CheckpointPolicy
from functions.train.training.checkpoint_writer import CheckpointWriter
from functions.train.training.interruption import STOP_GRACE_S, InterruptionMonitor
from functions.train.training.state import TrainerState, TrainingPosition
from functions.train.training.tensor_file import generate_file
from functions.train.training.trainer import Trainer
from pilotlight.errors import StoreError
from pilotlight.recipes.schema import CheckpointOptions
from pilotlight.storage.object_store import ObjectStore, open_store
from tests.fakes import Clock
from tests.functions.train.conftest import tiny_recipe
from tests.functions.train.training.test_checkpoint import StopAt, assert_same, trained

TYPES = sorted(tensor_file.TYPE_NAMES, key=str)
WAIT_S = 60


class GatedStore(ObjectStore):
    """A store in memory whose writes of tensors wait until they are let through, or fail some times."""

    def __init__(self) -> None:
        inner = open_store("memory://")
        super().__init__(inner.url, inner._store)
        self.gate, self.entered, self.failures = threading.Event(), threading.Event(), 0
        self.gate.set()

    def put(self, path: str, data: bytes | Path) -> None:
        self._pass(path)
        super().put(path, data)

    def put_chunks(self, path: str, chunks: Iterable[bytes | memoryview]) -> None:
        self._pass(path)
        super().put_chunks(path, chunks)

    def _pass(self, path: str) -> None:
        if path.endswith(checkpoint.TENSORS):
            self.entered.set()
            assert self.gate.wait(WAIT_S)
            if self.failures:
                self.failures -= 1
                raise StoreError("The store is away.")


def state(step: int) -> TrainerState:
    return TrainerState(TrainingPosition(step=step, batches=0, seconds=0, epochs=()), {"model/w": torch.arange(step)})


def checkpoints(store: ObjectStore) -> CheckpointStore:
    return CheckpointStore(store, "runs/r/checkpoints", "a" * 64)


@given(
    st.lists(st.tuples(st.sampled_from(TYPES), st.lists(st.integers(0, 4), max_size=3)), max_size=6),
    st.integers(1, 40),
)
def test_file_is_what_safetensors_reads(specs: list[tuple[torch.dtype, list[int]]], piece: int) -> None:
    tensors = {f"part/{number}": torch.ones(shape).to(kind) for number, (kind, shape) in enumerate(specs)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensor_file, "PIECE_BYTES", piece)
        written = b"".join(generate_file(tensors))
    found = load(written)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in tensors.items())
    assert len(written) - 8 - int.from_bytes(written[:8], "little") == tensor_file.count_bytes(tensors)
    assert load(save(tensors)).keys() == tensors.keys()


def test_views_are_written_as_they_look() -> None:
    whole = torch.arange(12).reshape(3, 4)
    found = load(b"".join(generate_file({"t": whole.T, "c": whole[:, 1], "s": torch.tensor(3.5)})))
    assert torch.equal(found["t"], whole.T)
    assert torch.equal(found["c"], whole[:, 1])
    assert found["s"].item() == 3.5


def test_large_state_is_sent_in_pieces_and_read_back(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    large = TrainerState(state(1).position, {"model/w": torch.randn(3_000_000), "model/b": torch.randn(5)})
    checkpoints(store).write_state(large)
    found = checkpoints(store).load_newest(print)
    assert found is not None
    assert all(torch.equal(found.tensors[name], value) for name, value in large.tensors.items())


def test_write_is_behind_the_training_and_the_next_waits_for_it() -> None:
    store = GatedStore()
    writer = CheckpointWriter(checkpoints(store), print)
    store.gate.clear()
    writer.start(state(1))
    assert store.entered.wait(WAIT_S)
    assert writer.is_writing
    assert not writer.wait(0.01)
    assert checkpoints(store).load_newest(print) is None
    threading.Timer(0.05, store.gate.set).start()
    writer.start(state(2))  # returns when the first is complete
    assert writer.written_step == 1
    assert writer.wait()
    assert (writer.written_step, checkpoints(store).list_steps()) == (2, [2, 1])


def test_failed_write_is_told_and_tried_again() -> None:
    store, said, slept = GatedStore(), list[str](), list[float]()
    writer = CheckpointWriter(checkpoints(store), said.append, slept.append)
    store.failures = 2
    writer.start(state(3))
    writer.wait()
    assert (writer.written_step, slept) == (3, [1.0, 5.0])
    assert said[0] == "the checkpoint of step 3 is written again in 1 s: The store is away."
    store.failures = 3
    writer.start(state(4))
    writer.wait()
    assert writer.written_step == 3
    assert said[-1].startswith(
        "the checkpoint of step 4 could not be written, and the training goes on without it: The"
    )
    store.failures = 3
    with pytest.raises(StoreError, match="The store is away"):
        writer.write(state(5))  # the last one must not be lost silently
    found = checkpoints(store).load_newest(print)
    assert found is not None
    assert found.position.step == 3


class Kept(StopAt):
    """A training under a policy, with something done at some steps."""

    def __init__(self, policy: CheckpointPolicy, clock: Clock, at: dict[int, object]) -> None:
        super().__init__(-1)
        self.policy, self.clock, self.at = policy, clock, at
        self.steps: list[int] = []

    def load_newest(self) -> TrainerState | None:
        return self.policy.load_newest()

    def on_step_end(self, trainer: Trainer) -> None:
        self.clock.tick(1)
        act = self.at.get(trainer.step_count)
        if callable(act):
            act()
        self.steps.append(trainer.step_count)
        self.policy.on_step_end(trainer)

    def save(self, trainer: Trainer) -> None:
        self.policy.save(trainer)


def test_training_goes_on_while_the_store_is_slow(splits: Splits) -> None:
    """What is written is the state of its step, although the weights have moved on; resumed, it is the unbroken one."""
    store, recipe, clock = GatedStore(), tiny_recipe(), Clock()
    expected = trained(recipe, splits)
    policy = CheckpointPolicy(checkpoints(store), CheckpointOptions(seconds=5.0), InterruptionMonitor(), print, clock)

    class EnoughError(PausedError):
        pass

    def leave() -> None:
        store.gate.set()
        policy.finish()
        raise EnoughError

    kept = Kept(policy, clock, {4: store.gate.clear, 14: leave})
    with pytest.raises(EnoughError):
        trained(recipe, splits, kept)
    assert kept.steps == [*range(1, 14)]  # nine steps passed behind a closed gate
    found = checkpoints(store).load_newest(print)
    assert found is not None
    assert found.position.step == 5
    assert_same(trained(recipe, splits, StopAt(-1, found)), expected)


@pytest.mark.parametrize(("write_seconds", "expected"), [(20.0, 9), (90.0, 5)])
def test_sigterm_writes_a_newer_one_only_if_there_is_time(
    write_seconds: float, expected: int, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, clock = GatedStore(), Clock()
    interruption = InterruptionMonitor(clock=clock)
    policy = CheckpointPolicy(checkpoints(store), CheckpointOptions(seconds=5.0), interruption, print, clock)

    def interrupt() -> None:
        policy.finish()
        policy._writer.write_seconds = write_seconds
        interruption._on_sigterm(15, None)
        clock.tick(STOP_GRACE_S - 50)

    with pytest.raises(PausedError) as caught:
        trained(tiny_recipe(), splits, Kept(policy, clock, {9: interrupt}))
    assert checkpoints(store).list_steps()[0] == expected
    if expected == 9:
        assert str(caught.value).startswith("Stopped by SIGTERM and saved after step 9; start the same run again")
    else:
        assert "too little time left" in str(caught.value)
        assert str(caught.value).endswith("and it goes on from its checkpoint of step 5.")


def test_pauses_are_shorter_than_the_grace() -> None:
    assert sum(checkpoint_writer.PAUSES_S) < STOP_GRACE_S / 2
