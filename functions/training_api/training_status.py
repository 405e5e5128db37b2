"""The state of trainings, combined from their runs' files in the store and the launcher's view of their jobs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from functions.training_api.launcher import JobStatus, Launcher
from pilotlight.api.schemas.training import (
    TrainingDetail,
    TrainingJobInfo,
    TrainingLinks,
    TrainingState,
    TrainingSummary,
)
from pilotlight.errors import BrokenDocumentError, NotFoundError
from pilotlight.gate.verdict import Verdict, open_verdict
from pilotlight.recipes.schema import parse_yaml
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import ObjectStore
from pilotlight.training_runs import run_store
from pilotlight.training_runs.jobs import TrainingJob, open_job_document
from pilotlight.training_runs.run_store import TrainingRun

TRAININGS_PATH = "/v1/trainings"


@dataclass(frozen=True)
class TrainingSnapshot:
    """A run, its job if there is one, and the launcher's view of the job."""

    run: TrainingRun
    job: TrainingJob | None
    job_status: JobStatus | None
    error: str = ""  # which documents are broken

    @property
    def state(self) -> TrainingState:
        """The training's state."""
        if self.run.published_reference:
            return "finished"
        if self.job is None:
            return self.run.state
        if self.is_over:
            return self._get_end_state(self.job)
        if self.job.stop:
            return "stopping"
        if self.job_status is None and self.job.id:
            return "unknown"  # the launcher has forgotten it, and no event reported its end
        return "running" if self.job_status and self.job_status.phase == "running" else "queued"

    @property
    def is_over(self) -> bool:
        """Whether the job has ended."""
        return self.job is not None and (
            self.job.end is not None or (self.job_status is not None and self.job_status.phase == "over")
        )

    @property
    def _is_status_stale(self) -> bool:
        """Whether the trainer has reported nothing since the job was requested."""
        status = self.run.status
        return self.job is not None and status is not None and status.at < self.job.asked

    def _get_end_state(self, job: TrainingJob) -> TrainingState:
        if job.stop:
            return "cancelled"
        run_state = self.run.state
        return run_state if run_state in ("paused", "interrupted") and not job.end else "failed"

    @property
    def reason(self) -> str:
        """The reason for the state, in a sentence."""
        message = self.run.status.reason if self.run.status and not self._is_status_stale else ""
        if self.job and self.job.stop and not self.run.published_reference:
            message = f"Cancelled by {self.job.stop.by}: {self.job.stop.why}. Start it with resume, and it goes on."
        launcher_reason = (
            self.job.end.reason if self.job and self.job.end else self.job_status.reason if self.job_status else ""
        )
        if self.state == "failed" and not message:
            return launcher_reason or "It ended without a word; its log says why."
        if self.state == "finished":  # of which the launcher says that the container has exited
            return message
        return message or launcher_reason


