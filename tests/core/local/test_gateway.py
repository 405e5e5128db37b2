"""The gateway as a whole, over HTTP, with real environments."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
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
from pilotlight.local.limits import Limits
from tests.core.local.http_client import ask, connected, get

WAIT_S = 30  # an upper bound for what should take a moment


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {WAIT_S} s"
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def pid_of(url: str) -> int:
    return int(get(url, "/act/pid").json["pid"])


# --- what a handler sees, and what its answer becomes


def test_event_reaches_the_handler_as_on_aws(url: str) -> None:
    body = bytes(range(256))
    reply = ask(url, "POST", "/prod/echo/a%20b?x=1&x=2&y=%C3%BC", body, {"X-Thing": "one", "User-Agent": "test"})
    event = reply.json["event"]
    assert (event["resource"], event["path"], event["httpMethod"]) == ("/echo/{name}", "/echo/a%20b", "POST")
    assert event["pathParameters"] == {"name": "a b"}
    assert event["queryStringParameters"] == {"x": "2", "y": "ü"}
    assert event["multiValueQueryStringParameters"] == {"x": ["1", "2"], "y": ["ü"]}
    assert event["headers"]["x-thing"] == "one"
    assert event["multiValueHeaders"]["user-agent"] == ["test"]
    assert (b64decode(event["body"]), event["isBase64Encoded"]) == (body, True)
    assert event["requestContext"]["path"] == "/prod/echo/a%20b"
    assert event["requestContext"]["requestId"] == reply.headers["x-amzn-requestid"]
    assert event["requestContext"]["identity"]["sourceIp"] == "127.0.0.1"


def test_request_without_body_query_or_parameters(url: str) -> None:
    event = get(url, "/echo").json["event"]
    absent = ["body", "queryStringParameters", "multiValueQueryStringParameters", "pathParameters", "stageVariables"]
    assert [event[name] for name in absent] == [None] * len(absent)
    assert event["isBase64Encoded"] is False


def test_context_says_what_lambda_says(url: str) -> None:
    reply = get(url, "/echo")
    context = reply.json["context"]
    assert context["aws_request_id"] == reply.headers["x-amzn-requestid"]
    assert (context["function_name"], context["function_version"]) == ("EchoFunction", "$LATEST")
    assert context["memory_limit_in_mb"] == "256"
    assert context["invoked_function_arn"].endswith(":123456789012:function:EchoFunction")
    assert context["log_group_name"] == "/aws/lambda/EchoFunction"
    assert "/[$LATEST]" in context["log_stream_name"]
    assert 0 < context["remaining_ms"] <= 20_000


def test_variables_of_an_environment(url: str, stack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = get(url, "/echo").json
    environ = seen["environ"]
    assert (environ["COLOUR"], environ["SHAPE"]) == ("blue", "round")  # the caller's beats the template's
    assert environ["_HANDLER"] == "handlers.echo"
    assert environ["LAMBDA_TASK_ROOT"] == seen["cwd"] == str(stack.parent)
    assert environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == "256"
    assert environ["AWS_LAMBDA_INITIALIZATION_TYPE"] == "on-demand"
    assert environ["TZ"] == ":UTC"
    assert "PYTEST_CURRENT_TEST" not in environ  # nothing of the gateway's own that nobody asked for


def test_unicode_in_path_and_body(url: str) -> None:
    event = ask(url, "POST", "/files/%E6%A8%A1%E5%9E%8B/%2F", "é".encode()).status
    assert event == 404  # only GET is there
    event = get(url, "/files/%E6%A8%A1%E5%9E%8B/a%2Fb").json["event"]
    assert event["pathParameters"] == {"path": "模型/a/b"}
    assert event["path"] == "/files/%E6%A8%A1%E5%9E%8B/a%2Fb"


def test_answer_becomes_http(url: str) -> None:
    answer = {
        "statusCode": 418,
        "headers": {"Content-Type": "text/plain", "X-Number": 7},
        "multiValueHeaders": {"Set-Cookie": ["a=1", "b=2"]},
        "body": b64encode(b"\x00\xff").decode(),
        "isBase64Encoded": True,
    }
    reply = ask(url, "POST", "/reply", json.dumps(answer))
    assert (reply.status, reply.body, reply.headers["content-length"]) == (418, b"\x00\xff", "2")
    assert (reply.headers["content-type"], reply.headers["x-number"]) == ("text/plain", "7")
    assert reply.headers.get_all("set-cookie") == ["a=1", "b=2"]
    assert reply.headers["x-amzn-requestid"]


def test_head_and_no_content_keep_the_connection_in_order(url: str) -> None:
    with connected(url) as connection:
        assert connection.ask("HEAD", "/echo").body == b""
        none = connection.ask("POST", "/reply", json.dumps({"statusCode": 204}))
        assert (none.status, none.body, none.headers["content-length"]) == (204, b"", None)
        assert connection.ask("GET", "/echo").status == 200


def test_many_requests_over_one_connection(url: str) -> None:
    with connected(url) as connection:
        bodies = [str(number).encode() for number in range(200)]
        events = [connection.ask("POST", "/echo", body).json["event"] for body in bodies]
        assert [b64decode(event["body"]) for event in events] == bodies
        assert connection.http.sock is not None


def test_unknown_route_is_worded_by_the_template(url: str) -> None:
    for path in ("/", "/nothing", "/prod", "/prod/nothing", "/echo/a/b"):
        reply = get(url, path)
        assert (reply.status, reply.json) == (404, {"error": "no such route"})


def test_output_of_a_handler_goes_to_stderr(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    get(url, "/act/print")
    eventually(lambda: "said by the handler" in capfd.readouterr().err)


# --- what goes wrong costs an environment at most, never the gateway


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("crash", "ActFunction exited with code 3 during a request"),
        ("exit", "ActFunction exited with code 4 during a request"),
        ("segfault", "ActFunction was ended by SIGSEGV during a request"),
        ("hang", "ActFunction timed out after 2 s (Timeout of ActFunction in template.yaml)"),
        ("hog", "MB of 256 MB (MemorySize of ActFunction in template.yaml)"),
        ("oversize", "and Lambda takes 6291556 at most"),
    ],
)
def test_lost_environment_is_one_502(url: str, what: str, says: str) -> None:
    before = pid_of(url)
    reply = get(url, f"/act/{what}")
    assert reply.status == 502
    assert says in reply.error
    assert reply.error.startswith("Internal server error: ")
    eventually(lambda: is_gone(before))
    assert get(url, "/act/pid").status == 200


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("raise", "ActFunction failed with ValueError: the tensor is flat"),
        ("raise?x=300000", "ActFunction failed with ValueError: the tensor is flat xxx"),  # larger than a header may be
        ("unserialisable", "ActFunction failed with Runtime.MarshalError: Unable to marshal response"),
    ],
)
def test_error_of_a_handler_keeps_the_environment(url: str, what: str, says: str) -> None:
    before = pid_of(url)
    reply = get(url, f"/act/{what}")
    assert reply.status == 502
    assert says in reply.error
    assert pid_of(url) == before


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/missing-module", "Runtime.ImportModuleError: Unable to import module 'no_such_module'"),
        ("/missing-handler", "Runtime.HandlerNotFound: Handler 'no_such_function' missing on module 'handlers'"),
        ("/failing-import", "RuntimeError: the model is missing"),
        ("/endless-import", "was not initialised after 1 s and the 1 s of Timeout of EndlessImportFunction"),
    ],
)
def test_failed_init_is_a_502_each_time(url: str, path: str, says: str) -> None:
    for _ in range(2):
        reply = get(url, path)
        assert reply.status == 502
        assert says in reply.error


@pytest.mark.parametrize("answer", [None, [], "text", 7, {}, {"statusCode": "200"}, {"statusCode": 200, "body": {}}])
def test_malformed_answer_is_a_502_that_says_so(url: str, answer: object) -> None:
    reply = ask(url, "POST", "/reply", json.dumps(answer))
    assert reply.status == 502
    assert "malformed Lambda proxy response" in reply.error


def test_answers_up_to_the_limit_pass(url: str) -> None:
    reply = get(url, "/act/large")
    assert (reply.status, len(reply.json)) == (200, 6_000_000)


def test_event_over_6_mb_is_refused(url: str) -> None:
    reply = ask(url, "POST", "/echo", bytes(5_000_000))
    assert reply.status == 413
    assert reply.error.startswith("Request Too Long: ")
    assert "6291456" in reply.error


def test_body_over_10_mb_is_refused_and_the_connection_goes_on(url: str) -> None:
    with connected(url) as connection:
        reply = connection.ask("POST", "/echo", bytes(12_000_000))
        assert reply.status == 413
        assert "10485760" in reply.error
        assert connection.ask("GET", "/echo").status == 200


def test_chunked_body_is_refused_while_it_is_read(url: str) -> None:
    with connected(url) as connection:
        connection.http.request("POST", "/echo", iter([bytes(1_000_000)] * 12), encode_chunked=True)
        assert connection.http.getresponse().status == 413


def test_environment_that_dies_after_its_answer_loses_no_request(url: str) -> None:
    for _ in range(2):
        died = get(url, "/act/late").json["pid"]
        eventually(lambda died=died: is_gone(died))  # type: ignore[misc]  # mypy takes the default for an argument
        assert get(url, "/act/pid").status == 200


def test_children_of_a_handler_end_with_their_environment(url: str) -> None:
    child = get(url, "/act/spawn").json["child"]
    get(url, "/act/crash")
    eventually(lambda: is_gone(child))


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
    with Gateway(stack, port=0, workers=1).background() as url:
        get(url, "/prod/echo/a%0Ab?secret=1")
        get(url, "/echo")
    lines = [record.getMessage() for record in caplog.records if " 200 " in record.getMessage()]
    assert len(lines) == 2
    assert lines[0].startswith("GET /prod/echo/a%0Ab 200 ")
    assert " cold " in lines[0]
    assert " cold " not in lines[1]


def test_idle_environment_is_ended_and_another_takes_its_place(stack: Path) -> None:
    with Gateway(stack, port=0, workers=1, idle_s=0.2).background() as url:
        first = pid_of(url)
        eventually(lambda: is_gone(first))
        assert pid_of(url) != first


def test_integration_limit_is_a_504_and_the_handler_goes_on(stack: Path) -> None:
    limits = Limits(integration_s=0.7)
    with Gateway(stack, port=0, workers=1, limits=limits).background() as url:
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
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
    return connection


def test_client_that_goes_away_leaves_the_line_and_spares_the_environment(stack: Path) -> None:
    with Gateway(stack, port=0, workers=1).background() as url:
        before = pid_of(url)
        with raw_request(url, "/act/sleep-served?s=1.2"), raw_request(url, "/act/pid-abandoned"):
            time.sleep(0.5)  # both have arrived: one is worked on, one waits
        after = get(url, "/act/pid").json
        assert after["pid"] == before
        assert after["seen"] == ["pid", "sleep-served", "pid"]


def test_client_that_goes_away_in_the_middle_of_its_body(url: str) -> None:
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port)) as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nhalf")
    assert get(url, "/echo").status == 200


def test_garbage_is_a_400(url: str) -> None:
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port)) as connection:
        connection.sendall(b"\x16\x03\x01 this is TLS\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")


# --- its own start and end


def test_wrong_configuration_is_one_sentence(stack: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="0 workers"), Gateway(stack, port=0, workers=0).background():
        pass
    with pytest.raises(InvalidInputError, match="Cannot read the template"), Gateway(tmp_path / "t.yaml").background():
        pass
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(InvalidInputError, match=f"port {port} of 127.0.0.1: Address already in use. Stop"),
            Gateway(stack, port=port).background(),
        ):
            pass


def test_callback_that_fails_ends_the_gateway(stack: Path) -> None:
    def fail(url: str) -> None:
        raise RuntimeError(f"did not like {url}")

    with pytest.raises(RuntimeError, match=r"did not like http://127\.0\.0\.1:"):
        Gateway(stack, port=0).serve(fail)


def test_requests_in_flight_at_the_end_are_answered(stack: Path) -> None:
    with ThreadPoolExecutor(2) as threads:
        with Gateway(stack, port=0, workers=1).background() as url:
            pid = pid_of(url)
            replies = [threads.submit(get, url, "/act/sleep?s=1.9") for _ in range(2)]
            time.sleep(0.5)  # both have arrived: one is worked on, one waits
        statuses = [reply.result().status for reply in replies]
    assert statuses == [503, 503]
    eventually(lambda: is_gone(pid))


SERVE = """
import sys
from pathlib import Path
from pilotlight.local.gateway import Gateway
Gateway(Path(sys.argv[1]), port=0, workers=2).serve(lambda url: print(url, flush=True))
print("served", flush=True)
"""


@contextmanager
def served(stack: Path, tmp: Path) -> "Iterator[tuple[subprocess.Popen[str], str]]":
    source = str(Path(pilotlight.local.__file__).parents[2])
    command = [sys.executable, "-c", SERVE, str(stack)]
    environ = {**os.environ, "PYTHONPATH": source, "TMPDIR": str(tmp)}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def environments(url: str) -> list[int]:
    """Two of them, one idle and one in a handler that hangs."""
    threading.Thread(target=hang, args=(url,), daemon=True).start()
    found: list[int] = []

    def both() -> bool:
        """Whether there are two, of which a request finds one idle as soon as the other hangs."""
        processes = psutil.Process(pid_of(url)).parent()
        assert processes is not None
        found[:] = [child.pid for child in processes.children()]
        return len(found) == 2

    eventually(both)
    return found


def hang(url: str) -> None:
    try:
        get(url, "/act/hang")
    except OSError:
        return  # the gateway was killed, as it should be


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_gateway_and_environments(stack: Path, tmp_path: Path, number: signal.Signals) -> None:
    with served(stack, tmp_path) as (process, url):
        pids = environments(url)
        process.send_signal(number)
        output, _ = process.communicate(timeout=WAIT_S)
        assert (process.returncode, output) == (0, "served\n")
        assert list(tmp_path.iterdir()) == []  # what environments had for /tmp
        assert all(is_gone(pid) for pid in pids)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent was killed")
def test_environments_die_with_a_killed_gateway(stack: Path, tmp_path: Path) -> None:
    with served(stack, tmp_path) as (process, url):
        pids = environments(url)
        process.kill()
        process.wait()
        eventually(lambda: all(is_gone(pid) for pid in pids))
