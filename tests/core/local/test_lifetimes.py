"""How environments and the gateway itself begin and end, over HTTP, with real processes."""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

import pilotlight.local
from pilotlight.errors import InvalidInputError
from pilotlight.local.gateway import Gateway
from pilotlight.local.template import GatewayLimits
from tests.core.local.http_client import get
from tests.core.local.processes import is_gone, pid_of, wait_for_connections
from tests.fakes import eventually

# --- environments are started, shared and ended as on Lambda


def sleeps(url: str, count: int, seconds: float) -> list[dict[str, Any]]:
    """What so many handlers tell that slept at once, the first to begin first."""
    with ThreadPoolExecutor(count) as threads:
        spans = [reply.json for reply in threads.map(lambda _: get(url, f"/act/sleep?s={seconds}"), range(count))]
    return sorted(spans, key=lambda span: float(span["begun"]))


def test_two_workers_take_two_requests_at_once_and_let_the_third_wait(url: str) -> None:
    eventually(lambda: len({span["pid"] for span in sleeps(url, 2, 0.1)}) == 2)  # both are warm
    first, second, third = sleeps(url, 3, 0.6)
    assert second["begun"] < first["ended"]
    assert second["pid"] != first["pid"]
    assert third["begun"] >= min(first["ended"], second["ended"])
    assert third["pid"] in {first["pid"], second["pid"]}


def test_sequential_requests_use_one_environment(url: str) -> None:
    assert len({pid_of(url) for _ in range(5)}) == 1


def test_cold_start_is_told_once(stack: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pilotlight.local")
    with Gateway(stack, port=0, workers=1).serve_in_background() as url:
        get(url, "/prod/echo/a%0Ab?secret=1")
        get(url, "/echo")
    lines = [record.getMessage() for record in caplog.records if "/echo" in record.getMessage()]
    assert len(lines) == 2
    assert lines[0].startswith("GET /prod/echo/a%0Ab 200 ")
    assert " cold " in lines[0]
    assert " cold " not in lines[1]


def test_idle_environment_is_ended_and_another_takes_its_place(stack: Path) -> None:
    with Gateway(stack, port=0, workers=1, idle_s=0.2).serve_in_background() as url:
        first = pid_of(url)
        eventually(lambda: is_gone(first))
        assert pid_of(url) != first


def test_integration_limit_is_a_504_and_the_handler_goes_on(stack: Path) -> None:
    limits = GatewayLimits(integration_s=0.7)
    with Gateway(stack, port=0, workers=1, limits=limits).serve_in_background() as url:
        eventually(lambda: get(url, "/act/pid").status == 200)  # started, however slow this machine is
        before = pid_of(url)
        with ThreadPoolExecutor(2) as threads:  # the second one waits in line for as long
            replies = list(threads.map(lambda _: get(url, "/act/sleep?s=1.6"), range(2)))
        assert [reply.status for reply in replies] == [504, 504]
        assert replies[0].error == "Endpoint request timed out: no answer within 0.7 s."
        eventually(lambda: get(url, "/act/pid").status == 200)
        seen = get(url, "/act/pid").json
        assert seen["pid"] == before
        assert seen["seen"].count("sleep") == 1


def raw_request(url: str, path: str) -> socket.socket:
    connection = socket.create_connection((urlsplit(url).hostname, urlsplit(url).port))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return connection


def test_client_that_goes_away_leaves_the_line_and_spares_the_environment(stack: Path) -> None:
    with Gateway(stack, port=0, workers=1).serve_in_background() as url:
        before = pid_of(url)
        with raw_request(url, "/act/sleep-served?s=1.2"), raw_request(url, "/act/pid-abandoned"):
            wait_for_connections(url, 2)  # one is worked on, one waits
        after = get(url, "/act/pid").json
        assert after["pid"] == before
        assert after["seen"] == ["pid", "sleep-served", "pid"]


# --- its own start and end


def test_wrong_configuration_is_one_sentence(stack: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="0 workers"), Gateway(stack, port=0, workers=0).serve_in_background():
        pass
    with pytest.raises(InvalidInputError, match="take 1 to 1000"), Gateway(stack, workers=1001).serve_in_background():
        pass
    with (
        pytest.raises(InvalidInputError, match="Cannot read the template"),
        Gateway(tmp_path / "t.yaml").serve_in_background(),
    ):
        pass
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(InvalidInputError, match=f"port {port} of 127.0.0.1: Address already in use. Stop"),
            Gateway(stack, port=port).serve_in_background(),
        ):
            pass


def test_callback_that_fails_ends_the_gateway(stack: Path) -> None:
    def fail(url: str) -> None:
        raise RuntimeError(f"did not like {url}")

    with pytest.raises(RuntimeError, match=r"did not like http://127\.0\.0\.1:"):
        Gateway(stack, port=0).serve(fail)


