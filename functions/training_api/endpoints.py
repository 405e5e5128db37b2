"""What each route below `/v1/trainings` answers."""

import msgspec

from functions.training_api import requests
from functions.training_api.launcher import Launcher
from functions.training_api.start import Starter
from functions.training_api.training_status import ROOT, Courses
from pilotlight.api.http import Request, Response
from pilotlight.api.router import Routes
from pilotlight.api.schemas import registry
from pilotlight.api.schemas.training import UNDER_WAY, Cancel, Log, Trainings
from pilotlight.contracts.manifest import check_name
from pilotlight.errors import ConflictError, NotFoundError, UnsupportedError
from pilotlight.registry.alias_updates import now
from pilotlight.storage.object_store import ObjectStore
from pilotlight.training_runs import jobs
from pilotlight.training_runs.jobs import Job, Stop

NOBODY = "an unnamed caller"  # the gateway knows no name for one without credentials
SHOWN, MOST = 50, 200  # trainings of one answer: each costs five reads of the store
AGAIN_S = "5"  # after which it is worth to look again


class Endpoints:
    """Trainings over a store and a launcher."""

    def __init__(self, store: ObjectStore, launcher: Launcher) -> None:
        self._store, self._launcher = store, launcher
        self._courses = Courses(store, launcher)

    def routes(self) -> Routes:
        """The table of routes, spelled as in template.yaml."""
        return {
            ROOT: {"GET": self.list, "POST": self.start},
            f"{ROOT}/{{run}}": {"GET": self.show},
            f"{ROOT}/{{run}}/log": {"GET": self.log},
            f"{ROOT}/{{run}}/cancel": {"POST": self.cancel},
        }

    def start(self, request: Request) -> Response:
        """Train a recipe: 202 while it is under way, 200 where the run has ended before."""
        order = requests.take(request)
        Starter(self._store, self._launcher).start(order, request.caller or NOBODY)
        return self._told(order.run)

    def list(self, request: Request) -> Response:
        """Every training, those first that changed last."""
        skip, most = (
            registry.whole(request.query, "skip", 0, least=0),
            min(registry.whole(request.query, "limit", SHOWN), MOST),
        )
        found, total = self._courses.newest(skip, most)
        behind = skip + len(found)
        return Response.json(Trainings(found, total, behind if found and behind < total else None))

    def show(self, request: Request) -> Response:
        """A training: state, attempts, epochs, metrics, the version that came out."""
        return Response.json(self._courses.course(run(request)))

    def log(self, request: Request) -> Response:
        """The next lines of its log."""
        story = self._courses.story(run(request))
        job = self._job(story.job, run(request))
        end = job.end.log if job.end else story.look.log if story.look else ""
        token = request.query.get("token", "")
        if not job.id:
            return Response.json(Log([], token, ended=story.is_over))
        page = self._launcher.read(job.id, end, token)
        return Response.json(Log(page.lines, page.token, ended=story.is_over and not page.lines))

    def cancel(self, request: Request) -> Response:
        """Stop a training: SIGTERM, upon which it saves a checkpoint and ends."""
        name, asked = run(request), registry.read(request.body, Cancel, "an order to cancel")
        story = self._courses.story(name)
        self._job(story.job, name)
        if story.state not in UNDER_WAY:
            raise ConflictError(f"The training {name!r} is not under way: {story.state}. {story.reason}".strip())
        stop = Stop(request.caller or NOBODY, now(), asked.why)
        job = jobs.change(self._store, name, lambda old: old if old.stop else msgspec.structs.replace(old, stop=stop))
        if job.id:
            self._launcher.stop(job.id, asked.why)
        return self._told(name)

    def _told(self, name: str) -> Response:
        course = self._courses.course(name)
        is_under_way = course.state in UNDER_WAY
        again = {"retry-after": AGAIN_S} if is_under_way else {}
        return Response.json(course, 202 if is_under_way else 200, location=course.links.self, **again)

    def _job(self, job: Job | None, name: str) -> Job:
        """The run's job, if this stack's launcher has it."""
        if job is None:
            raise NotFoundError(f"The run {name!r} was not started over HTTP, and its log is where it was started.")
        if job.launcher != self._launcher.name:
            raise UnsupportedError(
                f"The run {name!r} is of the launcher {job.launcher}, this is {self._launcher.name}."
            )
        return job


def run(request: Request) -> str:
    """The run that the path names."""
    return check_name(request.parameters["run"], "run's name")
