"""Stores of each kind, a queue that does what it is told, and the routes over both."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from functions.training_api.handler import TrainingApi
from functions.training_api.launcher import JobPhase, JobStatus, LogPage
from pilotlight.contracts.codec import encode_document
from pilotlight.contracts.run import PublishedVersion, RunStatus
from pilotlight.errors import UnavailableError, UnsupportedError
from pilotlight.storage.object_store import ObjectStore
from pilotlight.training_runs import jobs, run_store
from tests import fakes

ANN = "arn:aws:iam::1:user/ann"


class Queue:
    """A launcher whose jobs are where a test puts them."""

    name = "batch"

    def __init__(self) -> None:
        self.started: list[tuple[str, int]] = []
        self.stopped: list[tuple[str, str]] = []
        self.looks: dict[str, JobStatus] = {}
        self.logs: dict[str, list[str]] = {}
        self.refusal = ""
        self.meanwhile: Callable[[], object] = lambda: None  # what happens while it takes a job
        self.deaf = False  # takes a job, and its answer is lost

    def check_nodes(self, nodes: int) -> None:
        if nodes > 8:
            raise UnsupportedError("No queue has so many machines.")

    def start_job(self, run: str, nodes: int) -> str:
        if self.refusal:
            raise UnavailableError(self.refusal)
        self.meanwhile()
        self.started.append((run, nodes))
        job = f"job-{len(self.started)}"
        self.move(job, "waiting")
        if self.deaf:
            raise KeyboardInterrupt  # as a function that is killed: nothing is written afterwards
        return job

    def find_job(self, run: str, since: str) -> str | None:
        found = [f"job-{place}" for place, (name, _) in enumerate(self.started, 1) if name == run]
        return found[-1] if found else None

    def poll(self, ids: Sequence[str]) -> Mapping[str, JobStatus]:
        return {job: self.looks[job] for job in ids if job in self.looks}

    def read_log(self, job: str, log: str, token: str) -> LogPage:
        begin = int(token or 0)
        lines = self.logs.get(job, [])[begin:]
        return LogPage(lines, str(begin + len(lines)))

    def stop_job(self, job: str, reason: str) -> None:
        self.stopped.append((job, reason))

    def move(self, job: str, phase: JobPhase, word: str = "", reason: str = "") -> None:
        """Put a job into another state."""
        word = word or {"waiting": "RUNNABLE", "running": "RUNNING", "over": "FAILED"}[phase]
        self.looks[job] = JobStatus(phase, word, reason, attempts=1, log=f"train/{job}")


class Api:
    """The routes of one environment over a store and a queue, called as the gateway would: one request at a time."""

    def __init__(self, store: ObjectStore, queue: Queue | None = None) -> None:
        self.store, self.queue = store, queue or Queue()
        self.handle = TrainingApi(store, self.queue)

    def __call__(self, method: str, path: str, body: object = None, *, by: str = ANN) -> tuple[int, Any]:
        where, _, query = path.partition("?")
        sent = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        asked = dict(pair.split("=", 1) for pair in query.split("&")) if query else None
        event = fakes.event(self.handle._routes, method, where, sent, None, asked)
        event["requestContext"] = {"identity": {"userArn": by, "sourceIp": "192.0.2.7"}}
        answer = self.handle(event, None)
        return answer["statusCode"], json.loads(answer["body"])

    def start(self, run: str = "monday", **more: object) -> tuple[int, Any]:
        """Train digits."""
        return self("POST", "/v1/trainings", {"recipe": "digits", "run": run, **more})

    def show(self, run: str = "monday") -> Any:  # noqa: ANN401 - JSON
        """The training, as its route shows it."""
        status, body = self("GET", f"/v1/trainings/{run}")
        assert status == 200, body
        return body

    def say(self, run: str, state: Any, reason: str = "", at: str = "") -> None:  # noqa: ANN401 - a word of `State`
        """What a trainer writes of itself."""
        told = RunStatus(state=state, started=now(), at=at or now(), seconds=3.5, reason=reason)
        self.store.put(run_store.run_path(run, "status.json"), encode_document(told))

    def publish(self, run: str, reference: str) -> None:
        """What a trainer writes in the end."""
        self.store.put(run_store.run_path(run, "published.json"), encode_document(PublishedVersion(reference)))

    def tell(self, **detail: object) -> str:
        """An event of Batch; what was done."""
        event = json.loads((fakes.EVENTS / "batch-job-failed.json").read_text())
        event["detail"] |= detail
        return str(self.handle(event, None)["done"][0])

    def job(self, run: str = "monday") -> jobs.TrainingJob:
        """The run's job as it is written down."""
        found = jobs.open_job_document(self.store, run).read_or_none()
        assert found is not None
        return found


def now() -> str:
    return datetime.now(UTC).isoformat()


@pytest.fixture
def api(store: ObjectStore) -> Api:
    """The routes over an empty store of each kind."""
    return Api(store)
