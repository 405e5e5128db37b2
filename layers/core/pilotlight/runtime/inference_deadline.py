"""Stop inferences that still run when their request has no time left.

This module depends on sessions and deadlines, not on requests. onnxruntime checks the flag between two nodes of the
graph, so a very long node is not interrupted.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from math import inf

from pilotlight.errors import DeadlineError, InvalidInputError
from pilotlight.runtime.datatypes import Array
from pilotlight.runtime.session import RunOptions, Session, create_run_options

POLL_SECONDS = 0.25  # s between two checks; waking this thread for each request would cost more than most inferences


class DeadlineRunner:
    """Runs inferences that one thread watches; the first inference with a deadline starts it."""

    def __init__(self) -> None:
        self._running: dict[int, tuple[float, RunOptions]] = {}  # deadline and options, by the identity of the options
        self._thread: threading.Thread | None = None

    def run(
        self, session: Session, feeds: Mapping[str, Array], outputs: Sequence[str], deadline: float = inf
    ) -> dict[str, Array]:
        """Run as `Session.run`, but raise `DeadlineError` soon after `deadline`, on time.monotonic's clock."""
        if deadline == inf:
            return session.run(feeds, outputs)
        options = create_run_options()
        self._running[id(options)] = deadline, options
        if self._thread is None:
            self._thread = threading.Thread(target=self._stop_overdue_runs, daemon=True, name="pilotlight-watch")
            self._thread.start()
        try:
            return session.run(feeds, outputs, options)
        except InvalidInputError as exc:
            if options.terminate:
                raise DeadlineError(
                    "The model was still computing when the time of this request was over; send fewer items at once, "
                    "or raise MemorySize in template.yaml (parameter ModelMemory), with which the vCPU share grows."
                ) from exc
            raise
        finally:
            del self._running[id(options)]

    def _stop_overdue_runs(self) -> None:
        while True:
            time.sleep(POLL_SECONDS)
            now = time.monotonic()
            for deadline, options in list(self._running.values()):
                if now >= deadline:
                    options.terminate = True
