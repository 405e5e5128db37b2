"""The trainings of a server, over HTTP: what `Client.trainings` gives.

    with Client("https://host/prod", headers={"x-api-key": key}) as client:
        started = client.trainings.start("digits", changes=["epochs=5"])
        for line in client.trainings.follow(started.run):
            print(line)

It knows the routes and their forms, not how they are called.
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
POLL_INTERVAL_S = 2.0  # between two looks at a log that does not grow
MAX_FAILED_POLLS = 20  # looks in a row that may fail before a log is given up


class RemoteTrainings:
    """Trainings of a server; errors are those of the client."""

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
        """Train a recipe of record by its name, or a whole one; the same run asked for twice is started once."""
        request = StartTrainingBody(
            recipe if isinstance(recipe, str) else dict(recipe), tuple(changes), run, nodes, resume
        )
        return registry.parse_response(self._call("POST", TRAININGS_PATH, msgspec.json.encode(request)), TrainingDetail)

    def list(self, skip: int = 0, limit: int = 50) -> TrainingList:
        """Trainings, those first that changed last."""
        return registry.parse_response(
            self._call("GET", f"{TRAININGS_PATH}?{urlencode({'skip': skip, 'limit': limit})}"), TrainingList
        )

    def get(self, run: str) -> TrainingDetail:
        """A training with all that is known of it."""
        return registry.parse_response(self._call("GET", build_training_path(run)), TrainingDetail)

    def get_log(self, run: str, token: str = "") -> TrainingLog:
        """The next lines of its log, behind the token of an earlier answer."""
        query = f"?{urlencode({'token': token})}" if token else ""
        return registry.parse_response(self._call("GET", f"{build_training_path(run)}/log{query}"), TrainingLog)

    def cancel(self, run: str, reason: str = CancelTrainingBody().why) -> TrainingDetail:
        """Have it save a checkpoint and end; `start` with `resume` goes on from there."""
        return registry.parse_response(
            self._call("POST", f"{build_training_path(run)}/cancel", msgspec.json.encode(CancelTrainingBody(reason))),
            TrainingDetail,
        )

    def follow_log(
        self, run: str, poll_interval_s: float = POLL_INTERVAL_S, on_pause: Callable[[], None] = lambda: None
    ) -> Iterator[str]:
        """The lines of its log as they come, until nothing will follow; `on_pause` is called before each pause.

        A server that is away for a moment is asked again.
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
    """The path of a training."""
    return f"{TRAININGS_PATH}/{quote(run, safe='')}"
