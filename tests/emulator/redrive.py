"""SQS: which queues a dead-letter queue belongs to, and SQS's own task that moves its messages back, with new ids.

Of both, ministack knows nothing.
"""

import json
import time
import uuid
from typing import Any

from ministack.services import sqs

_tasks: list[dict[str, Any]] = []  # the latest first; each is over when it is listed


def extend() -> None:
    """Add all of this to the running ministack; by JSON, as boto3 asks."""
    sqs._HANDLERS.update(
        ListDeadLetterSourceQueues=list_sources,
        StartMessageMoveTask=start_task,
        ListMessageMoveTasks=list_tasks,
    )


def list_sources(given: dict[str, Any], _: str) -> dict[str, Any]:
    """List the queues whose messages become dead letters here."""
    return {"queueUrls": find_sources(sqs._get_q(given["QueueUrl"])["attributes"]["QueueArn"])}


def find_sources(arn: str) -> list[str]:
    """Find the URLs of the queues that name a dead-letter queue."""
    policies = {url: json.loads(queue["attributes"].get("RedrivePolicy") or "{}") for url, queue in sqs._queues.items()}
    return [url for url, policy in policies.items() if policy.get("deadLetterTargetArn") == arn]


def start_task(given: dict[str, Any], _: str) -> dict[str, Any]:
    """Move what is in a dead-letter queue; to SQS, each is a new message."""
    source, target = given["SourceArn"], given["DestinationArn"]
    if not find_sources(source):
        raise sqs._Err("InvalidParameterValue", "Source queue must be configured as a Dead Letter Queue.")
    letters, queue = sqs._queue_by_arn(source), sqs._queue_by_arn(target)
    moved = [
        {**one, "id": str(uuid.uuid4()), "sent_at": time.time(), "receive_count": 0} for one in letters["messages"]
    ]
    letters["messages"] = []
    queue["messages"].extend(moved)
    counts = dict.fromkeys(("ApproximateNumberOfMessagesMoved", "ApproximateNumberOfMessagesToMove"), len(moved))
    _tasks.insert(0, {"SourceArn": source, "DestinationArn": target, "Status": "COMPLETED", **counts})
    return {"TaskHandle": str(uuid.uuid4())}


def list_tasks(given: dict[str, Any], _: str) -> dict[str, Any]:
    """List the tasks that moved from a queue."""
    return {
        "Results": [task for task in _tasks if task["SourceArn"] == given["SourceArn"]][: given.get("MaxResults", 1)]
    }
