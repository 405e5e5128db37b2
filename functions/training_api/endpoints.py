"""The endpoints of the routes below `/v1/trainings`."""

from typing import Annotated

import msgspec

from functions.training_api import requests
from functions.training_api.launcher import Launcher
from functions.training_api.start import TrainingStarter
from functions.training_api.training_status import TRAININGS_PATH, TrainingStatusReader
from pilotlight.api.http import Request, Response
from pilotlight.api.powertools_router import Query, RunName, TypedRoutes
from pilotlight.api.schemas.training import ACTIVE_STATES, CancelTrainingBody, TrainingList, TrainingLog
from pilotlight.contracts.codec import format_utc_now
from pilotlight.errors import ConflictError, NotFoundError, UnsupportedError
from pilotlight.storage.object_store import ObjectStore
from pilotlight.training_runs.jobs import StopRequest, TrainingJob, open_job_document

MAX_COUNT = 99_999  # trainings to skip
DEFAULT_LIMIT, MAX_LIMIT = 50, 200  # trainings of one answer: each costs five reads of the store
RETRY_AFTER_S = "5"  # before the state may have changed


class TrainingEndpoints:
    """The endpoints over a store and a launcher."""

    def __init__(self, store: ObjectStore, launcher: Launcher) -> None:
        self._store, self._launcher = store, launcher
        self._status_reader = TrainingStatusReader(store, launcher)

    def routes(self) -> TypedRoutes:
        """Return the endpoints by route and verb."""
        return {
            TRAININGS_PATH: {"GET": self.list_trainings, "POST": self.start_training},
            f"{TRAININGS_PATH}/{{run}}": {"GET": self.show_training},
            f"{TRAININGS_PATH}/{{run}}/log": {"GET": self.read_log},
            f"{TRAININGS_PATH}/{{run}}/cancel": {"POST": self.cancel_training},
        }

    def start_training(self, request: Request) -> Response:
        """Train a recipe: 202 while it runs, 200 if the run has already ended."""
        training_request = requests.parse_training_request(request)
        TrainingStarter(self._store, self._launcher).start(training_request, request.actor)
        return self._to_response(training_request.run)

    def list_trainings(
        self,
        skip: Annotated[int, Query(ge=0, le=MAX_COUNT)] = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_COUNT)] = DEFAULT_LIMIT,
    ) -> Response:
        """List every training, last changed first; at most `MAX_LIMIT` at once."""
        found, total = self._status_reader.list_newest(skip, min(limit, MAX_LIMIT))
        behind = skip + len(found)
        return Response.json(TrainingList(found, total, behind if found and behind < total else None))

    def show_training(self, run: RunName) -> Response:
        """Show a training: state, attempts, epochs, metrics, the published version."""
        return Response.json(self._status_reader.read_detail(run))

    def read_log(self, run: RunName, token: str = "") -> Response:
        """Read the next lines of its log."""
        snapshot = self._status_reader.read_snapshot(run)
        job = self._require_job(snapshot.job, run)
        end = job.end.log if job.end else snapshot.job_status.log if snapshot.job_status else ""
        if not job.id:
            return Response.json(TrainingLog([], token, ended=snapshot.is_over))
        page = self._launcher.read_log(job.id, end, token)
        return Response.json(TrainingLog(page.lines, page.token, ended=snapshot.is_over and not page.lines))

    def cancel_training(self, request: Request, run: RunName, body: CancelTrainingBody) -> Response:
        """Stop a training by SIGTERM: it saves a checkpoint and ends."""
        snapshot = self._status_reader.read_snapshot(run)
        self._require_job(snapshot.job, run)
        if snapshot.state not in ACTIVE_STATES:
            raise ConflictError(f"The training {run!r} is not under way: {snapshot.state}. {snapshot.reason}".strip())
        stop = StopRequest(request.actor, format_utc_now(), body.why)
        job = open_job_document(self._store, run).update(
            lambda old: old if old.stop else msgspec.structs.replace(old, stop=stop)
        )
        if job.id:
            self._launcher.stop_job(job.id, body.why)
        return self._to_response(run)

    def _to_response(self, name: str) -> Response:
        detail = self._status_reader.read_detail(name)
        is_under_way = detail.state in ACTIVE_STATES
        again = {"retry-after": RETRY_AFTER_S} if is_under_way else {}
        return Response.json(detail, 202 if is_under_way else 200, location=detail.links.self, **again)

    def _require_job(self, job: TrainingJob | None, name: str) -> TrainingJob:
        """Return the run's job, if it belongs to this stack's launcher."""
        if job is None:
            open_job_document(self._store, name).read_or_none()  # raises `BrokenDocumentError` for a broken one
            raise NotFoundError(f"The run {name!r} was not started over HTTP, and its log is where it was started.")
        if job.launcher != self._launcher.name:
            raise UnsupportedError(
                f"The run {name!r} is of the launcher {job.launcher}, this is {self._launcher.name}."
            )
        return job