@dataclass(frozen=True)
class TrainingStatusReader:
    """Reads the trainings of a store."""

    store: ObjectStore
    launcher: Launcher

    def list_newest(self, skip: int, limit: int) -> tuple[list[TrainingSummary], int]:
        """List the trainings whose files changed last, and return how many there are in all."""
        names = list_runs_by_change(self.store)
        chosen = names[skip : skip + limit]
        runs = run_store.load_runs(self.store, chosen)
        runs_with_jobs = [(run, *self._read_job(run)) for run in runs]
        statuses = self.launcher.poll([job.id for _, job, _ in runs_with_jobs if job and job.id and not job.end])
        return [
            to_training(TrainingSnapshot(run, job, statuses.get(job.id) if job else None, error))
            for run, job, error in runs_with_jobs
        ], len(names)

    def read_snapshot(self, name: str) -> TrainingSnapshot:
        """Read one training; `NotFoundError` if there is no such run."""
        run = run_store.load_run(self.store, name)
        job, error = self._read_job(run)
        job_status = self.launcher.poll([job.id]).get(job.id) if job and job.id and not job.end else None
        return TrainingSnapshot(run, job, job_status, error)

    def _read_job(self, run: TrainingRun) -> tuple[TrainingJob | None, str]:
        """Read a run's job, and what is broken of the run or the job."""
        job = open_job_document(self.store, run.name).read_or_error()
        if isinstance(job, BrokenDocumentError):
            return None, f"{run.error} {job}".lstrip()
        return job, run.error

    def read_detail(self, name: str) -> TrainingDetail:
        """Read one training in full."""
        snapshot = self.read_snapshot(name)
        metrics, verdict = self._read_results(snapshot.run)
        return TrainingDetail(
            **to_field_dict(to_training(snapshot)),
            recipe=snapshot.run.recipe,
            status=snapshot.run.status,
            lines=snapshot.run.epochs,
            metrics=metrics,
            verdict=verdict,
        )

    def _read_results(self, run: TrainingRun) -> tuple[dict[str, float], Any]:
        """Read the metrics of the published version and the gate's outcome, if they still exist."""
        if run.published_reference is None or run.published_reference.version is None:
            return {}, None
        name, version = run.published_reference.name, run.published_reference.version
        try:
            manifest = Registry(self.store).load_manifest(name, version)
        except (NotFoundError, BrokenDocumentError):
            return {}, None  # it was deleted since, or is the registry's to report
        if manifest.by != f"runs/{run.name}":
            return {}, None  # a trainer writes what its run has published, and may name the version of another
        verdict = open_verdict(self.store, name, version).read_or_error()
        outcome = ("passed" if verdict.passed else "refused") if isinstance(verdict, Verdict) else None
        return manifest.variants[manifest.serve].metrics, outcome


def to_training(snapshot: TrainingSnapshot) -> TrainingSummary:
    """Summarize a training."""
    run, recipe = snapshot.run, read_recipe_settings(snapshot.run.recipe)
    return TrainingSummary(
        run=run.name,
        model=str(recipe.get("name", "")),
        state=snapshot.state,
        reason=snapshot.reason,
        started=run.status.started if run.status else "",
        heard=run.last_update,
        seconds=round(run.seconds, 3),
        epochs=len(run.epochs),
        of=epochs if isinstance(epochs := recipe.get("epochs"), int) else None,
        last=run.epochs[-1] if run.epochs else None,
        version=str(run.published_reference) if run.published_reference else None,
        job=to_job_summary(snapshot.job, snapshot.job_status) if snapshot.job else None,
        links=build_links(run),
        error=snapshot.error,
    )


def to_job_summary(job: TrainingJob, job_status: JobStatus | None) -> TrainingJobInfo:
    """Summarize a run's job for callers."""
    end = job.end
    return TrainingJobInfo(
        launcher=job.launcher,
        id=job.id,
        state=end.state.upper() if end else job_status.launcher_state if job_status else "UNKNOWN",
        nodes=job.nodes,
        attempts=end.attempts if end else job_status.attempts if job_status else 0,
        log=end.log if end else job_status.log if job_status else "",
        by=job.by,
        asked=job.asked,
    )


def build_links(run: TrainingRun) -> TrainingLinks:
    """Build the links from a training to related resources."""
    own = f"{TRAININGS_PATH}/{run.name}"
    published = run.published_reference
    version = f"/registry/models/{published.name}/versions/{published.version}" if published else None
    return TrainingLinks(own, f"{own}/log", f"{own}/cancel", version)


def read_recipe_settings(recipe: str) -> Mapping[str, Any]:
    """Read a recipe's own keys."""
    tree = parse_yaml(recipe, "recipe.yaml")
    return tree if isinstance(tree, dict) else {}


def list_runs_by_change(store: ObjectStore) -> Sequence[str]:
    """List the names of the runs that have a recipe, last changed first."""
    latest = dict[str, datetime]()
    whole = set[str]()
    for key, at in store.list_modification_times("runs"):
        _, name, *file = key.split("/")
        latest[name] = max(at, latest.get(name, at))
        if file == ["recipe.yaml"]:
            whole.add(name)
    return sorted(whole, key=lambda name: (latest[name], name), reverse=True)


def to_field_dict(training: TrainingSummary) -> dict[str, Any]:
    """Return a struct's fields by name, without converting their values."""
    return {name: getattr(training, name) for name in msgspec.structs.asdict(training)}
