"""Trainings as processes of this machine, beside the local gateway: `python -m functions.train`, as `pilotlight train`.

    <trainings>/<job>.json   its process id and its run
    <trainings>/<job>.log    its output

A process outlives the environment that started it, and the gateway. It holds a lock on its log while it lives, which
the kernel releases when it dies: so a reused process id is never taken for a training.
"""

import fcntl
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from msgspec import Struct

from functions.training_api.launcher import JobStatus, LogPage, format_recipe_source
from pilotlight.contracts.codec import decode_document, encode_document
from pilotlight.contracts.names import NAME_PATTERN, check_name
from pilotlight.errors import InvalidInputError, LimitExceededError, UnavailableError

MAX_TRAININGS = 2  # at once; each takes all cores and the memory of a model
RETRY_AFTER_S = 60
PAGE_BYTES = 256 * 1024  # of a log at once
PREFIX = "local-"
LOCK_FILE = "starting.lock"
EXCLUDED_VARIABLES = ("AWS_LAMBDA_", "_HANDLER", "LAMBDA_TASK_ROOT", "TMPDIR")  # of an environment, which ends earlier


class TrainingProcess(Struct, frozen=True):
    """A training's process."""

    pid: int
    run: str
    at: float  # s since 1970, when it was started


class LocalLauncher:
    """The launcher of a machine without a queue. `store` is the URL that the process opens, `folder` keeps its log.

    At most `max_trainings` run at once, whoever started them: there is no queue in which more could wait.
    """

    name = "local"

    def __init__(self, store: str, folder: Path, max_trainings: int = MAX_TRAININGS) -> None:
        self._store, self._folder, self._max_trainings = store, folder, max_trainings

    def check_nodes(self, nodes: int) -> None:
        """Check that this machine can train on so many nodes."""
        if nodes > 1:
            raise InvalidInputError(f"nodes is {nodes}; a training here is a process of this one machine.")
        if find_spec("torch") is None:
            raise UnavailableError("Training needs torch, which is not installed here; pip install -e '.[train]'.")
        if self._store.startswith("memory:"):
            raise UnavailableError("Another process cannot see the store memory://; set PILOTLIGHT_STORE to a folder.")

    def start_job(self, run: str, nodes: int) -> str:
        """Start a process in its own session, so that it is not killed with the process that started it.

        `LimitExceededError` if as many trainings as may be are running.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / LOCK_FILE).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # until the process holds its log, so that another request counts it
            self._check_room()
            return self._start_process(run)

    def _check_room(self) -> None:
        running = [file.stem for file in self._folder.glob(f"{PREFIX}*.log") if self._is_alive(file.stem)]
        if len(running) >= self._max_trainings:
            raise LimitExceededError(
                f"{len(running)} trainings are running here, and {self._max_trainings} may at once. "
                "Wait for one to end, cancel one, or train on AWS Batch, which has a queue.",
                retry_after=RETRY_AFTER_S,
            )

    def _start_process(self, run: str) -> str:
        job = PREFIX + secrets.token_hex(6)
        with self._get_path(job, "log").open("xb") as log:
            fcntl.flock(log, fcntl.LOCK_EX)  # the process inherits it with the file
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "functions.train",
                    format_recipe_source(run),
                    "--store",
                    self._store,
                    "--run",
                    run,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=filter_environment(os.environ),
                start_new_session=True,
            )
        threading.Thread(target=process.wait, daemon=True).start()  # or it would remain a zombie
        self._get_path(job, "json").write_bytes(encode_document(TrainingProcess(process.pid, run, time.time())))
        return job

    def find_job(self, run: str, since: str) -> str | None:
        """Find the job of a live process of the run."""
        for file in sorted(self._folder.glob(f"{PREFIX}*.json")):
            if decode_document(file.read_bytes(), TrainingProcess, str(file)).run == run and self._is_alive(file.stem):
                return file.stem
        return None

    def poll(self, ids: Sequence[str]) -> Mapping[str, JobStatus]:
        """Check whether the processes live; their runs record how they ended."""
        existing = [job for job in ids if self._get_path(job, "log").exists()]
        return {job: self._poll_job(job) for job in existing}

    def read_log(self, job: str, log: str, token: str) -> LogPage:
        """Read the next complete lines of the log; after the process's end, also an incomplete last line."""
        if token and not token.isdecimal():
            raise InvalidInputError(f"token is {token[:60]!r}, which is not one that a log's `next` gave.")
        start, is_alive = int(token or 0), self._is_alive(job)
        with self._get_path(job, "log").open("rb") as file:
            file.seek(start)
            block = file.read(PAGE_BYTES)
        whole_lines = block[: find_end_of_lines(block, is_alive=is_alive)]
        return LogPage(whole_lines.decode(errors="replace").splitlines(), str(start + len(whole_lines)))

    def stop_job(self, job: str, reason: str) -> None:
        """Send SIGTERM: the process saves a checkpoint and ends."""
        if self._is_alive(job):
            process = decode_document(self._get_path(job, "json").read_bytes(), TrainingProcess, job)
            os.kill(process.pid, signal.SIGTERM)

    def _poll_job(self, job: str) -> JobStatus:
        is_alive = self._is_alive(job)
        return JobStatus(
            "running" if is_alive else "over", "RUNNING" if is_alive else "ENDED", attempts=1, log=f"{job}.log"
        )

    def _is_alive(self, job: str) -> bool:
        """Return whether a process holds the lock on the job's log."""
        try:
            with self._get_path(job, "log").open("rb") as log:
                fcntl.flock(log, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        return False

    def _get_path(self, job: str, suffix: str) -> Path:
        return self._folder / f"{check_name(job, f'job, which must match {NAME_PATTERN}')}.{suffix}"


def find_end_of_lines(part: bytes, *, is_alive: bool) -> int:
    """Find where a block's last complete line ends; a line of a dead process, or one too long, is complete."""
    last = part.rfind(b"\n") + 1
    is_full = len(part) == PAGE_BYTES
    return len(part) if (not is_full and not is_alive) or (is_full and not last) else last


def filter_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Remove the variables that a training must not inherit."""
    return {name: value for name, value in variables.items() if not name.startswith(EXCLUDED_VARIABLES)}
