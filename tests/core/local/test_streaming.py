"""Streamed answers through a real environment with our runtime client, as clients see them."""

import http.client
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import openai
import pytest

from pilotlight.local.gateway import Gateway
from pilotlight.local.template import GatewayLimits
from tests.core.local.http_client import Connection, connected, get
from tests.fakes import eventually

ROOT = Path(__file__).parents[3]
LIMITS = GatewayLimits(stream_bytes=1_000_000, stream_idle_s=2.0)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the wrapper is a shell script, as on Lambda")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with the function that streams, and what starts the generate function's runtime client."""
    folder = tmp_path_factory.mktemp("stack") / "streaming"
    shutil.copytree(Path(__file__).parent / "streaming_stack", folder)
    for name in ("runtime_wrapper", "start_runtime.py"):
        shutil.copy2(ROOT / "functions" / "generate" / name, folder)
    (folder / "pilotlight").symlink_to(ROOT / "layers" / "core" / "pilotlight")
    return folder / "template.yaml"


@pytest.fixture(scope="module")
def url(stack: Path) -> Iterator[str]:
    with Gateway(stack, port=0, workers=1, limits=LIMITS).serve_in_background() as address:
        yield address


@pytest.fixture
def fresh_url(stack: Path) -> Iterator[str]:
    """A gateway with an environment of its own, which is not waited for at its end."""
    with Gateway(stack, port=0, workers=1, limits=LIMITS, drain_s=0.0).serve_in_background() as address:
        yield address


