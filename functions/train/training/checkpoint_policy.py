"""When to save a checkpoint: at intervals, and before the process has to stop.

The policy is called at each step boundary of a training. Processes that train together save and stop together, when any
of them has to; the main process's clock determines when to save, and only the main process writes. The training waits
for the copy of its state and goes on while that is written. Where a write takes longer than an interval of seconds the
next one begins later; where steps are counted the training waits for it, so that one interval is lost at most.
"""

import time
from collections.abc import Callable
from enum import IntEnum

from functions.train.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from functions.train.errors import PausedError
from functions.train.training.checkpoint import CheckpointStore, MessageCallback
from functions.train.training.checkpoint_writer import CheckpointWriter
from functions.train.training.interruption import InterruptionMonitor
from functions.train.training.state import Tensors, TrainerState, TrainingPosition
from functions.train.training.trainer import Trainer
from pilotlight.contracts.codec import decode_document, encode_document
from pilotlight.recipes.schema import CheckpointOptions


class Vote(IntEnum):
    """What a process requests at a boundary; the greatest request is what all of them do."""

    CONTINUE = 0
    SAVE = 1
    STOP = 2


class CheckpointPolicy:
    """Saves a training's checkpoints at the intervals of the recipe."""

    def __init__(
        self,
        checkpoints: CheckpointStore,
        options: CheckpointOptions,
        interruption: InterruptionMonitor,
        on_message: MessageCallback,
        clock: Callable[[], float] = time.monotonic,
        on_step: Callable[[Trainer], None] = lambda _: None,
        process_group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self._checkpoints, self._options, self._interruption = checkpoints, options, interruption
        self._on_message, self._clock, self._on_step, self._process_group = on_message, clock, on_step, process_group
        self._saved_at = clock()
        self._writer = CheckpointWriter(checkpoints, on_message)
        self._memory: Tensors = {}  # of the former state, to be overwritten by the next

    def load_newest(self) -> TrainerState | None:
        """Load the state to resume from; None to start at the beginning."""
        state = self._broadcast_state(
            self._checkpoints.load_newest(self._on_message) if self._process_group.is_main else None
        )
        if state is not None:
            self._on_message(f"goes on after step {state.position.step}")
        self._saved_at = self._clock()
        return state

    def on_step_end(self, trainer: Trainer) -> None:
        """Save when it is time; raise `PausedError`, after saving, when this process or another one must stop."""
        self._on_step(trainer)
        self._interruption.note_progress()
        self._writer.report()
        vote = self._process_group.max_over_ranks(self._vote(trainer.step_count))
        if vote == Vote.SAVE:
            self._start_save(trainer)
        if vote == Vote.STOP:
            saved_step = self._save_before_stop(trainer)
            reason = self._interruption.reason or "Stopped with another process"
            self._process_group.max_over_ranks(vote)  # after the main process has saved: no process leaves before
            raise PausedError(format_pause(reason, trainer.step_count, saved_step))

    def save(self, trainer: Trainer) -> None:
        """Save now, and wait until it is stored."""
        state = trainer.capture_state()
        if self._process_group.is_main:
            self._writer.write(state)
        self._saved_at = self._clock()

    def finish(self) -> None:
        """Wait until what is being saved is stored."""
        self._writer.wait()

    def delete_all(self) -> None:
        """Delete all checkpoints: the result of the training is stored elsewhere."""
        self._writer.wait()
        self._checkpoints.delete_all()

    def _start_save(self, trainer: Trainer) -> None:
        """Copy the state, and write it while the training goes on."""
        self._writer.wait()  # where steps are counted; seconds are put off instead
        state = trainer.capture_state(self._memory)
        if self._process_group.is_main:
            self._memory = {name: value for name, value in state.tensors.items() if not name.startswith("best/")}
            self._writer.start(state)
        self._saved_at = self._clock()

    def _save_before_stop(self, trainer: Trainer) -> int:
        """Save before the process ends, and return the step that the run goes on from.

        A write in flight is finished first. Then this step is written too, if that takes no longer than is left until
        SIGKILL; if it does, the run repeats the steps in between, but ends in order.
        """
        writable = True
        if self._process_group.is_main:
            left = self._interruption.grace_left_s
            ended = self._writer.wait(None if left is None else max(0.0, left))
            left = self._interruption.grace_left_s
            known = ended and self._writer.written_step is not None
            writable = left is None or (ended and (not known or self._writer.write_seconds < left))
        if self._process_group.max_over_ranks(not writable):
            return self._writer.written_step or 0
        self.save(trainer)
        return trainer.step_count

    def _vote(self, step: int) -> Vote:
        if self._interruption.reason:
            return Vote.STOP
        return Vote.SAVE if self._process_group.is_main and self._is_due(step) else Vote.CONTINUE

    def _broadcast_state(self, state: TrainerState | None) -> TrainerState | None:
        """Broadcast the main process's state: the others may see another store, or none."""
        if self._process_group.size == 1:
            return state
        position = self._process_group.broadcast_bytes(encode_document(state.position) if state else b"")
        tensors = self._process_group.broadcast_tensors(state.tensors if state else {})
        return TrainerState(decode_document(position, TrainingPosition, "a position"), tensors) if position else None

    def _is_due(self, step: int) -> bool:
        seconds, steps = self._options.seconds, self._options.steps
        late = seconds is not None and self._clock() - self._saved_at >= seconds and not self._writer.is_writing
        return late or (steps is not None and step % steps == 0)


def format_pause(reason: str, step: int, saved_step: int) -> str:
    """Format why a training ends, and what it goes on from."""
    if saved_step == step:
        return f"{reason} and saved after step {step}; start the same run again, and it goes on."
    place = f"from its checkpoint of step {saved_step}" if saved_step else "from its last checkpoint"
    return (
        f"{reason} after step {step}, with too little time left to write a checkpoint of it; start the same run again, "
        f"and it goes on {place}."
    )
