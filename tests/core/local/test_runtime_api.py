import asyncio
import json
from collections.abc import Callable

import pytest

from pilotlight.local.gateway_errors import GatewayError
from pilotlight.local.runtime_api import RuntimeApi
from tests.core.local.fakes import FakeOwner, FakeTransport, invocation

LIMIT = 100  # bytes of an answer
NEXT = b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n"


class Client:
    """A runtime client, byte by byte."""

    def __init__(self, api: RuntimeApi) -> None:
        self.transport = FakeTransport()
        self.protocol = api.create_connection()
        self.protocol.connection_made(self.transport)

    def send(self, data: bytes) -> bytes:
        """What is written in answer to `data`, which arrives in two pieces."""
        self.transport.written = b""
        self.protocol.data_received(data[:20])
        self.protocol.data_received(data[20:])
        return self.transport.written

    def post(self, path: str, body: bytes) -> tuple[int, dict[str, str]]:
        head = f"POST /2018-06-01/runtime/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        answer_head, _, answer = self.send(head.encode() + body).partition(b"\r\n\r\n")
        return int(answer_head.split()[1]), json.loads(answer)


def on_a_loop(scenario: Callable[[RuntimeApi, Client, FakeOwner], None]) -> None:
    async def run() -> None:
        owner = FakeOwner()
        api = RuntimeApi("F", "arn:f", 3.0, LIMIT, owner)
        scenario(api, Client(api), owner)

    asyncio.run(run())


def test_waiting_client_is_given_the_event_at_once() -> None:
    def scenario(api: RuntimeApi, client: Client, owner: FakeOwner) -> None:
        assert client.send(NEXT) == b""
        api.assign_invocation(invocation())
        head, _, body = client.transport.written.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
        assert b"Lambda-Runtime-Aws-Request-Id: id-1\r\n" in head
        assert b"Lambda-Runtime-Invoked-Function-Arn: arn:f\r\n" in head
        assert b"Lambda-Runtime-Trace-Id: Root=1\r\n" in head
        assert b"Lambda-Runtime-Deadline-Ms: " in head
        assert head.endswith(b"Content-Length: 7")
        assert (body, owner.told) == (b'{"a":1}', ["next"])

    on_a_loop(scenario)


def test_client_that_comes_later_is_given_the_event_then() -> None:
    def scenario(api: RuntimeApi, client: Client, _: FakeOwner) -> None:
        api.assign_invocation(invocation())
        assert not api.is_delivered
        assert client.send(NEXT).endswith(b'{"a":1}')
        assert api.is_delivered

    on_a_loop(scenario)


def test_client_that_has_hung_up_is_given_nothing() -> None:
    def scenario(api: RuntimeApi, client: Client, _: FakeOwner) -> None:
        client.send(NEXT)
        client.protocol.connection_lost(None)
        api.assign_invocation(invocation())
        assert (client.transport.written, api.is_delivered) == (b"", False)
        assert Client(api).send(NEXT).endswith(b'{"a":1}')

    on_a_loop(scenario)


def test_client_that_died_before_the_loop_has_noticed_is_given_nothing() -> None:
    """The gateway may read the next request before it reads that the connection of the dead process has ended."""

    def scenario(api: RuntimeApi, client: Client, _: FakeOwner) -> None:
        client.send(NEXT)
        client.transport.peer.close()
        api.assign_invocation(invocation())
        assert (client.transport.written, api.is_delivered) == (b"", False)

    on_a_loop(scenario)


def test_client_whose_connection_is_being_closed_is_given_nothing() -> None:
    def scenario(api: RuntimeApi, client: Client, _: FakeOwner) -> None:
        client.send(NEXT)
        client.send(b"\x16\x03\x01 this is TLS\r\n\r\n")
        api.assign_invocation(invocation())
        assert (client.transport.is_closed, client.transport.written, api.is_delivered) == (True, b"", False)

    on_a_loop(scenario)


def test_client_that_says_more_while_it_waits_is_given_the_event() -> None:
    def scenario(api: RuntimeApi, client: Client, _: FakeOwner) -> None:
        client.send(NEXT)
        client.transport.peer.send(b"x")
        api.assign_invocation(invocation())
        assert api.is_delivered

    on_a_loop(scenario)


