"""Start functions other than by HTTP: on a schedule, and by lines in another function's log.

EventBridge's schedules and CloudWatch Logs' subscription filters, with the same events. This module starts no
processes; its caller passes a way to invoke a function.
"""

import asyncio
import base64
import gzip
import json
import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import uuid4

from pilotlight.local.background_tasks import BackgroundTasks, Invoke
from pilotlight.local.gateway_errors import GatewayError
from pilotlight.local.proxy_events import ACCOUNT_ID
from pilotlight.local.template import LogSubscription, Schedule

log = logging.getLogger("pilotlight.local")


class Triggers:
    """The schedules and subscriptions of a stack, active between `start` and `stop`."""

    def __init__(self, schedules: Sequence[Schedule], subscriptions: Sequence[LogSubscription], invoke: Invoke) -> None:
        self._schedules = schedules
        self._subscriptions = subscriptions
        self._background_tasks = BackgroundTasks(invoke)
        self._timers = BackgroundTasks(invoke)

    def start(self) -> None:
        """Start the schedules; needs a running loop."""
        for schedule in self._schedules:
            self._timers.start(self._run_schedule(schedule))

    async def stop_schedules(self) -> None:
        """Start nothing more by the clock; functions that are running go on."""
        await self._timers.stop()

    async def stop(self) -> None:
        """Stop the schedules and running invocations."""
        await self.stop_schedules()
        await self._background_tasks.stop()

    def on_log_line(self, source: str, line: bytes) -> None:
        """Handle a line in a function's log: invoke the functions that subscribe to such lines."""
        for subscription in self._subscriptions:
            if subscription.source == source and matches_subscription(subscription, line):
                self._start_invocation(subscription.function, build_log_event(source, line))

    def _start_invocation(self, function: str, event: bytes) -> None:
        """Invoke a function, unless too many invocations wait: a log that floods is not worth the gateway's memory."""
        try:
            self._background_tasks.start(self._background_tasks.invoke_function(function, event))
        except GatewayError as exc:
            log.warning("%s was not invoked for a line of the log: %s", function, exc)

    async def _run_schedule(self, schedule: Schedule) -> None:
        while True:
            await asyncio.sleep(seconds_until_next(schedule, time.time()))
            await self._background_tasks.invoke_function(schedule.function, build_schedule_event())


def seconds_until_next(schedule: Schedule, now: float) -> float:
    """Compute the seconds from `now`, since 1970, to the schedule's next time; a whole period if that is now."""
    if schedule.at_s is None:
        return schedule.every_s
    return schedule.every_s - (now - schedule.at_s) % schedule.every_s


def matches_subscription(subscription: LogSubscription, line: bytes) -> bool:
    """Return whether the line is JSON with the subscription's field; most need no parsing."""
    if subscription.field.encode() not in line:
        return False
    try:
        content = json.loads(line)
    except ValueError:
        return False
    return isinstance(content, dict) and subscription.field in content


def build_log_event(source: str, line: bytes) -> bytes:
    """Build the event of a subscription filter: base64 of gzip of JSON."""
    now = int(time.time() * 1000)
    batch = {
        "messageType": "DATA_MESSAGE",
        "owner": ACCOUNT_ID,
        "logGroup": f"/aws/lambda/{source}",
        "logStream": "local",
        "subscriptionFilters": ["local"],
        "logEvents": [{"id": uuid4().hex, "timestamp": now, "message": line.decode(errors="replace").strip()}],
    }
    data = base64.b64encode(gzip.compress(json.dumps(batch).encode())).decode()
    return json.dumps({"awslogs": {"data": data}}).encode()


def build_schedule_event() -> bytes:
    """Build the event of an EventBridge schedule."""
    content = {
        "version": "0",
        "id": str(uuid4()),
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": ACCOUNT_ID,
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "resources": [],
        "detail": {},
    }
    return json.dumps(content).encode()
