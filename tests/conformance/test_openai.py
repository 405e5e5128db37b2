"""Errors as the unmodified clients show them: what `str(exception)` has of openai, tritonclient and requests.

openai shows `error.message`, or `message` where a body has no `error`; tritonclient shows an `error` that is a text, or
the whole body where there is none. So the gateway, which does not know who asks, sends `message` alone; our functions
answer below /v1 as OpenAI does, below /v2 as Triton does, and on MLflow's routes as MLflow does.
"""

import asyncio
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import openai
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from pilotlight.api.openai_errors import to_openai_error
from pilotlight.local.template import load_stack
from tests.threaded_server import serve_in_thread

ROOT = Path(__file__).parents[2]
GATEWAY_RESPONSES = load_stack(ROOT / "template.yaml", {}).gateway_responses
STATUSES = {
    "UNAUTHORIZED": 401,
    "ACCESS_DENIED": 403,
    "MISSING_AUTHENTICATION_TOKEN": 404,
    "REQUEST_TOO_LARGE": 413,
    "THROTTLED": 429,
    "AUTHORIZER_FAILURE": 503,
    "DEFAULT_4XX": 400,
    "DEFAULT_5XX": 500,
}
CLASSES = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    409: openai.ConflictError,
    413: openai.APIStatusError,
    415: openai.APIStatusError,
    422: openai.UnprocessableEntityError,
    429: openai.RateLimitError,
    500: openai.InternalServerError,
    503: openai.InternalServerError,
}


class Refusing(BaseHTTPRequestHandler):
    """Answers every request alike, as the gateway would on the error that a test sets."""

    status: ClassVar[int] = 0
    body: ClassVar[bytes] = b""
    more: ClassVar[Mapping[str, str]] = {}

    def do_GET(self) -> None:
        self.send_response(self.status)
        for name, value in {"content-type": "application/json", **self.more}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_POST = do_GET  # noqa: N815 - as the base class names them

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@pytest.fixture(scope="module")
def refusing() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Refusing)
    with serve_in_thread(server):
        yield f"http://127.0.0.1:{server.server_port}"


def set_gateway_error(kind: str) -> str:
    """Let the server answer as the template's GatewayResponse says; return the sentence."""
    response = GATEWAY_RESPONSES[kind]
    body = (response.body or "").replace("$context.error.messageString", '"Too \\"many\\" requests"')
    Refusing.status, Refusing.body = response.status or STATUSES[kind], body.encode()
    Refusing.more = dict(response.headers)
    assert Refusing.status == STATUSES[kind]
    return body.removeprefix('{"message": "').removesuffix('"}').replace('\\"', '"')


def ask_openai(base: str) -> str:
    """Return what the client's exception says, whose class is the right one."""
    with (
        openai.OpenAI(base_url=base, api_key="none", max_retries=0) as client,
        pytest.raises(openai.APIStatusError) as raised,
    ):
        client.models.retrieve("nothing")
    assert isinstance(raised.value, CLASSES[raised.value.status_code])
    return str(raised.value)


@pytest.mark.parametrize("kind", STATUSES)
def test_every_client_shows_what_the_gateway_says(refusing: str, kind: str) -> None:
    sentence = set_gateway_error(kind)
    assert ask_openai(refusing) == f"Error code: {STATUSES[kind]} - {sentence}"
    with triton.InferenceServerClient(refusing.removeprefix("http://")) as client:
        with pytest.raises(InferenceServerException) as raised:
            client.get_model_metadata("nothing")
        assert raised.value.status() == str(STATUSES[kind])
        assert sentence in str(raised.value).replace('\\"', '"')


