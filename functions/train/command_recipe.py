"""What this process is asked to train: the recipe that the command line names, and whether it is wanted still.

A recipe is a YAML file, the bare name of a recipe of record, or `store:` and a key: an object of the run's own store,
where the API puts what it was sent as `store:runs/<run>/recipe.yaml`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from functions.train.errors import CancelledError
from pilotlight.recipes import restrictions
from pilotlight.recipes.schema import FOLDER, Recipe, find, load, made, parse
from pilotlight.storage.object_store import ObjectStore
from pilotlight.training_runs import jobs

STORED = "store:"


def take(word: str, overrides: Sequence[str], store: ObjectStore) -> tuple[Recipe, Path]:
    """The recipe, and the folder where the paths in it begin; `InvalidInputError` says what is wrong with it."""
    if not word.startswith(STORED):
        return load(word, overrides), find(word).parent
    text = store.get(word.removeprefix(STORED)).data.decode()
    return restrictions.check(made(parse(text, word), overrides, word)), FOLDER


def refuse_cancelled(store: ObjectStore, run: str | None, environment: Mapping[str, str]) -> None:
    """`CancelledError` where this is a further attempt of a Batch job that somebody has cancelled.

    Cancelling ends an attempt as a Spot notice does, with SIGTERM; only the job's document tells the two apart.
    """
    own = environment.get("AWS_BATCH_JOB_ID", "").partition("#")[0]  # a node's id has its number behind it
    job = jobs.find(store, run) if own and run else None
    if job and job.id == own and job.stop:
        raise CancelledError(f"The run {run!r} was cancelled by {job.stop.by}: {job.stop.why}")
