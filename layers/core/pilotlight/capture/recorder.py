"""From the handler's thread to the store: a share of the requests, kept by another thread.

The handler's part is a draw and, for the sampled ones, a place in a list; features, masking, compression and the write
are the other thread's, which is woken when the answer is ready. Lambda freezes it as soon as the answer is sent, so a
write may be finished during a later request, or never. Therefore the first lines of an environment, and any that come
`seconds` after the last write, are written at once, and the others once in `seconds`: an environment that dies takes
those of its last `seconds` along (infra/decisions/0038). Memory is bounded: what does not fit is counted and let go.
"""

import gzip
import logging
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import uuid4

import msgspec

from pilotlight.capture import hashing, masking
from pilotlight.capture import record as lines
from pilotlight.capture.masking import Sample
from pilotlight.contracts.manifest import Manifest
from pilotlight.errors import AlreadyExistsError, InvalidInputError, PilotlightError
from pilotlight.observability.emf import count
from pilotlight.runtime.session import Array
from pilotlight.storage.object_store import ObjectStore

LOG = logging.getLogger("pilotlight.capture")
WAITING, WAITING_BYTES = 256, 16_000_000  # samples that the thread has not come to, at most
FILE_BYTES = 1_000_000  # of lines, at which they are written before their time
LOOK_AGAIN_S = 600.0  # for the key of the hashes
LEVEL = 6  # of gzip
Version = tuple[str, int]


@dataclass
class Pending:
    """Lines of a version that wait to be written."""

    written: float = -math.inf  # on the recorder's clock, when lines of this version were last written
    lines: list[bytes] = field(default_factory=list)
    bytes: int = 0

    def due(self, now: float, seconds: float) -> bool:
        """Whether they must wait no longer."""
        return bool(self.lines) and (self.bytes >= FILE_BYTES or now - self.written >= seconds)


class Recorder:
    """What one environment keeps of the requests to it."""

    def __init__(
        self,
        store: Callable[[], ObjectStore],
        rate: float,
        seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`rate` is the share of requests, from 0 to 1; `seconds` pass between two writes of a version's lines."""
        self.rate = rate
        self._store, self._seconds, self._clock, self._chance = store, seconds, clock, chance
        self._waiting: deque[Sample] = deque()
        self._bytes = 0  # of what waits
        self._overflow = 0  # samples that did not fit
        self._woken = threading.Condition()
        self._busy = False
        self._pending: dict[Version, Pending] = {}
        self._thread: threading.Thread | None = None
        self._environment = ""  # named at the first write: environments that start from one snapshot must differ
        self._number = 0
        self._key: bytes | None = None
        self._look_again = -math.inf  # on the clock, for a key that was not there

    def offer(
        self, manifest: Manifest, tensors: Mapping[str, Array], feeds: Mapping[str, Array], results: Mapping[str, Array]
    ) -> None:
        """Perhaps keep this request; the arrays must not change any more."""
        if self._chance() >= self.rate or masking.policy(manifest).keep == "off":
            return
        sample = Sample(manifest, tensors if masking.wants_tensors(manifest) else {}, feeds, results, time.time())
        held = sample.bytes
        with self._woken:
            if len(self._waiting) >= WAITING or self._bytes + held > WAITING_BYTES:
                self._overflow += 1
                return
            self._waiting.append(sample)
            self._bytes += held

    def wake(self) -> None:
        """The answer is ready: see to what waits."""
        if not self._waiting:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True, name="pilotlight-capture")
            self._thread.start()
        with self._woken:
            self._woken.notify_all()

    def catch_up(self) -> None:
        """Return when nothing waits to be described or written that is due: for who has time, as a queue's function."""
        self.wake()
        with self._woken:
            self._woken.wait_for(self._idle)

    def settle(self) -> None:
        """Write everything now, and return when it is written."""
        self.wake()
        with self._woken:
            self._woken.wait_for(self._idle)
            self._write(self._clock(), everything=True)

    def _idle(self) -> bool:
        return not self._waiting and not self._busy

    def _work(self) -> None:
        while True:
            try:
                self._turn()
            except Exception:  # the last resort: nobody awaits this thread; the trace shows code, never values
                LOG.exception("Keeping a request failed")

    def _turn(self) -> None:
        """Take what waits and make lines of it; write what is due."""
        with self._woken:
            self._woken.wait_for(lambda: bool(self._waiting), self._rest())
            taken, self._busy = list(self._waiting), True
            self._waiting.clear()
            self._bytes = 0
            overflow, self._overflow = self._overflow, 0
        try:
            if overflow:
                lost(f"{overflow} requests came faster than they could be described")
            for sample in taken:
                self._note(sample)
            self._write(self._clock())
        finally:
            with self._woken:
                self._busy = False
                self._woken.notify_all()

    def _rest(self) -> float | None:
        """How long the thread may sleep until something is due; None for as long as nobody wakes it."""
        dues = [pending.written + self._seconds for pending in self._pending.values() if pending.lines]
        return max(0.0, min(dues) - self._clock()) if dues else None

    def _note(self, sample: Sample) -> None:
        """One sample becomes a line; what goes wrong is told without a byte of it."""
        try:
            written = msgspec.json.encode(masking.line(sample, self._secret(sample))) + b"\n"
        except PilotlightError as exc:
            lost(type(exc).__name__ if isinstance(exc, InvalidInputError) else str(exc))  # the former may quote a value
            return
        except Exception as exc:  # noqa: BLE001 - nobody is failed for this, and the words may quote a value
            lost(type(exc).__name__)
            return
        version = sample.manifest.name, sample.manifest.version
        pending = self._pending.setdefault(version, Pending())
        pending.lines.append(written)
        pending.bytes += len(written)

    def _secret(self, sample: Sample) -> bytes | None:
        """The key of the hashes, once it is there; it is looked for again after a while."""
        if self._key is None and masking.hashes_any(sample.manifest) and self._clock() >= self._look_again:
            self._look_again = self._clock() + LOOK_AGAIN_S
            self._key = hashing.secret(self._store())
        return self._key

    def _write(self, now: float, *, everything: bool = False) -> None:
        for version, pending in self._pending.items():
            if pending.lines and (everything or pending.due(now, self._seconds)):
                self._put(version, b"".join(pending.lines))
                self._pending[version] = Pending(now)

    def _put(self, version: Version, content: bytes) -> None:
        """Write a file of lines, create-only. One that is there already is this one, whose answer got lost."""
        self._environment = self._environment or uuid4().hex[:12]
        path = lines.path(*version, datetime.now(UTC), self._environment, self._number)
        self._number += 1
        try:
            self._store().create(path, gzip.compress(content, LEVEL))
        except AlreadyExistsError:
            LOG.info("%s was written by an attempt before", path)
        except PilotlightError as exc:
            lost(str(exc))


def lost(why: str) -> None:
    """Something was not kept; why, without a byte of it."""
    count("CaptureLost", {"why": why})
