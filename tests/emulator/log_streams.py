"""IAM: a log's stream, which our policies name and ministack passes over.

Source: Service Authorization Reference, CloudWatch Logs.
"""

import json
from typing import Any

from ministack.core import iam_actions

STREAM_ACTIONS = ("GetLogEvents", "PutLogEvents")  # rights to a stream, not to its group


def extend() -> None:
    """Add all of this to the running ministack."""
    iam_actions.extract_resource_arn = _extract_with(iam_actions.extract_resource_arn)


def _extract_with(extract: Any) -> Any:  # noqa: ANN401 - ministack has no types
    def extract_resource_arn(service: str, method: str, path: str, *more: Any) -> Any:  # noqa: ANN401 - as above
        found, headers, body = extract(service, method, path, *more), more[0], more[1]
        if service == "logs" and headers.get("x-amz-target", "").rpartition(".")[2] in STREAM_ACTIONS:
            return f"{found}:log-stream:{json.loads(body).get('logStreamName', '')}"
        return found

    return extract_resource_arn
