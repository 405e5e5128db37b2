"""The name of a run: the same name means the same run, in however many lives."""

import re
from collections.abc import Mapping

from pilotlight.contracts.names import NAME_PATTERN
from pilotlight.errors import InvalidInputError


def resolve_run_name(requested_name: str | None, environment: Mapping[str, str]) -> str | None:
    """The name that a run is asked to have: by the command line, or by AWS Batch, whose retries keep the job's id."""
    if requested_name is None and (job := environment.get("AWS_BATCH_JOB_ID")):
        return re.sub(r"[^A-Za-z0-9._-]", "-", f"batch-{job}")[:64]  # an array's or a node's id has : or #
    if requested_name is not None and re.fullmatch(NAME_PATTERN, requested_name) is None:
        raise InvalidInputError(f"--run {requested_name!r} is not a name: it must match {NAME_PATTERN}.")
    return requested_name
