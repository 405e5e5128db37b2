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
from pilotlight.api.schemas.training import Cancel, Course, Log, Start, Trainings
from pilotlight.errors import UnavailableError

Call = Callable[..., bytes]  # verb, path, body, headers
ROOT = "/v1/trainings"
PAUSE_S = 2.0  # between two looks at a log that does not grow
PATIENCE = 20  # looks in a row that may fail before a log is given up


class RemoteTrainings:
    """Trainings of a server; errors are those of the client."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def start(
        self,
        recipe: str | Mapping[str, Any],
        *,
        changes: Sequence[str] = (),
        run: str | None = None,
        nodes: int = 1,
        resume: bool = False,
    ) -> Course:
        """Train a recipe of record by its name, or a whole one; the same run asked for twice is started once."""
        order = Start(recipe if isinstance(recipe, str) else dict(recipe), list(changes), run, nodes, resume)
        return registry.answered(self._call("POST", ROOT, msgspec.json.encode(order)), Course)

    def list(self, skip: int = 0, limit: int = 50) -> Trainings:
        """Trainings, those first that changed last."""
        return registry.answered(self._call("GET", f"{ROOT}?{urlencode({'skip': skip, 'limit': limit})}"), Trainings)

    def show(self, run: str) -> Course:
        """A training with all that is known of it."""
        return registry.answered(self._call("GET", of(run)), Course)

    def log(self, run: str, token: str = "") -> Log:
        """The next lines of its log, behind the token of an earlier answer."""
        more = f"?{urlencode({'token': token})}" if token else ""
        return registry.answered(self._call("GET", f"{of(run)}/log{more}"), Log)

    def cancel(self, run: str, why: str = Cancel().why) -> Course:
        """Have it save a checkpoint and end; `start` with `resume` goes on from there."""
        return registry.answered(self._call("POST", f"{of(run)}/cancel", msgspec.json.encode(Cancel(why))), Course)

    def follow(self, run: str, pause_s: float = PAUSE_S, look: Callable[[], None] = lambda: None) -> Iterator[str]:
        """The lines of its log as they come, until nothing will follow; `look` is called before each pause.

        A server that is away for a moment is asked again.
        """
        token, failed = "", 0
        while True:
            try:
                page = self.log(run, token)
            except UnavailableError:
                failed += 1
                if failed == PATIENCE:
                    raise
            else:
                yield from page.lines
                token, failed = page.next, 0
                if page.ended:
                    return
                if page.lines:
                    continue
            look()
            time.sleep(pause_s)


def of(run: str) -> str:
    """The path of a training."""
    return f"{ROOT}/{quote(run, safe='')}"
