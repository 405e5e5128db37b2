"""Stand-ins for the two neighbours of the Runtime API: the runtime client's connection, and whoever owns it."""

import asyncio
from collections.abc import Iterable

from pilotlight.local.runtime_api import Invocation


class FakeTransport(asyncio.Transport):
    """Keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        for data in list_of_data:
            self.write(data)

    def close(self) -> None:
        self.is_closed = True


class FakeOwner:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def on_next(self) -> None:
        self.told.append("next")

    def on_done(self) -> None:
        self.told.append("done")

    def on_init_error(self, text: str) -> None:
        self.told.append(text)


def invocation(request_id: str = "id-1", *, is_abandoned: bool = False) -> Invocation:
    """An invocation of the running loop."""
    outcome = asyncio.get_running_loop().create_future()
    return Invocation(request_id, "Root=1", b'{"a":1}', outcome, lambda: is_abandoned)
