"""What to do after a fault that is not the program's: whether AWS Batch is to start the run again.

A GPU that fails and a process that is lost end a training in its middle. It goes on from its last checkpoint, so that
the exit code is 75, on which Batch retries, but only where there is a checkpoint that is newer than at the last such
fault: a fault that repeats at the same place is the program's after all, and ends the run.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

from pilotlight.contracts.codec import format_utc_now
from pilotlight.errors import BrokenDocumentError
from pilotlight.storage.documents import Document
from pilotlight.storage.object_store import ObjectStore
from pilotlight.training_runs import run_store

RETRY, GIVE_UP = 75, 1  # exit codes: EX_TEMPFAIL, and a program that is wrong
FAULT = 76  # of a process among several, which leaves the decision to the launcher; never the job's
MAIN_TRAINING = 1_000_000  # comes after the folds of a cross-validation
CHECKPOINT = re.compile(r"/(?:folds/(?P<fold>\d+)/)?checkpoints/step-(?P<step>\d+)/manifest\.json$")
MEMORY_EVENTS = Path("/sys/fs/cgroup/memory.events")  # of the container; has a line `oom_kill N`
# Words of an error of a device or its driver that another machine, or another attempt, may not have.
DEVICE_FAULT_WORDS = ("CUDA error", "Xid", "ECC", "CUBLAS_STATUS_EXECUTION_FAILED", "CUDNN_STATUS_EXECUTION_FAILED")
# Those among them that repeat: wrong labels, a wrong launch, a wheel for other GPUs, too little memory.
PROGRAM_ERROR_WORDS = ("device-side assert", "out of memory", "no kernel image", "invalid", "not supported")


class Progress(NamedTuple):
    """How far the newest complete checkpoint is: first by its training, then by its step."""

    training: int
    step: int


class FaultRecord(Struct, frozen=True, kw_only=True):
    """The last fault of a run, `runs/<run>/fault.json`."""

    training: int  # the fold's number, or a million for the training itself
    step: int  # of the newest checkpoint then
    count: int  # of faults so far
    reason: str
    at: str  # RFC 3339, UTC


def decide_retry(store: ObjectStore, run_name: str | None, reason: str, on_message: Callable[[str], object]) -> int:
    """Return 75 where the run has made progress since its last fault, and record this one; 1 otherwise."""
    progress = find_progress(store, run_name) if run_name else None
    if run_name is None or progress is None:
        on_message("There is no checkpoint to go on from, so that the exit code is 1, on which Batch does not retry.")
        return GIVE_UP
    document = Document(store, run_store.run_path(run_name, "fault.json"), FaultRecord)
    former = document.read_or_error()
    if isinstance(former, FaultRecord) and progress <= (former.training, former.step):
        on_message(
            f"There is no checkpoint after step {progress.step}, where the run was at its last fault ({former.reason}) "
            "too: it repeats, so that the exit code is 1, on which Batch does not retry."
        )
        return GIVE_UP
    count = 0 if former is None or isinstance(former, BrokenDocumentError) else former.count
    training, step = progress
    document.write(FaultRecord(training=training, step=step, count=count + 1, reason=reason, at=format_utc_now()))
    on_message(f"The run goes on from its checkpoint of step {step}: the exit code is 75, on which Batch retries.")
    return RETRY


def find_progress(store: ObjectStore, run_name: str) -> Progress | None:
    """Find how far a run's newest complete checkpoint is; None where it has none."""
    found = filter(None, map(CHECKPOINT.search, store.list_paths(run_store.run_path(run_name, "").rstrip("/"))))
    places = [Progress(int(one["fold"] or MAIN_TRAINING), int(one["step"])) for one in found]
    return max(places, default=None)


def is_device_fault(error: BaseException) -> bool:
    """Return whether an error is a device's, as a memory error that ECC could not correct, and not the program's."""
    text = str(error)
    return any(word in text for word in DEVICE_FAULT_WORDS) and not any(word in text for word in PROGRAM_ERROR_WORDS)


def count_oom_kills(events: Path = MEMORY_EVENTS) -> int:
    """Count the processes of this container that the kernel has killed for lack of memory; 0 where it does not say."""
    try:
        lines = [line.split() for line in events.read_text().splitlines()]
    except OSError:
        return 0
    return sum(int(count) for name, count in lines if name == "oom_kill")