def test_answer_is_accepted_and_passed_on() -> None:
    def scenario(api: RuntimeApi, client: Client, owner: FakeOwner) -> None:
        given = invocation()
        client.send(NEXT)
        api.assign_invocation(given)
        assert client.post("invocation/id-1/response", b'"done"') == (202, {"status": "OK"})
        assert given.outcome.result() == b'"done"'
        assert (api.invocation, owner.told) == (None, ["next", "done"])

    on_a_loop(scenario)


def test_error_is_accepted_and_told_with_its_type() -> None:
    def scenario(api: RuntimeApi, client: Client, owner: FakeOwner) -> None:
        given = invocation()
        client.send(NEXT)
        api.assign_invocation(given)
        report = json.dumps({"errorType": "KeyError", "errorMessage": "'x'"}).encode()
        assert client.post("invocation/id-1/error", report) == (202, {"status": "OK"})
        with pytest.raises(GatewayError, match="F failed with KeyError: 'x'"):
            given.outcome.result()
        assert owner.told == ["next", "done"]

    on_a_loop(scenario)


def test_error_without_a_report_is_still_an_error() -> None:
    def scenario(api: RuntimeApi, client: Client, _: FakeOwner) -> None:
        given = invocation()
        client.send(NEXT)
        api.assign_invocation(given)
        assert client.post("invocation/id-1/error", b"not json")[0] == 202
        with pytest.raises(GatewayError, match="a report that cannot be read: b'not json'"):
            given.outcome.result()

    on_a_loop(scenario)


@pytest.mark.parametrize("size", [LIMIT + 1, 50 * LIMIT])
def test_answer_over_the_limit_fails_the_invocation_and_frees_nobody(size: int) -> None:
    def scenario(api: RuntimeApi, client: Client, owner: FakeOwner) -> None:
        given = invocation()
        client.send(NEXT)
        api.assign_invocation(given)
        status, answer = client.post("invocation/id-1/response", b"x" * size)
        assert (status, answer["errorType"]) == (413, "RequestEntityTooLarge")
        with pytest.raises(GatewayError, match=f"the answer of F is {size} bytes, and Lambda takes {LIMIT} at most"):
            given.outcome.result()
        assert owner.told == ["next"]

    on_a_loop(scenario)


def test_answer_at_the_limit_passes() -> None:
    def scenario(api: RuntimeApi, client: Client, _: FakeOwner) -> None:
        given = invocation()
        client.send(NEXT)
        api.assign_invocation(given)
        assert client.post("invocation/id-1/response", b"x" * LIMIT)[0] == 202
        assert given.outcome.result() == b"x" * LIMIT

    on_a_loop(scenario)


@pytest.mark.parametrize("path", ["invocation/other/response", "invocation/other/error", "invocation/id-1/response"])
def test_answer_that_nobody_asked_for_is_refused(path: str) -> None:
    def scenario(api: RuntimeApi, client: Client, owner: FakeOwner) -> None:
        if path.startswith("invocation/other"):
            client.send(NEXT)
            api.assign_invocation(invocation())
        status, answer = client.post(path, b"{}")
        assert (status, answer["errorType"]) == (400, "InvalidRequestID")
        assert "done" not in owner.told

    on_a_loop(scenario)


def test_answer_that_nobody_waits_for_is_accepted() -> None:
    def scenario(api: RuntimeApi, client: Client, owner: FakeOwner) -> None:
        given = invocation()
        client.send(NEXT)
        api.assign_invocation(given)
        given.outcome.cancel()
        assert client.post("invocation/id-1/response", b"{}")[0] == 202
        assert owner.told == ["next", "done"]

    on_a_loop(scenario)


def test_init_error_is_told() -> None:
    def scenario(api: RuntimeApi, client: Client, owner: FakeOwner) -> None:
        report = b'{"errorType": "Runtime.ImportModuleError", "errorMessage": "no module"}'
        assert client.post("init/error", report)[0] == 202
        assert owner.told == ["Runtime.ImportModuleError: no module"]

    on_a_loop(scenario)


def test_other_paths_are_a_404() -> None:
    def scenario(api: RuntimeApi, client: Client, _: FakeOwner) -> None:
        status, answer = client.post("restore/next", b"")
        assert (status, answer["errorType"]) == (404, "NotFound")

    on_a_loop(scenario)


def test_garbage_closes_the_connection() -> None:
    def scenario(api: RuntimeApi, client: Client, _: FakeOwner) -> None:
        client.send(b"this is not HTTP at all, whatever one may think\r\n\r\n")
        assert client.transport.is_closed

    on_a_loop(scenario)