@contextmanager
def opened(url: str, path: str) -> Iterator[http.client.HTTPResponse]:
    """A response whose head has come."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    with closing(connection):
        connection.request("GET", path)
        yield connection.getresponse()


def describe_process(connection: Connection) -> tuple[int, int, int]:
    """Process id, threads and descriptors of the environment."""
    pid, threads, descriptors = connection.ask("GET", "/stream/process").body.split()
    return int(pid), int(threads), int(descriptors)


def read_process(url: str) -> tuple[int, int, int]:
    with connected(url) as connection:
        return describe_process(connection)


# --- what arrives, and when


def test_a_chunk_arrives_before_the_next_one_is_made(url: str, tmp_path: Path) -> None:
    with opened(url, f"/stream/gated?gate={tmp_path / 'gate'}") as response:
        assert (response.status, response.headers["content-type"]) == (200, "text/event-stream")
        assert response.headers["transfer-encoding"] == "chunked"
        assert response.headers["x-amzn-requestid"]
        assert response.read1(100) == b"one"
        (tmp_path / "gate").touch()
        assert response.read() == b"two"


def test_a_connection_is_used_again_after_a_stream(url: str) -> None:
    with connected(url) as connection:
        for _ in range(3):
            assert connection.ask("GET", "/stream/much?count=3").body == b"x" * 3 * 65_536


@pytest.mark.parametrize("what", ["nothing", "nothing-streamed"])
def test_an_answer_without_a_body_ends(url: str, what: str) -> None:
    with connected(url) as connection:
        none = connection.ask("GET", f"/stream/{what}")
        assert (none.status, none.body) == (204, b"")
        assert connection.ask("GET", "/stream/refuse").status == 400


def test_an_answer_in_one_piece_keeps_its_status_and_headers(url: str) -> None:
    refusal = get(url, "/stream/refuse")
    assert (refusal.status, refusal.headers["content-type"], refusal.json) == (400, "application/json", {"error": {}})
    assert get(url, "/stream/binary").body == b"\x00\xff"


def test_head_has_no_body(url: str) -> None:
    with connected(url) as connection:
        head = connection.ask("HEAD", "/stream/much?count=2")
        assert (head.status, head.body) == (200, b"")
        assert connection.ask("GET", "/stream/refuse").status == 400


# --- what goes wrong


def test_a_failure_in_the_middle_is_an_exception_in_the_client(url: str) -> None:
    received: list[bytes] = []
    with httpx2.Client() as client, client.stream("GET", f"{url}/stream/fail") as response:
        assert response.status_code == 200
        with pytest.raises(httpx2.RemoteProtocolError, match="incomplete chunked read"):
            received.extend(response.iter_raw())
    assert b"".join(received).endswith(b'"one"}}]}\n\n')
    assert get(url, "/stream/refuse").status == 400  # the environment has gone on


def test_openais_client_sees_it_too(url: str) -> None:
    client = openai.OpenAI(base_url=f"{url}/stream", api_key="none", max_retries=0)
    received: list[object] = []
    with client:
        stream = client.post("/fail", cast_to=object, stream=True, stream_cls=openai.Stream[object])
        with pytest.raises(openai.APIConnectionError):
            received.extend(stream)
    assert len(received) == 1


def test_a_failure_before_the_first_chunk_is_a_502(url: str) -> None:
    reply = get(url, "/stream/fail-first")
    assert reply.status == 502
    assert "StreamFunction failed with ValueError: the tensor is flat" in reply.json["message"]


@pytest.mark.parametrize("route", ["stream", "buffered"])
@pytest.mark.parametrize("what", ["no-base64", "half-a-pair"])
def test_a_body_that_cannot_be_sent_is_a_502_and_the_environment_goes_on(url: str, route: str, what: str) -> None:
    before = get(url, f"/{route}/process").body.split()[0]
    assert get(url, f"/{route}/{what}").status == 502
    assert get(url, f"/{route}/process").body.split()[0] == before


def test_the_death_of_an_environment_cuts_its_stream(url: str, tmp_path: Path) -> None:
    before = read_process(url)[0]
    with opened(url, f"/stream/exit?gate={tmp_path / 'gate'}") as response:
        assert response.read1(100) == b"one"
        (tmp_path / "gate").touch()
        with pytest.raises(http.client.IncompleteRead):
            response.read()
    assert read_process(url)[0] != before


def test_the_timeout_of_the_function_cuts_its_stream(url: str) -> None:
    with opened(url, "/short/hang") as response:
        assert response.read1(100) == b"one"
        with pytest.raises(http.client.IncompleteRead):
            response.read()


def test_a_stream_without_chunks_for_too_long_is_cut(fresh_url: str) -> None:
    with opened(fresh_url, "/stream/hang") as response:
        assert response.read1(100) == b"one"
        with pytest.raises(http.client.IncompleteRead):
            response.read()


def test_a_stream_beyond_lambdas_limit_is_cut(url: str) -> None:
    before = read_process(url)
    with opened(url, "/stream/much?count=100") as response, pytest.raises(http.client.IncompleteRead) as caught:
        response.read()
    assert 0 < len(caught.value.partial) <= LIMITS.stream_bytes
    assert read_process(url)[0] == before[0]


def test_a_function_that_streams_cannot_be_behind_a_route_that_does_not(url: str) -> None:
    reply = get(url, "/whole/refuse")
    assert reply.status == 502
    assert "malformed Lambda proxy response" in reply.json["message"]


def test_a_function_may_be_told_not_to_stream(url: str, tmp_path: Path) -> None:
    (tmp_path / "gate").touch()
    reply = get(url, f"/buffered/gated?gate={tmp_path / 'gate'}")
    assert (reply.status, reply.headers["content-length"], reply.body) == (200, "6", b"onetwo")
    assert get(url, "/buffered/binary").body == b"\x00\xff"


# --- clients that leave


def abort_streams(url: str, folder: Path, count: int) -> None:
    """Leave so many streams after their first chunk; wait each time until the environment has noticed."""
    for number in range(count):
        told = folder / str(number)
        with opened(url, f"/stream/endless?told={told}") as response:
            assert response.read1(9) == b"data: 1\n\n"
        eventually(told.exists)


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_aborted_streams_leave_nothing_behind(fresh_url: str, tmp_path: Path, count: int) -> None:
    abort_streams(fresh_url, tmp_path, 3)
    before = read_process(fresh_url)
    abort_streams(fresh_url, tmp_path, count)
    assert read_process(fresh_url) == before


def test_a_client_that_leaves_is_noticed_without_a_byte_to_send(fresh_url: str, tmp_path: Path) -> None:
    with opened(fresh_url, f"/stream/endless?beat=&told={tmp_path / 'told'}") as response:
        assert response.read1(9) == b"data: 1\n\n"
    eventually((tmp_path / "told").exists)
