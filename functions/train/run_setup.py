"""Load the recipe and the run that the command line names, unless the run was cancelled.

A recipe is a YAML file, the bare name of a built-in recipe, or `store:` and a key: an object of the run's own store,
where the API stores a recipe that it received as `store:runs/<run>/recipe.yaml`.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from functions.train.errors import CancelledError
from pilotlight.contracts.names import NAME_PATTERN
from pilotlight.errors import InvalidInputError
from pilotlight.recipes import restrictions
from pilotlight.recipes.schema import BUILTIN_FOLDER, Recipe, build_recipe, find_recipe_file, load_recipe, parse_yaml
from pilotlight.storage.object_store import ObjectStore
from pilotlight.training_runs import jobs

STORE_PREFIX = "store:"


def load_command_recipe(source: str, overrides: Sequence[str], store: ObjectStore) -> tuple[Recipe, Path]:
    """Load the recipe and the folder that its paths are relative to; `InvalidInputError` names what is wrong."""
    if not source.startswith(STORE_PREFIX):
        return load_recipe(source, overrides), find_recipe_file(source).parent
    text = store.get(source.removeprefix(STORE_PREFIX)).data.decode()
    return restrictions.check_restrictions(build_recipe(parse_yaml(text, source), overrides, source)), BUILTIN_FOLDER


def resolve_run_name(requested_name: str | None, environment: Mapping[str, str]) -> str | None:
    """Choose the name of the run: from the command line, or from AWS Batch, whose retries keep the job's id."""
    if requested_name is None and (job := environment.get("AWS_BATCH_JOB_ID")):
        return re.sub(r"[^A-Za-z0-9._-]", "-", f"batch-{job}")[:64]  # an array's or a node's id has : or #
    if requested_name is not None and re.fullmatch(NAME_PATTERN, requested_name) is None:
        raise InvalidInputError(f"--run {requested_name!r} is not a name: it must match {NAME_PATTERN}.")
    return requested_name


def refuse_cancelled_run(store: ObjectStore, run_name: str | None, environment: Mapping[str, str]) -> None:
    """Raise `CancelledError` where this is a further attempt of a Batch job that was cancelled.

    Cancelling ends an attempt by SIGTERM, like a Spot notice; only the job's document distinguishes the two.
    """
    job_id = environment.get("AWS_BATCH_JOB_ID", "").partition("#")[0]  # a node's id ends with its number
    job = jobs.open_job_document(store, run_name).read_or_none() if job_id and run_name else None
    if job and job.id == job_id and job.stop:
        raise CancelledError(f"The run {run_name!r} was cancelled by {job.stop.by}: {job.stop.why}")