def test_requests_in_flight_at_the_end_are_finished(stack: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        with Gateway(stack, port=0, workers=2).serve_in_background() as url:
            pid = pid_of(url)
            replies = [threads.submit(get, url, "/act/sleep?s=1") for _ in range(4)]
            wait_for_connections(url, 4)  # two are worked on, two wait
        found = [reply.result() for reply in replies]
    assert [(reply.status, reply.headers["connection"]) for reply in found] == [(200, "close")] * 4
    eventually(lambda: is_gone(pid))


def test_requests_that_outlast_the_grace_are_told_to_come_again(stack: Path) -> None:
    with ThreadPoolExecutor(2) as threads:
        with Gateway(stack, port=0, workers=1, drain_s=0.1).serve_in_background() as url:
            pid = pid_of(url)
            replies = [threads.submit(get, url, "/act/sleep?s=1.9") for _ in range(2)]
            wait_for_connections(url, 2)  # one is worked on, one waits
        found = [reply.result() for reply in replies]
    assert [(reply.status, reply.headers["retry-after"], reply.headers["connection"]) for reply in found] == [
        (503, "1", "close")
    ] * 2
    eventually(lambda: is_gone(pid))


SERVE = """
import sys
from pathlib import Path
from pilotlight.local.gateway import Gateway
Gateway(Path(sys.argv[1]), port=0, workers=2).serve(lambda url: print(url, flush=True))
print("served", flush=True)
"""


@contextmanager
def served(stack: Path, tmp: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    source = str(Path(pilotlight.local.__file__).parents[2])
    command = [sys.executable, "-c", SERVE, str(stack)]
    environ = {**os.environ, "PYTHONPATH": source, "TMPDIR": str(tmp)}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def environments(url: str, path: str = "/act/hang") -> list[int]:
    """Two of them, one idle and one in a handler that hangs."""
    threading.Thread(target=hang, args=(url, path), daemon=True).start()
    found: list[int] = []

    def both() -> bool:
        """Whether there are two, of which a request finds one idle as soon as the other hangs."""
        processes = psutil.Process(pid_of(url)).parent()
        assert processes is not None
        found[:] = [child.pid for child in processes.children()]
        return len(found) == 2

    eventually(both)
    return found


def hang(url: str, path: str) -> None:
    try:
        get(url, path)
    except OSError:
        return  # the gateway was killed, as it should be


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_gateway_and_environments(stack: Path, tmp_path: Path, number: signal.Signals) -> None:
    with served(stack, tmp_path) as (process, url):
        pids = environments(url)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
        assert (process.returncode, output) == (0, "served\n")
        assert list(tmp_path.iterdir()) == []  # what environments had for /tmp
        assert all(is_gone(pid) for pid in pids)


def is_refused(url: str) -> bool:
    try:
        socket.create_connection((urlsplit(url).hostname, urlsplit(url).port)).close()
    except ConnectionRefusedError:
        return True
    return False


def test_signal_lets_four_requests_finish_and_refuses_new_connections(stack: Path, tmp_path: Path) -> None:
    with served(stack, tmp_path) as (process, url), ThreadPoolExecutor(4) as threads:
        eventually(lambda: len({span["pid"] for span in sleeps(url, 2, 0.1)}) == 2)
        replies = [threads.submit(get, url, "/act/sleep?s=1") for _ in range(4)]
        wait_for_connections(url, 4, process.pid)  # two are worked on, two wait
        process.send_signal(signal.SIGTERM)
        eventually(lambda: is_refused(url))
        assert [reply.result().status for reply in replies] == [200] * 4
        output, _ = process.communicate(timeout=60)
        assert (process.returncode, output) == (0, "served\n")


def test_second_signal_ends_it_at_once(stack: Path, tmp_path: Path) -> None:
    with served(stack, tmp_path) as (process, url):
        pids = environments(url, "/nap")
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)  # it is waiting for the handler
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=5)
        assert process.returncode == 0
        assert all(is_gone(pid) for pid in pids)


def test_environment_that_takes_too_much_memory_costs_nobody_else_an_answer(stack: Path) -> None:
    with Gateway(stack, port=0, workers=2).serve_in_background() as url, ThreadPoolExecutor(3) as threads:
        eventually(lambda: len({span["pid"] for span in sleeps(url, 2, 0.1)}) == 2)
        others = [threads.submit(get, url, "/act/sleep?s=0.6") for _ in range(2)]
        hog = threads.submit(get, url, "/hog")
        assert hog.result().status == 502
        assert [other.result().status for other in others] == [200, 200]
        assert get(url, "/act/pid").status == 200


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent was killed")
def test_environments_die_with_a_killed_gateway(stack: Path, tmp_path: Path) -> None:
    with served(stack, tmp_path) as (process, url):
        pids = environments(url)
        process.kill()
        process.wait()
        eventually(lambda: all(is_gone(pid) for pid in pids))
