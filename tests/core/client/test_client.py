import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from pilotlight.client.client import Client, InferResponse, Tensor
from pilotlight.errors import (
    InvalidInputError,
    MethodNotAllowedError,
    NotFoundError,
    PilotlightError,
    TooLargeError,
    UnavailableError,
    UnsupportedError,
)
from tests.threaded_server import serve_in_thread

CORE = Path(__file__).parents[3] / "layers" / "core"


class Scripted(BaseHTTPRequestHandler):
    """Answers as its class is told, and remembers what it was asked."""

    status: int = 200
    answer: bytes = b"{}"
    asked: list[tuple[str, str, Any]]

    def do_GET(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        self.asked.append((self.command, self.path, json.loads(body) if body else None))
        self.send_response(self.status)
        self.send_header("content-length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)

    do_POST = do_GET  # noqa: N815 - http.server's spelling

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[tuple[str, type[Scripted]]]:
    handler = type("Handler", (Scripted,), {"asked": []})
    listening = HTTPServer(("127.0.0.1", 0), handler)
    with serve_in_thread(listening):
        yield f"http://127.0.0.1:{listening.server_port}", handler


def test_infer_speaks_v2(server: tuple[str, type[Scripted]]) -> None:
    url, handler = server
    answer = {
        "model_name": "m",
        "model_version": "3",
        "id": "a",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [None]}],
    }
    handler.answer = json.dumps(answer).encode()
    with Client(url + "/prod/") as client:
        found = client.infer("m", [Tensor("x", "FP32", [1], [1.5])], version="champion", outputs=["y"], id="a")
    assert found == InferResponse("m", "3", [Tensor("y", "FP32", [1], [None])], "a")
    assert found.get_output("y").data == [None]
    with pytest.raises(NotFoundError, match="answered without 'z'"):
        found.get_output("z")
    tensor = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1.5]}
    body = {"inputs": [tensor], "outputs": [{"name": "y"}], "id": "a"}
    assert handler.asked == [("POST", "/prod/v2/models/m/versions/champion/infer", body)]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidInputError),
        (404, NotFoundError),
        (405, MethodNotAllowedError),
        (413, TooLargeError),
        (501, UnsupportedError),
        (500, UnavailableError),
        (503, UnavailableError),
        (504, UnavailableError),
    ],
)
def test_statuses_become_errors(server: tuple[str, type[Scripted]], status: int, kind: type[PilotlightError]) -> None:
    url, handler = server
    handler.status, handler.answer = status, b'{"error":"what to do"}'
    with Client(url) as client, pytest.raises(kind, match=r"^what to do$"):
        client.list_models()


@pytest.mark.parametrize(("status", "answer"), [(502, b"<html>Bad Gateway</html>"), (200, b"<html>Welcome</html>")])
def test_a_server_that_is_not_ours_is_said(server: tuple[str, type[Scripted]], status: int, answer: bytes) -> None:
    url, handler = server
    handler.status, handler.answer = status, answer
    with (
        Client(url) as client,
        pytest.raises(UnavailableError, match=r"The server (answered 502|did not answer as V2)"),
    ):
        client.list_models()


def test_nobody_there_is_not_ready() -> None:
    with Client("http://127.0.0.1:9") as client:
        assert not client.is_ready()
        with pytest.raises(UnavailableError, match=r"Nothing answers at http://127\.0\.0\.1:9"):
            client.list_models()


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://host", ""])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError, match=r"is not a URL.*use http://host:port"), Client(url) as client:
        client.list_models()


@pytest.mark.parametrize("value", ["a\nsecret", "secret\r", " secret", "secret ", "s\u00e9cret", "\0secret"])
def test_a_header_that_cannot_be_sent_is_refused_without_its_value(value: str) -> None:
    with pytest.raises(InvalidInputError, match="The header x-api-key cannot be sent") as raised:
        Client("http://127.0.0.1:9", headers={"x-api-key": value})
    assert "cret" not in str(raised.value)


@pytest.mark.parametrize("value", ["", "k", "a key", "~!\t~"])
def test_any_other_header_may_be_sent(value: str, server: tuple[str, type[Scripted]]) -> None:
    url, _ = server
    with Client(url, headers={"x-api-key": value}) as client:
        assert client.send_request("GET", "/v2").status


def test_the_client_brings_no_runtime() -> None:
    heavy = ("onnxruntime", "torch", "boto3", "obstore", "numpy")
    code = f"import sys, pilotlight.client.client; print([m for m in {heavy} if m in sys.modules])"
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, env={"PYTHONPATH": str(CORE)}, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
