"""Record a sampled share of the requests: the handler's thread queues them, another thread writes them to the store.

The handler only draws a random number and, for a sampled request, appends to a queue. The other thread extracts
features, masks, compresses and writes; it is woken when the answer is ready. Lambda freezes it as soon as the answer is
sent, so a write may finish during a later request, or never. Therefore the first lines of an environment, and any lines
that come `seconds` after the last write, are written at once, and the others once in `seconds`: an environment that
ends loses the lines of its last `seconds` (infra/decisions/0038). Memory is bounded: samples that do not fit are
counted and dropped.
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
from pilotlight.capture.masking import CaptureSample
from pilotlight.capture.record import capture_path
from pilotlight.contracts.manifest import Manifest
from pilotlight.errors import AlreadyExistsError, InvalidInputError, PilotlightError
from pilotlight.observability.emf import count
from pilotlight.runtime.datatypes import Array
from pilotlight.storage.object_store import ObjectStore

LOG = logging.getLogger("pilotlight.capture")
MAX_WAITING, MAX_WAITING_BYTES = 256, 16_000_000  # samples that the thread has not taken yet, at most
MAX_FILE_BYTES = 1_000_000  # of lines, at which they are written early
KEY_RETRY_S = 600.0  # before the key of the hashes is looked for again
GZIP_LEVEL = 6
MAX_PENDING_BYTES = 16_000_000  # of lines of all tenants and versions, at which all of them are written early
Group = tuple[str, str, int]  # tenant, model and version, whose lines share a file


@dataclass
class PendingRecords:
    """Lines of a tenant's requests to a version that are not written yet."""

    last_written: float = -math.inf  # on the recorder's clock, when such lines were last written
    lines: list[bytes] = field(default_factory=list)
    size_bytes: int = 0

    def is_due(self, now: float, seconds: float) -> bool:
        """Return whether the lines must be written now."""
        return bool(self.lines) and (self.size_bytes >= MAX_FILE_BYTES or now - self.last_written >= seconds)


