"""What each route below `/v1/trainings` answers."""

import msgspec

from functions.training_api import requests
from functions.training_api.launcher import Launcher
from functions.training_api.start import TrainingStarter
from functions.training_api.training_status import TRAININGS_PATH, TrainingStatusReader
from pilotlight.api.http import UNKNOWN_CALLER, Request, Response
from pilotlight.api.router import Routes
from pilotlight.api.schemas import registry
from pilotlight.api.schemas.training import ACTIVE_STATES, CancelTrainingBody, TrainingList, TrainingLog
from pilotlight.contracts.codec import format_utc_now
from pilotlight.contracts.names import check_name
from pilotlight.errors import ConflictError, NotFoundError, UnsupportedError
from pilotlight.storage.object_store import ObjectStore
from pilotlight.training_runs import jobs
from pilotlight.training_runs.jobs import StopRequest, TrainingJob

DEFAULT_LIMIT, MAX_LIMIT = 50, 200  # trainings of one answer: each costs five reads of the store
RETRY_AFTER_S = "5"  # after which it is worth to look again


class TrainingEndpoints:
    """Trainings over a store and a launcher."""

    def __init__(self, store: ObjectStore, launcher: Launcher) -> None:
        self._store, self._launcher = store, launcher
        self._status_reader = TrainingStatusReader(store, launcher)

    def routes(self) -> Routes:
        """The table of routes, spelled as in template.yaml."""
        return {
            TRAININGS_PATH: {"GET": self.list_trainings, "POST": self.start_training},
            f"{TRAININGS_PATH}/{{run}}": {"GET": self.show_training},
            f"{TRAININGS_PATH}/{{run}}/log": {"GET": self.read_log},
            f"{TRAININGS_PATH}/{{run}}/cancel": {"POST": self.cancel_training},
        }

    def start_training(self, request: Request) -> Response:
        """Train a recipe: 202 while it is under way, 200 where the run has ended before."""
        training_request = requests.parse_training_request(request)
        TrainingStarter(self._store, self._launcher).start(training_request, request.caller or UNKNOWN_CALLER)
        return self._to_response(training_request.run)

    def list_trainings(self, request: Request) -> Response:
        """Every training, those first that changed last."""
        skip, limit = (
            registry.parse_query_number(request.query, "skip", 0, minimum=0),
            min(registry.parse_query_number(request.query, "limit", DEFAULT_LIMIT), MAX_LIMIT),
        )
        found, total = self._status_reader.list_newest(skip, limit)
        behind = skip + len(found)
        return Response.json(TrainingList(found, total, behind if found and behind < total else None))

    def show_training(self, request: Request) -> Response:
        """A training: state, attempts, epochs, metrics, the version that came out."""
        return Response.json(self._status_reader.read_detail(parse_run_name(request)))

    def read_log(self, request: Request) -> Response:
        """The next lines of its log."""
        snapshot = self._status_reader.read_snapshot(parse_run_name(request))
        job = self._require_job(snapshot.job, parse_run_name(request))
        end = job.end.log if job.end else snapshot.job_status.log if snapshot.job_status else ""
        token = request.query.get("token", "")
        if not job.id:
            return Response.json(TrainingLog([], token, ended=snapshot.is_over))
        page = self._launcher.read_log(job.id, end, token)
        return Response.json(TrainingLog(page.lines, page.token, ended=snapshot.is_over and not page.lines))

    def cancel_training(self, request: Request) -> Response:
        """Stop a training: SIGTERM, upon which it saves a checkpoint and ends."""
        name, body = (
            parse_run_name(request),
            registry.parse_body(request.body, CancelTrainingBody, "an order to cancel"),
        )
        snapshot = self._status_reader.read_snapshot(name)
        self._require_job(snapshot.job, name)
        if snapshot.state not in ACTIVE_STATES:
            raise ConflictError(f"The training {name!r} is not under way: {snapshot.state}. {snapshot.reason}".strip())
        stop = StopRequest(request.caller or UNKNOWN_CALLER, format_utc_now(), body.why)
        job = jobs.update_job(
            self._store, name, lambda old: old if old.stop else msgspec.structs.replace(old, stop=stop)
        )
        if job.id:
            self._launcher.stop_job(job.id, body.why)
        return self._to_response(name)

    def _to_response(self, name: str) -> Response:
        detail = self._status_reader.read_detail(name)
        is_under_way = detail.state in ACTIVE_STATES
        again = {"retry-after": RETRY_AFTER_S} if is_under_way else {}
        return Response.json(detail, 202 if is_under_way else 200, location=detail.links.self, **again)

    def _require_job(self, job: TrainingJob | None, name: str) -> TrainingJob:
        """The run's job, if this stack's launcher has it."""
        if job is None:
            raise NotFoundError(f"The run {name!r} was not started over HTTP, and its log is where it was started.")
        if job.launcher != self._launcher.name:
            raise UnsupportedError(
                f"The run {name!r} is of the launcher {job.launcher}, this is {self._launcher.name}."
            )
        return job


def parse_run_name(request: Request) -> str:
    """The run that the path names."""
    return check_name(request.parameters["run"], "run's name")
