"""Start a run once, no matter how many requests ask for it at the same time.

The recipe is written first and create-only: a request for the same run with another recipe is refused. Then the job's
document is written, create-only too: the request that writes it starts the job, all others return its state. Batch
itself does not deduplicate, so after a start with unknown outcome the job is searched for before it is submitted again.
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
from pilotlight.training_runs.jobs import JobOutcome, TrainingJob, open_job_document
from pilotlight.training_runs.run_store import load_run, run_path

START_GRACE = timedelta(seconds=60)  # twice the function's own Timeout: an older request cannot finish the start
RETRY_AFTER_S = 5


@dataclass(frozen=True)
class TrainingStarter:
    """Starts jobs for training requests."""

    store: ObjectStore
    launcher: Launcher

    def start(self, training_request: TrainingRequest, actor: str) -> bool:
        """Start the run's job unless there is one; return whether it was started now.

        Raises `ConflictError` if the run's name belongs to another recipe. A run that ended without a version is
        started again only with `resume`.
        """
        self.launcher.check_nodes(training_request.nodes)
        self._save_recipe(training_request.run, training_request.recipe)
        new_job = TrainingJob(
            run=training_request.run,
            launcher=self.launcher.name,
            nodes=training_request.nodes,
            by=actor,
            asked=format_utc_now(),
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
        """Return whether this request must start the job."""
        document = open_job_document(self.store, training_request.run)
        if document.read_or_none() is None and self._is_trained_elsewhere(training_request):
            return False
        try:
            document.create(new_job)
        except AlreadyExistsError:
            return self._restart_if_over(training_request, new_job)
        return True

    def _is_trained_elsewhere(self, training_request: TrainingRequest) -> bool:
        """Return whether the run is or was trained without this API."""
        run = load_run(self.store, training_request.run)
        return run.published_reference is not None or (run.status is not None and not training_request.resume)

    def _restart_if_over(self, training_request: TrainingRequest, new_job: TrainingJob) -> bool:
        """Return whether the run needs another job, and this request must start it."""
        document = open_job_document(self.store, training_request.run)
        job, e_tag = document.read_with_e_tag()
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
        document.replace(msgspec.structs.replace(new_job, number=job.number + 1), e_tag)
        return True

    def _is_over(self, job: TrainingJob) -> bool:
        """Return whether a job is over; raise `UnavailableError` while another request is starting it.

        A job that its launcher does not know is over, unless it is so young that the launcher may not know it yet.
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
        """Adopt the job of an unfinished start; return whether there is none, so that it must be started again."""
        job_id = self.launcher.find_job(training_request.run, job.asked)
        replace = msgspec.structs.replace
        next_job = replace(job, id=job_id, end=None) if job_id else replace(new_job, number=job.number)
        open_job_document(self.store, training_request.run).replace(next_job, e_tag)
        return job_id is None

    def _launch_job(self, training_request: TrainingRequest) -> None:
        """Start the claimed job; if it is refused, the run may be requested again.

        A caller may have cancelled the job before it had an id.
        """
        document = open_job_document(self.store, training_request.run)
        try:
            job_id = self.launcher.start_job(training_request.run, training_request.nodes)
        except PilotlightError as exc:
            end = JobOutcome("unstarted", str(exc), format_utc_now())
            document.update(lambda old: msgspec.structs.replace(old, end=end))
            raise
        started = document.update(lambda old: msgspec.structs.replace(old, id=job_id))
        if started.stop:
            self.launcher.stop_job(job_id, started.stop.why)


def parse_stored_recipe(text: str, where: str) -> Recipe:
    """Parse the recipe that a run already has; `ConflictError` if this release cannot read it."""
    try:
        return validate_recipe(parse_yaml(text, where), where)
    except InvalidInputError as exc:
        raise ConflictError(f"The run has a recipe of another release already: {exc} Give another run.") from exc
