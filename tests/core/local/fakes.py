"""Stand-ins for what the gateway's parts deal with: a runtime client's connection, its owner, an environment."""

import asyncio
import socket
from collections.abc import Iterable

from pilotlight.local.pool import OnFree
from pilotlight.local.runtime_api import Invocation


class FakeTransport(asyncio.Transport):
    """Keeps what is written to it; `peer` is the other end of its socket."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_closed = False
        self.socket, self.peer = socket.socketpair()
        self.socket.setblocking(False)

    def __del__(self) -> None:
        self.socket.close()
        self.peer.close()

    def get_extra_info(self, name: str, default: object = None) -> object:
        return {"peername": ("127.0.0.1", 50_000), "socket": self.socket}.get(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        for data in list_of_data:
            self.write(data)

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed


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


class FakeEnvironment:
    """Does what `Environment` does, at the test's command."""

    def __init__(self, on_free: OnFree) -> None:
        self._on_free = on_free
        self._end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.initialised = False
        self.free_since: float | None = None
        self.working: Invocation | None = None
        self.is_delivered = True
        self.checks = 0

    async def run(self) -> str:
        return await self._end

    def take(self, given: Invocation) -> None:
        self.free_since, self.working = None, given

    def get_unfinished(self) -> tuple[Invocation | None, bool]:
        return self.working, self.is_delivered

    def check_limits(self, now: float) -> None:
        self.checks += 1

    def end(self, reason: str) -> None:
        self._end.set_result(f"F {reason}")

    def become_free(self) -> None:
        self.initialised, self.working = True, None
        self.free_since = asyncio.get_running_loop().time()
        self._on_free(self)

    def finish(self) -> None:
        assert self.working is not None
        self.working.finish(b"{}")
        self.become_free()
