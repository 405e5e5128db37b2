"""The unmodified openai client on each server: files, uploads of several parts, batches, and errors."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from functions.batch_api.files import MAX_INLINE_BYTES
from tests.conformance.test_batches import (  # noqa: F401 - pytest finds the tests among them here
    call,
    test_a_batch_from_its_file_to_its_answers,
    test_a_batch_that_is_cancelled_stops_and_keeps_what_it_has,
    test_a_batch_that_is_wrong_fails_as_a_whole,
    test_a_file_in_parts_is_one_file,
    test_a_tensor_that_lies_in_the_store_is_answered,
    test_errors_are_shown,
    test_files_come_and_go,
)
from tests.conformance.test_openai import SENTENCES
from tests.e2e.front_door.differences import expect_difference
from tests.e2e.front_door.server import TIMEOUT_S, Server


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    key = server.key or "none"
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=TIMEOUT_S) as connected:
        yield connected


@pytest.fixture
def url(server: Server) -> str:
    return server.url


@pytest.fixture(autouse=True)
def difference(request: pytest.FixtureRequest, server: Server) -> None:
    expect_difference(request, server.kind)


@pytest.mark.parametrize(("path", "says"), SENTENCES)
def test_openai_shows_the_sentence_of_each_route(server: Server, client: openai.OpenAI, path: str, says: str) -> None:
    with pytest.raises(openai.APIStatusError) as raised:
        client.get(f"{server.url}{path}", cast_to=object)
    assert str(raised.value).startswith(says)


def test_a_form_of_another_type_is_told(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as raised:
        client.post("/files", body={"purpose": "batch"}, cast_to=object)
    assert str(raised.value).startswith("Error code: 415 - The body is application/json; send multipart/form-data")


def test_a_body_larger_than_the_gateway_takes_is_told(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as raised:
        client.files.create(file=("large.jsonl", b"x" * 7_000_000), purpose="batch")
    assert str(raised.value).startswith("Error code: 413 - The request is too large: the gateway takes 10,485,760")


def test_a_wrong_key_is_told(server: Server) -> None:
    wrong = f"plk_{'a' * 12}_{'A' * 43}"
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key=wrong, max_retries=0) as client,
        pytest.raises(openai.AuthenticationError, match="Send a key or token that is valid"),
    ):
        client.files.list()


def test_a_key_without_the_scope_is_told(server: Server) -> None:
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.infer_key or "none", max_retries=0) as client,
        pytest.raises(openai.PermissionDeniedError, match="has not the scope of this route"),
    ):
        client.files.list()


def test_files_are_listed_page_by_page(client: openai.OpenAI) -> None:
    made = [client.files.create(file=(f"{number}.txt", b"x"), purpose="evals").id for number in range(3)]
    pages = client.files.list(purpose="evals", limit=2, order="asc")
    assert [file.id for file in pages] == made
    for file in made:
        client.files.delete(file)


def test_a_large_file_is_put_and_fetched_by_presigned_urls(
    server: Server, client: openai.OpenAI, tmp_path: Path
) -> None:
    """Past the gateway's limit both ways: curl sends its bytes to the bucket, and gets them from there."""
    data = call(0) * 12_000
    assert len(data) > MAX_INLINE_BYTES
    (tmp_path / "large.jsonl").write_bytes(data)
    upload = client.uploads.create(
        purpose="batch", filename="large.jsonl", bytes=len(data), mime_type="application/jsonl"
    )
    signed: Any = upload.model_dump()["presigned"]
    assert signed is not None
    assert put(server, signed, tmp_path / "large.jsonl") == 200
    assert put(server, signed, tmp_path / "large.jsonl") == 412  # there is something now
    done = client.post(f"/uploads/{upload.id}/complete", body={"part_ids": []}, cast_to=object)
    file: Any = done["file"]  # type: ignore[index] # JSON
    answer = server.ask("GET", f"/v1/files/{file['id']}/content")
    assert answer.status_code == 302, answer.text
    assert fetch(server, answer.headers["location"]) == data
    part = server.ask("GET", f"/v1/files/{file['id']}/content", headers={"range": "bytes=0-99"})
    assert (part.status_code, part.content) == (206, data[:100])


def put(server: Server, signed: Any, path: Path) -> int:  # noqa: ANN401 - JSON
    headers = [word for name, value in signed["headers"].items() for word in ("-H", f"{name}: {value}")]
    command = ["curl", "-sS", *resolve(server, signed["url"]), "-w", "%{http_code}", "-o", "/dev/null", *headers]
    return int(run_curl(*command[1:], "-T", str(path), signed["url"]))


def fetch(server: Server, url: str) -> bytes:
    return run_curl("-sS", "--fail", *resolve(server, url), url)


def run_curl(*words: str) -> bytes:
    return subprocess.run(["curl", *words], capture_output=True, check=True).stdout


def resolve(server: Server, url: str) -> list[str]:
    """Tell curl where a name is that only the server's machines resolve."""
    address = urlsplit(url)
    known = dict(server.addresses)
    host = address.hostname or ""
    return ["--resolve", f"{host}:{address.port}:{known[host]}"] if host in known else []
