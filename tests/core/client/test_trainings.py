"""A training's log is followed through moments in which nobody answers."""

from collections.abc import Iterator, Mapping

import msgspec
import pytest

from pilotlight.api.schemas.training import Log
from pilotlight.client.trainings import PATIENCE, RemoteTrainings
from pilotlight.errors import UnavailableError


class Server:
    """Answers from a list; None stands for a moment in which it is away."""

    def __init__(self, *answers: Log | None) -> None:
        self._answers: Iterator[Log | None] = iter(answers)
        self.paths = list[str]()

    def __call__(self, verb: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = {}) -> bytes:
        self.paths.append(path)
        answer = next(self._answers)
        if answer is None:
            raise UnavailableError("Nothing answers.")
        return msgspec.json.encode(answer)


def test_lines_come_in_order_and_once() -> None:
    server = Server(
        Log(["a", "b"], "1", ended=False),
        Log([], "1", ended=False),
        None,
        Log(["c"], "2=", ended=False),
        Log(["d"], "3", ended=True),
    )
    looks = list[int]()
    follow = RemoteTrainings(server).follow("mon day", pause_s=0, look=lambda: looks.append(1))
    assert list(follow) == ["a", "b", "c", "d"]
    assert server.paths == [
        f"/v1/trainings/mon%20day/log{token}" for token in ("", "?token=1", "?token=1", "?token=1", "?token=2%3D")
    ]
    assert len(looks) == 2


def test_a_server_that_stays_away_is_given_up() -> None:
    server = Server(*[None] * PATIENCE)
    with pytest.raises(UnavailableError):
        list(RemoteTrainings(server).follow("monday", pause_s=0))
    assert len(server.paths) == PATIENCE
