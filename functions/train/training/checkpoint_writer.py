"""Write checkpoints in the background, one at a time, while the training goes on.

The state that is written is a copy on the CPU, so that the next steps may change everything. A write that fails is
tried again, and told; the training goes on, and the next interval writes the next state.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from functions.train.training.checkpoint import CheckpointStore, MessageCallback
from functions.train.training.state import TrainerState
from pilotlight.errors import StoreError

PAUSES_S = (1.0, 5.0)  # before the second and the third attempt


class CheckpointWriter:
    """Writes the states of one training; its methods are called by the thread of the training."""

    def __init__(
        self,
        checkpoints: CheckpointStore,
        on_message: MessageCallback,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._checkpoints, self._on_message, self._sleep = checkpoints, on_message, sleep
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="pilotlight-checkpoint")
        self._running: Future[float] | None = None
        self._running_step = 0
        self._messages: list[str] = []  # of the background, to be told by the training's thread
        self.written_step: int | None = None  # of the newest checkpoint that is complete
        self.write_seconds = 0.0  # that it took

    @property
    def is_writing(self) -> bool:
        """Whether a write is in flight."""
        return self._running is not None and not self._running.done()

    def start(self, state: TrainerState) -> None:
        """Start to write a state; waits for the former write to end, if it has not."""
        self.wait()
        self._running_step = state.position.step
        self._running = self._threads.submit(self._write, state)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the write in flight, for ever or for some seconds; return whether none is left in flight."""
        if self._running is not None:
            wait([self._running], seconds)
        self.report()
        return not self.is_writing

    def report(self) -> None:
        """Report what the background has to say, and take notice of a write that has ended."""
        while self._messages:
            self._on_message(self._messages.pop(0))
        if self._running is None or self.is_writing:
            return
        ended, self._running = self._running, None
        error = ended.exception()
        if error is None:
            self.written_step, self.write_seconds = self._running_step, ended.result()
        elif isinstance(error, StoreError):
            self._on_message(
                f"the checkpoint of step {self._running_step} could not be written, and the training goes on without "
                f"it: {error}"
            )
        else:
            raise error

    def write(self, state: TrainerState) -> None:
        """Write a state now, after the one in flight; `StoreError` when the store fails three times."""
        self.wait()
        self.write_seconds = self._write(state)
        self.written_step = state.position.step
        self.report()

    def _write(self, state: TrainerState) -> float:
        """Write a state, up to three times; return the seconds that it took."""
        started = time.monotonic()
        for pause in PAUSES_S:
            try:
                self._checkpoints.write_state(state)
            except StoreError as exc:
                self._messages.append(
                    f"the checkpoint of step {state.position.step} is written again in {pause:g} s: {exc}"
                )
                self._sleep(pause)
            else:
                return time.monotonic() - started
        self._checkpoints.write_state(state)
        return time.monotonic() - started
