"""The router with endpoints whose answers are made while they are sent."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from pilotlight.api.call_cost import CostMeter
from pilotlight.api.generation_errors import choose_error_formatter
from pilotlight.api.http import Request, StreamedResponse
from pilotlight.api.router import Router
from pilotlight.api.usage_log import UsageLog
from pilotlight.errors import InvalidInputError
from pilotlight.observability import emf

EVENT = {"resource": "/v1/x", "httpMethod": "POST", "requestContext": {"requestId": "id-1"}}


class Endpoint:
    """Answers with three chunks, and fails behind the second if it is told to."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.made = 0
        self.is_closed = False

    def answer(self, request: Request) -> StreamedResponse:
        request.trace.model, request.trace.version = "chat", 3
        return StreamedResponse(200, self._make_chunks(), {"content-type": "text/event-stream"})

    def _make_chunks(self) -> Iterator[bytes]:
        try:
            for number in range(3):
                self.made += 1
                yield b"%d" % number
                if number == 1 and self.failure is not None:
                    raise self.failure
        finally:
            self.is_closed = True


def start(endpoint: Endpoint, ended: list[str] | None = None) -> Mapping[str, Any]:
    router = Router(
        {"/v1/x": {"POST": endpoint.answer}},
        CostMeter(1024),
        usage_log=UsageLog(),
        on_response=lambda: None if ended is None else ended.append("end"),
        choose_error_formatter=choose_error_formatter,
    )
    return router(EVENT, None)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines of the usage log."""
    lines: list[str] = []
    monkeypatch.setattr(emf, "write_line", lines.append)
    return lines


def test_headers_tell_what_is_known_before_the_first_chunk() -> None:
    endpoint = Endpoint()
    answer = start(endpoint)
    assert (answer["statusCode"], endpoint.made) == (200, 0)
    headers = answer["headers"]
    assert headers["content-type"] == "text/event-stream"
    assert (headers["x-pilotlight-version"], headers["x-correlation-id"]) == ("3", "id-1")
    assert headers["x-pilotlight-cold"] == "true"
    assert "server-timing" in headers
    assert "x-pilotlight-usd" not in headers  # it is not known yet


def test_usage_is_logged_behind_the_last_chunk(written: list[str]) -> None:
    ended: list[str] = []
    chunks = start(Endpoint(), ended)["body"]
    assert [next(chunks), next(chunks), next(chunks)] == [b"0", b"1", b"2"]
    assert (written, ended) == ([], [])
    assert list(chunks) == []
    line = json.loads(written.pop())
    assert (line["model"], line["status"], line["calls"], ended) == ("chat", 200, 1, ["end"])
    assert {"TotalMs", "InferMs", "Usd"} <= line.keys()
    chunks.close()
    assert written == []


@pytest.mark.parametrize("read", [0, 1])
def test_a_stream_that_nobody_reads_on_is_logged_and_ends(read: int, written: list[str]) -> None:
    endpoint = Endpoint()
    chunks = start(endpoint)["body"]
    assert [next(chunks) for _ in range(read)] == [b"0"][:read]
    chunks.close()
    assert (endpoint.made, endpoint.is_closed) == (read, read > 0)
    assert [json.loads(line)["calls"] for line in written] == [1]


def test_a_failure_in_the_middle_is_a_server_error(written: list[str], caplog: pytest.LogCaptureFixture) -> None:
    chunks = start(Endpoint(ValueError("secret")))["body"]
    with pytest.raises(ValueError, match="secret"):
        list(chunks)
    line = json.loads(written.pop())
    assert (line["status"], line["ServerErrors"]) == (500, 1)
    assert "after it had begun to answer: ValueError" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("resource", "expected"),
    [
        ("/v1/x", {"error": {"message": "It is wrong.", "type": "invalid_request_error", "param": None, "code": None}}),
        ("/v1/messages", {"type": "error", "error": {"type": "invalid_request_error", "message": "It is wrong."}}),
        ("/v2/models/{model}/generate", {"error": "It is wrong."}),
    ],
)
def test_errors_have_the_form_of_their_routes(resource: str, expected: dict[str, Any]) -> None:
    def refuse(request: Request) -> StreamedResponse:
        raise InvalidInputError("It is wrong.")

    router = Router({resource: {"POST": refuse}}, choose_error_formatter=choose_error_formatter)
    answer = router({**EVENT, "resource": resource}, None)
    assert (answer["statusCode"], json.loads(answer["body"])) == (400, expected)
