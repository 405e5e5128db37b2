"""A run is started once, however often it is asked for, and by however many at the same time.

The recipe is written first and create-only: who asks for the same run with another one is refused. Then the job's
document is written, create-only too: who writes it starts the job, all others are told of it. Batch itself gives no
such promise, so a start whose end nobody heard is looked for before it is made again.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec

from functions.training_api.launcher import Launcher
from functions.training_api.requests import TrainingRequest
from pilotlight.contracts.codec import format_utc_now
from pilotlight.errors import AlreadyExistsError, ConflictError, InvalidInputError, PilotlightError, UnavailableError
from pilotlight.recipes.schema import Recipe, dump_recipe, find_differing_keys, parse_yaml, validate_recipe
from pilotlight.storage.object_store import ObjectStore
from pilotlight.training_runs import jobs
from pilotlight.training_runs.jobs import JobOutcome, TrainingJob
from pilotlight.training_runs.run_store import load_run, run_path

START_GRACE = timedelta(seconds=60)  # twice the function's own Timeout: whoever is older will not end it
RETRY_AFTER_S = 5


@dataclass(frozen=True)
class TrainingStarter:
    """Starts jobs for orders."""

    store: ObjectStore
    launcher: Launcher

    def start(self, training_request: TrainingRequest, actor: str) -> bool:
        """Start the run's job, or know of the one there is; whether it was started now.

        `ConflictError` where the run's name belongs to another recipe. A run that ended without a version is started
        again only with `resume`.
        """
        self.launcher.check_nodes(training_request.nodes)
        self._save_recipe(training_request.run, training_request.recipe)
        new_job = TrainingJob(
            launcher=self.launcher.name, nodes=training_request.nodes, by=actor, asked=format_utc_now()
        )
        if not self._claim_start(training_request, new_job):
            return False
        self._launch_job(training_request)
        return True

    def _save_recipe(self, run: str, recipe: Recipe) -> None:
        key = run_path(run, "recipe.yaml")
        try:
            self.store.create(key, dump_recipe(recipe).encode())
        except AlreadyExistsError:
            differences = find_differing_keys(parse_stored_recipe(self.store.get(key).data.decode(), key), recipe)
            if differences:
                raise ConflictError(
                    f"The run {run!r} was started with another recipe: {', '.join(differences)} differ; send that "
                    "recipe "
                    "again, or give another run."
                ) from None

    def _claim_start(self, training_request: TrainingRequest, new_job: TrainingJob) -> bool:
        """Whether it falls to this request to start the job."""
        if jobs.find_job(self.store, training_request.run) is None and self._is_trained_elsewhere(training_request):
            return False
        try:
            jobs.create_job(self.store, training_request.run, new_job)
        except AlreadyExistsError:
            return self._restart_if_over(training_request, new_job)
        return True

    def _is_trained_elsewhere(self, training_request: TrainingRequest) -> bool:
        """Whether somebody trains or has trained this run without this API."""
        run = load_run(self.store, training_request.run)
        return run.published_reference is not None or (run.status is not None and not training_request.resume)

    def _restart_if_over(self, training_request: TrainingRequest, new_job: TrainingJob) -> bool:
        """Whether the run needs another job, and it falls to this request to start it."""
        job, e_tag = jobs.load_job_with_e_tag(self.store, training_request.run)
        if not self._is_over(job):
            if job.nodes != training_request.nodes:
                raise ConflictError(
                    f"The run {training_request.run!r} is under way on {job.nodes} nodes, not on "
                    f"{training_request.nodes}."
                )
            return False
        if not job.id:
            return self._find_lost_job(training_request, job, new_job, e_tag)
        if not training_request.resume or load_run(self.store, training_request.run).published_reference:
            return False
        jobs.replace_job(
            self.store, training_request.run, msgspec.structs.replace(new_job, number=job.number + 1), e_tag
        )
        return True

    def _is_over(self, job: TrainingJob) -> bool:
        """Whether nothing will come of a job any more; `UnavailableError` while another request is starting it.

        One that its launcher does not know is over, unless it is so young that the launcher may not know it yet.
        """
        if job.end is not None:
            return True
        is_young = datetime.now(UTC) - datetime.fromisoformat(job.asked) < START_GRACE
        if not job.id:
            if is_young:
                raise UnavailableError("Another request is starting this run; ask again.", retry_after=RETRY_AFTER_S)
            return True
        job_status = self.launcher.poll([job.id]).get(job.id)
        return job_status.phase == "over" if job_status else not is_young

    def _find_lost_job(
        self, training_request: TrainingRequest, job: TrainingJob, new_job: TrainingJob, e_tag: str
    ) -> bool:
        """Adopt the job of a start that ended half-way; whether there is none, and it must be made again."""
        job_id = self.launcher.find_job(training_request.run, job.asked)
        replace = msgspec.structs.replace
        next_job = replace(job, id=job_id, end=None) if job_id else replace(new_job, number=job.number)
        jobs.replace_job(self.store, training_request.run, next_job, e_tag)
        return job_id is None

    def _launch_job(self, training_request: TrainingRequest) -> None:
        """Start the job that was claimed; one that is refused leaves the run to be asked for again.

        Somebody may have cancelled it before it had an id to be stopped by.
        """
        try:
            job_id = self.launcher.start_job(training_request.run, training_request.nodes)
        except PilotlightError as exc:
            end = JobOutcome("unstarted", str(exc), format_utc_now())
            jobs.update_job(self.store, training_request.run, lambda old: msgspec.structs.replace(old, end=end))
            raise
        started = jobs.update_job(self.store, training_request.run, lambda old: msgspec.structs.replace(old, id=job_id))
        if started.stop:
            self.launcher.stop_job(job_id, started.stop.why)


def parse_stored_recipe(text: str, where: str) -> Recipe:
    """The recipe that a run has already; `ConflictError` where it is none that is understood here."""
    try:
        return validate_recipe(parse_yaml(text, where), where)
    except InvalidInputError as exc:
        raise ConflictError(f"The run has a recipe of another release already: {exc} Give another run.") from exc
