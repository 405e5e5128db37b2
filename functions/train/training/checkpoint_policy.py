"""When to save: every so often, and before the process has to go.

It is asked at each step boundary of a training. Processes that train together save and go together, when any of them
has to; the lead's clock says when to save, and the lead alone writes. It knows checkpoints and clocks, not what is in a
snapshot.
"""

import time
from collections.abc import Callable
from enum import IntEnum

from functions.train.distributed.process_group import ALONE, World
from functions.train.errors import PausedError
from functions.train.training.checkpoint import Checkpoints, Say
from functions.train.training.interruption import Interruption
from functions.train.training.state import Position, Snapshot
from functions.train.training.trainer import Trainer
from pilotlight.contracts.manifest import decode, encode
from pilotlight.recipes.options.life import CheckpointOptions


class Wish(IntEnum):
    """What a process wants at a boundary; the greatest one is what all of them do."""

    ON = 0
    SAVE = 1
    GO = 2


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
        world: World = ALONE,
    ) -> None:
        self._checkpoints, self._options, self._interruption = checkpoints, options, interruption
        self._say, self._clock, self._look, self._world = say, clock, look, world
        self._saved_at = clock()

    def newest(self) -> Snapshot | None:
        """Where to go on from; None to start at the beginning."""
        snapshot = self._spread(self._checkpoints.newest(self._say) if self._world.lead else None)
        if snapshot is not None:
            self._say(f"goes on after step {snapshot.position.step}")
        self._saved_at = self._clock()
        return snapshot

    def boundary(self, trainer: Trainer) -> None:
        """Save when it is time; `PausedError`, after saving, when this process or another one should go."""
        self._look(trainer)
        self._interruption.moved()
        wish = self._world.agree(self._wish(trainer.steps))
        if wish >= Wish.SAVE:
            self.save(trainer)
        if wish == Wish.GO:
            reason = self._interruption.reason or "Stopped with another process"
            self._world.agree(wish)  # only after the lead has saved; until then, no process leaves
            raise PausedError(
                f"{reason} and saved after step {trainer.steps}; start the same run again, and it goes on."
            )

    def save(self, trainer: Trainer) -> None:
        """Save now."""
        snapshot = trainer.snapshot()
        if self._world.lead:
            self._checkpoints.write(snapshot)
        self._saved_at = self._clock()

    def clear(self) -> None:
        """Keep nothing any longer: what came of the training is safe elsewhere."""
        self._checkpoints.clear()

    def _wish(self, step: int) -> Wish:
        if self._interruption.reason:
            return Wish.GO
        return Wish.SAVE if self._world.lead and self._due(step) else Wish.ON

    def _spread(self, snapshot: Snapshot | None) -> Snapshot | None:
        """The lead's snapshot, for all processes: the others may see another store, or none."""
        if self._world.size == 1:
            return snapshot
        position = self._world.tell(encode(snapshot.position) if snapshot else b"")
        tensors = self._world.spread(snapshot.tensors if snapshot else {})
        return Snapshot(decode(position, Position, "a position"), tensors) if position else None

    def _due(self, step: int) -> bool:
        seconds, steps = self._options.seconds, self._options.steps
        late = seconds is not None and self._clock() - self._saved_at >= seconds
        return late or (steps is not None and step % steps == 0)
