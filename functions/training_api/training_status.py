"""How trainings are: what their runs left in the store, and what the launcher knows of their jobs, as one story."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from functions.training_api.launcher import Launcher, Look
from pilotlight.api.schemas.training import Course, Links, State, Training, Work
from pilotlight.errors import NotFoundError
from pilotlight.gate.verdict import Verdict, verdict_path
from pilotlight.recipes.schema import parse
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import ObjectStore
from pilotlight.training_runs import jobs, run_store
from pilotlight.training_runs.jobs import Job
from pilotlight.training_runs.run_store import Run, document

ROOT = "/v1/trainings"


@dataclass(frozen=True)
class Story:
    """A run, its job where there is one, and how the launcher sees that."""

    run: Run
    job: Job | None
    look: Look | None

    @property
    def state(self) -> State:
        """How the training is."""
        if self.run.published:
            return "finished"
        if self.job is None:
            return self.run.state
        if self.is_over:
            return self._ended(self.job)
        if self.job.stop:
            return "stopping"
        if self.look is None and self.job.id:
            return "unknown"  # the launcher has forgotten it, and no event told of its end
        return "running" if self.look and self.look.phase == "running" else "queued"

    @property
    def is_over(self) -> bool:
        """Whether the job has ended."""
        return self.job is not None and (
            self.job.end is not None or (self.look is not None and self.look.phase == "over")
        )

    @property
    def _is_of_before(self) -> bool:
        """Whether the trainer has said nothing yet since the job was asked for."""
        status = self.run.status
        return self.job is not None and status is not None and status.at < self.job.asked

    def _ended(self, job: Job) -> State:
        if job.stop:
            return "cancelled"
        said = self.run.state
        return said if said in ("paused", "interrupted") and not job.end else "failed"

    @property
    def reason(self) -> str:
        """Why it is so, in a sentence."""
        said = self.run.status.reason if self.run.status and not self._is_of_before else ""
        if self.job and self.job.stop and not self.run.published:
            said = f"Cancelled by {self.job.stop.by}: {self.job.stop.why}. Start it with resume, and it goes on."
        seen = self.job.end.reason if self.job and self.job.end else self.look.reason if self.look else ""
        if self.state == "failed" and not said:
            return seen or "It ended without a word; its log says why."
        return said or seen


@dataclass(frozen=True)
class Courses:
    """The trainings of a store."""

    store: ObjectStore
    launcher: Launcher

    def newest(self, skip: int, most: int) -> tuple[list[Training], int]:
        """Those whose files changed last, and how many there are in all."""
        names = changed_last(self.store)
        chosen = names[skip : skip + most]
        looked = [(run, jobs.find(self.store, run.name)) for run in run_store.read_all(self.store, chosen)]
        seen = self.launcher.look([job.id for _, job in looked if job and job.id and not job.end])
        return [short(Story(run, job, seen.get(job.id) if job else None)) for run, job in looked], len(names)

    def story(self, name: str) -> Story:
        """One of them; `NotFoundError` where there is no such run."""
        run, job = run_store.read(self.store, name), jobs.find(self.store, name)
        look = self.launcher.look([job.id]).get(job.id) if job and job.id and not job.end else None
        return Story(run, job, look)

    def course(self, name: str) -> Course:
        """One of them with all that is known of it."""
        story = self.story(name)
        metrics, verdict = self._measured(story.run)
        return Course(
            **fields(short(story)),
            recipe=story.run.recipe,
            status=story.run.status,
            lines=story.run.lines,
            metrics=metrics,
            verdict=verdict,
        )

    def _measured(self, run: Run) -> tuple[dict[str, float], Any]:
        """The metrics of the version that came out, and what the gate said of it, where it is there still."""
        if run.published is None or run.published.version is None:
            return {}, None
        name, version = run.published.name, run.published.version
        try:
            manifest = Registry(self.store).manifest(name, version)
        except NotFoundError:
            return {}, None  # it was deleted since
        verdict = document(self.store, verdict_path(name, version), Verdict)
        said = None if verdict is None else "passed" if verdict.passed else "refused"
        return manifest.variants[manifest.serve].metrics, said


def short(story: Story) -> Training:
    """A training in a few words."""
    run, recipe = story.run, settings(story.run.recipe)
    return Training(
        run=run.name,
        model=str(recipe.get("name", "")),
        state=story.state,
        reason=story.reason,
        started=run.status.started if run.status else "",
        heard=run.heard,
        seconds=round(run.seconds, 3),
        epochs=len(run.lines),
        of=recipe.get("epochs"),
        last=run.lines[-1] if run.lines else None,
        version=str(run.published) if run.published else None,
        job=work(story.job, story.look) if story.job else None,
        links=links(run),
    )


def work(job: Job, look: Look | None) -> Work:
    """A run's job for callers."""
    end = job.end
    return Work(
        launcher=job.launcher,
        id=job.id,
        state=end.state.upper() if end else look.word if look else "UNKNOWN",
        nodes=job.nodes,
        attempts=end.attempts if end else look.attempts if look else 0,
        log=end.log if end else look.log if look else "",
        by=job.by,
        asked=job.asked,
    )


def links(run: Run) -> Links:
    """Where to go on from a run."""
    own = f"{ROOT}/{run.name}"
    known = run.published
    version = f"/registry/models/{known.name}/versions/{known.version}" if known else None
    return Links(own, f"{own}/log", f"{own}/cancel", version)


def settings(recipe: str) -> Mapping[str, Any]:
    """A recipe's own keys."""
    tree = parse(recipe, "recipe.yaml")
    return tree if isinstance(tree, dict) else {}


def changed_last(store: ObjectStore) -> Sequence[str]:
    """The names of the runs that have a recipe, the last changed first."""
    latest = dict[str, datetime]()
    whole = set[str]()
    for key, at in store.changed("runs"):
        _, name, *file = key.split("/")
        latest[name] = max(at, latest.get(name, at))
        if file == ["recipe.yaml"]:
            whole.add(name)
    return sorted(whole, key=lambda name: (latest[name], name), reverse=True)


def fields(training: Training) -> dict[str, Any]:
    """A struct's fields by name, not taken apart further."""
    return {name: getattr(training, name) for name in msgspec.structs.asdict(training)}