@pytest.mark.parametrize("kind", STATUSES)
def test_the_asyncio_clients_show_it_too(refusing: str, kind: str) -> None:
    sentence = set_gateway_error(kind)

    async def ask() -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=refusing, api_key="none", max_retries=0) as client:
            with pytest.raises(openai.APIStatusError) as shown:
                await client.models.list()
        async with triton_aio.InferenceServerClient(refusing.removeprefix("http://")) as other:
            with pytest.raises(InferenceServerException) as raised:
                await other.get_model_metadata("nothing")
        return str(shown.value), str(raised.value).replace('\\"', '"')

    by_openai, by_triton = asyncio.run(ask())
    assert by_openai == f"Error code: {STATUSES[kind]} - {sentence}"
    assert sentence in by_triton


@pytest.mark.parametrize("status", CLASSES)
def test_openai_shows_what_functions_say_below_v1(refusing: str, status: int) -> None:
    response = to_openai_error(status, 'No "such" thing; ask for another.', **{"retry-after": "7"})
    Refusing.status, Refusing.body, Refusing.more = status, response.body, response.headers
    assert ask_openai(refusing) == f'Error code: {status} - No "such" thing; ask for another.'


def test_the_client_waits_as_long_as_the_gateway_says(refusing: str) -> None:
    set_gateway_error("THROTTLED")
    with (
        openai.OpenAI(base_url=refusing, api_key="none", max_retries=0) as client,
        pytest.raises(openai.RateLimitError) as raised,
    ):
        client.models.list()
    assert raised.value.response.headers["retry-after"] == "1"


@pytest.mark.parametrize("base", ["/v2", "/nowhere", "/prod/nowhere"])
def test_tritonclient_shows_the_same(url: str, base: str) -> None:
    with (
        triton.InferenceServerClient(f"{url}{base}".removeprefix("http://").removesuffix("/v2")) as client,
        pytest.raises(InferenceServerException, match=r"(?s)\[404\] .*There is no (model 'nothing'|such route); GET"),
    ):
        client.get_model_metadata("nothing")


SENTENCES = [
    ("/nowhere/models/x", "Error code: 404 - There is no such route; GET /docs lists those"),
    ("/v1/files/file-1", "Error code: 404 - There is no file 'file-1'"),
    ("/v1/batches/batch_1", "Error code: 404 - There is no batch 'batch_1'"),
    ("/v1/files/file-1/content", "Error code: 404 - There is no file 'file-1'"),
    ("/v1/batches?limit=0", "Error code: 400 - The request is wrong: limit='0': Input"),
    ("/v1/uploads", "Error code: 405 - /v1/uploads does not take GET; use POST."),
    ("/v1/trainings/nothing", "Error code: 404 - There is no run 'nothing'"),
    ("/invocations", "Error code: 405 - /invocations does not take GET; use POST."),
]


@pytest.mark.parametrize(("path", "says"), SENTENCES)
def test_openai_shows_the_sentence_of_each_route(url: str, path: str, says: str) -> None:
    with (
        openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client,
        pytest.raises(openai.APIStatusError) as raised,
    ):
        client.get(path, cast_to=object)
    assert str(raised.value).startswith(says)


def test_openai_has_the_sentence_of_v2_as_its_body(url: str) -> None:
    """Triton's `error` is a text, which openai does not print; nobody points that client at /v2 but by mistake."""
    with (
        openai.OpenAI(base_url=f"{url}/v2", api_key="none", max_retries=0) as client,
        pytest.raises(openai.BadRequestError) as raised,
    ):
        client.post("/models/digits/infer", body={"input": "x"}, cast_to=object)
    assert "not an infer request" in str(raised.value.body)


def test_a_form_of_another_type_is_told(url: str) -> None:
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
        pytest.raises(openai.APIStatusError) as raised,
    ):
        client.post("/files", body={"purpose": "batch"}, cast_to=object)
    assert str(raised.value).startswith("Error code: 415 - The body is application/json; send multipart/form-data")


def test_a_body_larger_than_the_gateway_takes_is_told(url: str) -> None:
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
        pytest.raises(openai.APIStatusError) as raised,
    ):
        client.files.create(file=("large.jsonl", b"x" * 7_000_000), purpose="batch")
    assert str(raised.value).startswith("Error code: 413 - The request is too large: the gateway takes 10,485,760")
