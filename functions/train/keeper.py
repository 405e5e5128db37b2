"""When to save: every so often, and before the process has to go.

It is asked at each step boundary of a training. It knows checkpoints and clocks, not what is in a snapshot.
"""

import time
from collections.abc import Callable

from functions.train.checkpoint import Checkpoints, Say
from functions.train.errors import PausedError
from functions.train.interruption import Interruption
from functions.train.loop import Snapshot, Trainer
from functions.train.options.life import CheckpointOptions


class Keeper:
    """Keeps a training's checkpoints as a recipe says."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        options: CheckpointOptions,
        interruption: Interruption,
        say: Say,
        clock: Callable[[], float] = time.monotonic,
        look: Callable[[Trainer], None] = lambda _: None,
    ) -> None:
        self._checkpoints, self._options, self._interruption = checkpoints, options, interruption
        self._say, self._clock, self._look = say, clock, look
        self._saved_at = clock()

    def newest(self) -> Snapshot | None:
        """Where to go on from; None to start at the beginning."""
        snapshot = self._checkpoints.newest(self._say)
        if snapshot is not None:
            self._say(f"goes on after step {snapshot.position.step}")
        self._saved_at = self._clock()
        return snapshot

    def boundary(self, trainer: Trainer) -> None:
        """Save when it is time; `PausedError`, after saving, when the process should go."""
        self._look(trainer)
        reason = self._interruption.reason
        if reason or self._due(trainer.steps):
            self.save(trainer)
        if reason:
            raise PausedError(
                f"{reason} and saved after step {trainer.steps}; start the same run again, and it goes on."
            )

    def save(self, trainer: Trainer) -> None:
        """Save now."""
        self._checkpoints.write(trainer.snapshot())
        self._saved_at = self._clock()

    def clear(self) -> None:
        """Keep nothing any longer: what came of the training is safe elsewhere."""
        self._checkpoints.clear()

    def _due(self, step: int) -> bool:
        seconds, steps = self._options.seconds, self._options.steps
        late = seconds is not None and self._clock() - self._saved_at >= seconds
        return late or (steps is not None and step % steps == 0)
