"""A training's log is followed through moments in which nobody answers."""

from collections.abc import Iterator, Mapping

import msgspec
import pytest

from pilotlight.api.schemas.training import TrainingLog
from pilotlight.client.trainings import MAX_FAILED_POLLS, RemoteTrainings
from pilotlight.errors import UnavailableError


class Server:
    """Answers from a list; None stands for a moment in which it is away."""

    def __init__(self, *answers: TrainingLog | None) -> None:
        self._answers: Iterator[TrainingLog | None] = iter(answers)
        self.paths = list[str]()

    def __call__(self, verb: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = {}) -> bytes:
        self.paths.append(path)
        answer = next(self._answers)
        if answer is None:
            raise UnavailableError("Nothing answers.")
        return msgspec.json.encode(answer)


def test_lines_come_in_order_and_once() -> None:
    server = Server(
        TrainingLog(["a", "b"], "1", ended=False),
        TrainingLog([], "1", ended=False),
        None,
        TrainingLog(["c"], "2=", ended=False),
        TrainingLog(["d"], "3", ended=True),
    )
    looks = list[int]()
    follow = RemoteTrainings(server).follow_log("mon day", poll_interval_s=0, on_pause=lambda: looks.append(1))
    assert list(follow) == ["a", "b", "c", "d"]
    assert server.paths == [
        f"/v1/trainings/mon%20day/log{token}" for token in ("", "?token=1", "?token=1", "?token=1", "?token=2%3D")
    ]
    assert len(looks) == 2


def test_a_server_that_stays_away_is_given_up() -> None:
    server = Server(*[None] * MAX_FAILED_POLLS)
    with pytest.raises(UnavailableError):
        list(RemoteTrainings(server).follow_log("monday", poll_interval_s=0))
    assert len(server.paths) == MAX_FAILED_POLLS
