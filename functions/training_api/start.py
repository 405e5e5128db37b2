"""A run is started once, however often it is asked for, and by however many at the same time.

The recipe is written first and create-only: who asks for the same run with another one is refused. Then the job's
document is written, create-only too: who writes it starts the job, all others are told of it. Batch itself gives no
such promise, so a start whose end nobody heard is looked for before it is made again.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec

from functions.training_api.launcher import Launcher
from functions.training_api.requests import Order
from pilotlight.errors import AlreadyExistsError, ConflictError, InvalidInputError, PilotlightError, UnavailableError
from pilotlight.recipes.schema import Recipe, check, differing, dump, parse
from pilotlight.registry.alias_updates import now
from pilotlight.storage.object_store import ObjectStore
from pilotlight.training_runs import jobs
from pilotlight.training_runs.jobs import End, Job
from pilotlight.training_runs.run_store import path, read

BEING_STARTED = timedelta(seconds=60)  # twice the function's own Timeout: whoever is older will not end it
WAIT_S = 5


@dataclass(frozen=True)
class Starter:
    """Starts jobs for orders."""

    store: ObjectStore
    launcher: Launcher

    def start(self, order: Order, by: str) -> bool:
        """Start the run's job, or know of the one there is; whether it was started now.

        `ConflictError` where the run's name belongs to another recipe. A run that ended without a version is started
        again only with `resume`.
        """
        self.launcher.check(order.nodes)
        self._keep_recipe(order.run, order.recipe)
        fresh = Job(launcher=self.launcher.name, nodes=order.nodes, by=by, asked=now())
        if not self._claim(order, fresh):
            return False
        self._launch(order)
        return True

    def _keep_recipe(self, run: str, recipe: Recipe) -> None:
        key = path(run, "recipe.yaml")
        try:
            self.store.create(key, dump(recipe).encode())
        except AlreadyExistsError:
            changed = differing(known(self.store.get(key).data.decode(), key), recipe)
            if changed:
                raise ConflictError(
                    f"The run {run!r} was started with another recipe: {', '.join(changed)} differ; send that recipe "
                    "again, or give another run."
                ) from None

    def _claim(self, order: Order, fresh: Job) -> bool:
        """Whether it falls to this request to start the job."""
        if jobs.find(self.store, order.run) is None and self._is_known_elsewhere(order):
            return False
        try:
            jobs.claim(self.store, order.run, fresh)
        except AlreadyExistsError:
            return self._take_over(order, fresh)
        return True

    def _is_known_elsewhere(self, order: Order) -> bool:
        """Whether somebody trains or has trained this run without this API."""
        run = read(self.store, order.run)
        return run.published is not None or (run.status is not None and not order.resume)

    def _take_over(self, order: Order, fresh: Job) -> bool:
        """Whether the run needs another job, and it falls to this request to start it."""
        job, e_tag = jobs.tagged(self.store, order.run)
        if not self._is_over(job):
            if job.nodes != order.nodes:
                raise ConflictError(f"The run {order.run!r} is under way on {job.nodes} nodes, not on {order.nodes}.")
            return False
        if not job.id:
            return self._look_for(order, job, fresh, e_tag)
        if not order.resume or read(self.store, order.run).published:
            return False
        jobs.replace(self.store, order.run, msgspec.structs.replace(fresh, number=job.number + 1), e_tag)
        return True

    def _is_over(self, job: Job) -> bool:
        """Whether nothing will come of a job any more; `UnavailableError` while another request is starting it.

        One that its launcher does not know is over, unless it is so young that the launcher may not know it yet.
        """
        if job.end is not None:
            return True
        is_young = datetime.now(UTC) - datetime.fromisoformat(job.asked) < BEING_STARTED
        if not job.id:
            if is_young:
                raise UnavailableError("Another request is starting this run; ask again.", retry_after=WAIT_S)
            return True
        look = self.launcher.look([job.id]).get(job.id)
        return look.phase == "over" if look else not is_young

    def _look_for(self, order: Order, job: Job, fresh: Job, e_tag: str) -> bool:
        """Adopt the job of a start that ended half-way; whether there is none, and it must be made again."""
        found = self.launcher.find(order.run, job.asked)
        replaced = msgspec.structs.replace
        adopted = replaced(job, id=found, end=None) if found else replaced(fresh, number=job.number)
        jobs.replace(self.store, order.run, adopted, e_tag)
        return found is None

    def _launch(self, order: Order) -> None:
        """Start the job that was claimed; one that is refused leaves the run to be asked for again.

        Somebody may have cancelled it before it had an id to be stopped by.
        """
        try:
            job = self.launcher.start(order.run, order.nodes)
        except PilotlightError as exc:
            end = End("unstarted", str(exc), now())
            jobs.change(self.store, order.run, lambda old: msgspec.structs.replace(old, end=end))
            raise
        started = jobs.change(self.store, order.run, lambda old: msgspec.structs.replace(old, id=job))
        if started.stop:
            self.launcher.stop(job, started.stop.why)


def known(text: str, where: str) -> Recipe:
    """The recipe that a run has already; `ConflictError` where it is none that is understood here."""
    try:
        return check(parse(text, where), where)
    except InvalidInputError as exc:
        raise ConflictError(f"The run has a recipe of another release already: {exc} Give another run.") from exc
