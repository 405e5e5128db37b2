"""What nobody waits for is tried as often as it is said, and what came of it is in the log."""

import asyncio
import logging
import threading

import pytest

from pilotlight.local import background_tasks
from pilotlight.local.background_tasks import BackgroundTasks
from pilotlight.local.gateway_errors import INVALID_REQUEST, THROTTLED, GatewayError


class Failing:
    """A function that fails so many times."""

    def __init__(self, times: int) -> None:
        self.left, self.asked = times, 0

    async def invoke(self, function: str, event: bytes) -> bytes:
        self.asked += 1
        if self.asked <= self.left:
            raise GatewayError(INVALID_REQUEST, "it is broken")
        return b'"done"'


@pytest.mark.parametrize(
    ("fails", "attempts", "said"),
    [
        (0, 1, ['F: "done"']),
        (1, 1, ["F: it is broken"]),
        (2, 3, ["F, attempt 1 of 3: it is broken", "F, attempt 2 of 3: it is broken", 'F: "done"']),
        (9, 2, ["F, attempt 1 of 2: it is broken", "F, attempt 2 of 2: it is broken"]),
    ],
)
def test_what_fails_is_tried_again(
    fails: int, attempts: int, said: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(background_tasks, "RETRY_WAIT_S", 0)
    caplog.set_level(logging.INFO, "pilotlight.local")
    asyncio.run(BackgroundTasks(Failing(fails).invoke, attempts).invoke_function("F", b"{}"))
    ours = [
        record for record in caplog.records if record.thread == threading.get_ident()
    ]  # other tests' gateways log too
    assert [record.getMessage() for record in ours] == said


def test_tasks_have_a_limit() -> None:
    async def scenario() -> None:
        tasks = BackgroundTasks(Failing(0).invoke, max_tasks=2)
        for _ in range(2):
            tasks.start(asyncio.sleep(60))
        with pytest.raises(GatewayError, match="2 invocations wait in the background") as caught:
            tasks.start(asyncio.sleep(60))
        assert caught.value.kind is THROTTLED
        await tasks.stop()
        tasks.start(asyncio.sleep(0))
        await tasks.stop()

    asyncio.run(scenario())


def test_what_is_under_way_ends_with_who_began_it() -> None:
    async def scenario() -> None:
        ended = asyncio.Event()

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        began = BackgroundTasks(Failing(0).invoke)
        began.start(work())
        await asyncio.sleep(0)
        await began.stop()
        assert ended.is_set()

    asyncio.run(scenario())
