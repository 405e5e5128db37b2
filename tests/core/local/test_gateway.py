"""The gateway as a whole, over HTTP, with real environments."""

import json
import socket
from base64 import b64decode, b64encode
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.core.local.http_client import ask, connected, get
from tests.core.local.processes import is_gone, pid_of
from tests.fakes import eventually

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


def test_too_much_memory_is_one_502(url: str) -> None:
    reply = get(url, "/hog")
    assert reply.status == 502
    assert "MB of 256 MB (MemorySize of HogFunction in template.yaml)" in reply.error


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


def test_client_that_goes_away_in_the_middle_of_its_body(url: str) -> None:
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port)) as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf")
    assert get(url, "/echo").status == 200


def test_garbage_is_a_400(url: str) -> None:
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port)) as connection:
        connection.sendall(b"\x16\x03\x01 this is TLS\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
