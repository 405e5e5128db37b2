"""When to save a checkpoint: at intervals, and before the process has to stop.

The policy is called at each step boundary of a training. Processes that train together save and stop together, when any
of them has to; the main process's clock determines when to save, and only the main process writes.
"""

import time
from collections.abc import Callable
from enum import IntEnum

from functions.train.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from functions.train.errors import PausedError
from functions.train.training.checkpoint import CheckpointStore, MessageCallback
from functions.train.training.interruption import InterruptionMonitor
from functions.train.training.state import TrainerState, TrainingPosition
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
        vote = self._process_group.max_over_ranks(self._vote(trainer.step_count))
        if vote >= Vote.SAVE:
            self.save(trainer)
        if vote == Vote.STOP:
            reason = self._interruption.reason or "Stopped with another process"
            self._process_group.max_over_ranks(vote)  # after the main process has saved: no process leaves before
            raise PausedError(
                f"{reason} and saved after step {trainer.step_count}; start the same run again, and it goes on."
            )

    def save(self, trainer: Trainer) -> None:
        """Save now."""
        state = trainer.capture_state()
        if self._process_group.is_main:
            self._checkpoints.write_state(state)
        self._saved_at = self._clock()

    def delete_all(self) -> None:
        """Delete all checkpoints: the result of the training is stored elsewhere."""
        self._checkpoints.delete_all()

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
        late = seconds is not None and self._clock() - self._saved_at >= seconds
        return late or (steps is not None and step % steps == 0)
