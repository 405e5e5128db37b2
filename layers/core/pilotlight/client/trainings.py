"""The trainings of a server, over HTTP: `Client.trainings`.

    with Client("https://host/prod", key=key) as client:
        started = client.trainings.start("digits", changes=["epochs=5"])
        for line in client.trainings.follow_log(started.run):
            print(line)

This module has the routes and their forms; `client` sends the requests.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from pilotlight.api.schemas import registry
from pilotlight.api.schemas.training import (
    CancelTrainingBody,
    StartTrainingBody,
    TrainingDetail,
    TrainingList,
    TrainingLog,
)
from pilotlight.errors import UnavailableError

ApiCall = Callable[..., bytes]  # verb, path, body, headers
TRAININGS_PATH = "/v1/trainings"
POLL_INTERVAL_S = 2.0  # seconds between two requests for a log that does not grow
MAX_FAILED_POLLS = 20  # requests in a row, after which a log is given up


class RemoteTrainings:
    """Trainings of a server; the errors are those of the client."""

    def __init__(self, call: ApiCall) -> None:
        self._call = call

    def start(
        self,
        recipe: str | Mapping[str, Any],
        *,
        changes: Sequence[str] = (),
        run: str | None = None,
        nodes: int = 1,
        resume: bool = False,
    ) -> TrainingDetail:
        """Start a training of a built-in recipe, by its name, or of a whole recipe; a run starts once only."""
        request = StartTrainingBody(
            recipe if isinstance(recipe, str) else dict(recipe), tuple(changes), run, nodes, resume
        )
        return registry.parse_response(self._call("POST", TRAININGS_PATH, msgspec.json.encode(request)), TrainingDetail)

    def list(self, skip: int = 0, limit: int = 50) -> TrainingList:
        """List trainings, the last changed first."""
        return registry.parse_response(
            self._call("GET", f"{TRAININGS_PATH}?{urlencode({'skip': skip, 'limit': limit})}"), TrainingList
        )

    def get(self, run: str) -> TrainingDetail:
        """Get everything about a training."""
        return registry.parse_response(self._call("GET", build_training_path(run)), TrainingDetail)

    def get_log(self, run: str, token: str = "") -> TrainingLog:
        """Get the next lines of a log, after the token of an earlier answer."""
        query = f"?{urlencode({'token': token})}" if token else ""
        return registry.parse_response(self._call("GET", f"{build_training_path(run)}/log{query}"), TrainingLog)

    def cancel(self, run: str, reason: str = CancelTrainingBody().why) -> TrainingDetail:
        """Request that a training saves a checkpoint and ends; `start` with `resume` continues it."""
        return registry.parse_response(
            self._call("POST", f"{build_training_path(run)}/cancel", msgspec.json.encode(CancelTrainingBody(reason))),
            TrainingDetail,
        )

    def follow_log(
        self, run: str, poll_interval_s: float = POLL_INTERVAL_S, on_pause: Callable[[], None] = lambda: None
    ) -> Iterator[str]:
        """Yield the lines of a log as they appear, until its end; call `on_pause` before each pause.

        Requests are repeated while a server is briefly unavailable.
        """
        token, failed = "", 0
        while True:
            try:
                page = self.get_log(run, token)
            except UnavailableError:
                failed += 1
                if failed == MAX_FAILED_POLLS:
                    raise
            else:
                yield from page.lines
                token, failed = page.next, 0
                if page.ended:
                    return
                if page.lines:
                    continue
            on_pause()
            time.sleep(poll_interval_s)


def build_training_path(run: str) -> str:
    """Build the path of a training."""
    return f"{TRAININGS_PATH}/{quote(run, safe='')}"