class CaptureRecorder:
    """The recorder of one environment."""

    def __init__(
        self,
        store: Callable[[], ObjectStore],
        rate: float,
        seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Create a recorder for a share `rate` of the requests, 0 to 1; it writes a version's lines every `seconds`."""
        self.rate = rate
        self._store, self._seconds, self._clock, self._chance = store, seconds, clock, chance
        self._waiting: deque[CaptureSample] = deque()
        self._waiting_bytes = 0  # of the samples in the queue
        self._overflow_count = 0  # samples that did not fit
        self._condition = threading.Condition()
        self._busy = False
        self._pending: dict[Group, PendingRecords] = {}
        self._thread: threading.Thread | None = None
        self._environment_id = ""  # set at the first write: environments that start from one snapshot must differ
        self._file_number = 0
        self._key: bytes | None = None
        self._key_retry_at = -math.inf  # on the clock, for a key that did not exist

    def offer(
        self,
        manifest: Manifest,
        tensors: Mapping[str, Array],
        feeds: Mapping[str, Array],
        results: Mapping[str, Array],
        tenant: str = "",
    ) -> None:
        """Queue this request if it is sampled; the arrays must not change any more."""
        if self._chance() >= self.rate or masking.get_capture_policy(manifest).keep == "off":
            return
        sample = CaptureSample(
            manifest, tensors if masking.needs_tensors(manifest) else {}, feeds, results, time.time(), tenant
        )
        size_bytes = sample.size_bytes
        with self._condition:
            if len(self._waiting) >= MAX_WAITING or self._waiting_bytes + size_bytes > MAX_WAITING_BYTES:
                self._overflow_count += 1
                return
            self._waiting.append(sample)
            self._waiting_bytes += size_bytes

    def notify(self) -> None:
        """Wake the thread, because the answer is ready."""
        if not self._waiting:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run_loop, daemon=True, name="pilotlight-capture")
            self._thread.start()
        with self._condition:
            self._condition.notify_all()

    def drain(self) -> None:
        """Wait until the queue is empty and due lines are written; for callers with time, such as the batch worker."""
        self.notify()
        with self._condition:
            self._condition.wait_for(self._is_idle)

    def flush(self) -> None:
        """Write everything now, and return when it is written."""
        self.notify()
        with self._condition:
            self._condition.wait_for(self._is_idle)
            self._write_due(self._clock(), everything=True)

    def _is_idle(self) -> bool:
        return not self._waiting and not self._busy

    def _run_loop(self) -> None:
        while True:
            try:
                self._process_waiting()
            except Exception:  # the last resort: no caller awaits this thread; the trace shows code, never values
                LOG.exception("Keeping a request failed")

    def _process_waiting(self) -> None:
        """Turn the queued samples into lines, and write what is due."""
        with self._condition:
            self._condition.wait_for(lambda: bool(self._waiting), self._seconds_until_due())
            taken, self._busy = list(self._waiting), True
            self._waiting.clear()
            self._waiting_bytes = 0
            overflow, self._overflow_count = self._overflow_count, 0
        try:
            if overflow:
                count_lost(f"{overflow} requests came faster than they could be described")
            for sample in taken:
                self._append_record(sample)
            self._write_due(self._clock())
        finally:
            with self._condition:
                self._busy = False
                self._condition.notify_all()

    def _seconds_until_due(self) -> float | None:
        """Return how long the thread may sleep until a write is due; None until it is woken."""
        dues = [pending.last_written + self._seconds for pending in self._pending.values() if pending.lines]
        return max(0.0, min(dues) - self._clock()) if dues else None

    def _append_record(self, sample: CaptureSample) -> None:
        """Append a sample's line; an error is reported without a byte of the sample."""
        try:
            record = msgspec.json.encode(masking.build_record(sample, self._get_hash_key(sample))) + b"\n"
        except PilotlightError as exc:
            count_lost(
                type(exc).__name__ if isinstance(exc, InvalidInputError) else str(exc)
            )  # InvalidInputError may quote a value
            return
        except Exception as exc:  # noqa: BLE001 - capture never fails a request, and the message may quote a value
            count_lost(type(exc).__name__)
            return
        group = sample.tenant, sample.manifest.name, sample.manifest.version
        pending = self._pending.setdefault(group, PendingRecords())
        pending.lines.append(record)
        pending.size_bytes += len(record)

    def _get_hash_key(self, sample: CaptureSample) -> bytes | None:
        """Return the key of the hashes if it exists; look for it again after `KEY_RETRY_S`."""
        if self._key is None and masking.has_hashed_fields(sample.manifest) and self._clock() >= self._key_retry_at:
            self._key_retry_at = self._clock() + KEY_RETRY_S
            self._key = hashing.load_hash_key(self._store())
        return self._key

    def _write_due(self, now: float, *, everything: bool = False) -> None:
        everything |= sum(pending.size_bytes for pending in self._pending.values()) >= MAX_PENDING_BYTES
        for group, pending in self._pending.items():
            if pending.lines and (everything or pending.is_due(now, self._seconds)):
                self._write_file(group, b"".join(pending.lines))
                self._pending[group] = PendingRecords(now)
        self._pending = {  # one that is forgotten would be due anyway
            group: pending
            for group, pending in self._pending.items()
            if pending.lines or now - pending.last_written < self._seconds
        }

    def _write_file(self, group: Group, content: bytes) -> None:
        """Write a file of lines, create-only; an existing file is from an earlier attempt whose answer was lost."""
        self._environment_id = self._environment_id or uuid4().hex[:12]
        tenant, model, version = group
        path = capture_path(model, version, datetime.now(UTC), self._environment_id, self._file_number, tenant)
        self._file_number += 1
        try:
            self._store().create(path, gzip.compress(content, GZIP_LEVEL))
        except AlreadyExistsError:
            LOG.info("%s was written by an attempt before", path)
        except PilotlightError as exc:
            count_lost(str(exc))


def count_lost(reason: str) -> None:
    """Count a loss with its reason, without a byte of the sample."""
    count("CaptureLost", {"why": reason})
