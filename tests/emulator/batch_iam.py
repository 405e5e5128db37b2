"""IAM of Batch: the resources and tags by which a call is judged, all of which ministack takes for `*`.

SubmitJob needs a right to the queue, one to the definition, and where there are tags one to tag jobs. TerminateJob and
CancelJob are judged by the tags of the job. Source: Service Authorization Reference, AWS Batch.
"""

import json
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from ministack.core import iam_actions, iam_evaluator
from ministack.services import batch, tagging

from tests.emulator.batch_roles import build_arn

Check = tuple[str, str]  # an action, and the ARN of a resource
_checks: ContextVar[list[Check]] = ContextVar("checks", default=[])  # noqa: B039 - replaced, never changed


def extend() -> None:
    """Add all of this to the running ministack."""
    iam_actions.extract_resource_arn = _extract_with(iam_actions.extract_resource_arn)
    iam_evaluator.enforce = _enforce_with(iam_evaluator.enforce)
    tagging._RESOURCE_TAG_COLLECTORS["batch"] = collect_tags


def collect_tags() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Yield the tags of each job, as ministack has those of other services."""
    for job in list(batch._jobs.values()):
        yield job["jobArn"], [{"Key": name, "Value": value} for name, value in job["tags"].items()]


def list_checks(operation: str, request: dict[str, Any]) -> list[Check]:
    """List the actions and resources for which a call needs rights."""
    if operation == "submitjob":
        queue = _complete("job-queue", request.get("jobQueue", ""))
        definition = _complete("job-definition", request.get("jobDefinition", ""))
        tags = [("batch:TagResource", build_arn("batch", "job/new"))] if request.get("tags") else []
        return [("batch:SubmitJob", queue), ("batch:SubmitJob", definition), *tags]
    if operation in ("terminatejob", "canceljob"):
        action = "batch:TerminateJob" if operation == "terminatejob" else "batch:CancelJob"
        return [(action, _complete("job", request.get("jobId", "")))]
    return []


def _complete(kind: str, reference: str) -> str:
    return reference if reference.startswith("arn:") else build_arn("batch", f"{kind}/{reference}")


def _extract_with(extract: Any) -> Any:  # noqa: ANN401 - ministack has no types
    def extract_resource_arn(service: str, method: str, path: str, *more: Any) -> Any:  # noqa: ANN401 - as above
        _, body, *_ = more
        if service == "batch":
            _checks.set(list_checks(path.rstrip("/").rpartition("/")[2].lower(), json.loads(body or b"{}")))
        return extract(service, method, path, *more)

    return extract_resource_arn


def _enforce_with(enforce: Any) -> Any:  # noqa: ANN401 - ministack has no types
    """Judge each of a call's checks; the first that is denied counts."""

    def enforce_all(key: str, action: str, service: str, *more: Any, **options: Any) -> Any:  # noqa: ANN401 - as above
        if service != "batch" or not _checks.get():
            return enforce(key, action, service, *more, **options)
        answers = (
            enforce(key, checked, service, *more, **{**options, "resource_arn": resource})
            for checked, resource in _checks.get()
        )
        return next((denied for denied in answers if denied is not None), None)

    return enforce_all
