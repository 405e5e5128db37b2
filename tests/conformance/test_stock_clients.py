"""Clients that nobody made for models: a JDK, curl, node and the libraries of Python, each as it comes.

Those that are not on a machine are skipped. What they must show is written down as their users would see it.
"""

import asyncio
import gzip
import io
import json
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pandas as pd
import pytest

from tests import fakes

JAVA_FILE = Path(__file__).parent / "java" / "StockClient.java"
VERSIONS = ("HTTP_1_1", "HTTP_2")
TIMEOUT_S = 300.0
BODY = '{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2.5,3.4028235e+38]}]}'
VALUES = [1.0, 2.5, float(np.finfo(np.float32).max)]


def run(*command: str, data: bytes = b"") -> bytes:
    """The output of a program that must succeed."""
    done = subprocess.run(command, input=data, capture_output=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"there is no {program} here")


@pytest.fixture(scope="module")
def java_answers(url: str) -> dict[str, str]:
    """What each request of the JDK's own clients was answered, by its name."""
    lines = run("java", "-Dfile.encoding=UTF-8", str(JAVA_FILE), url).decode().splitlines()
    return dict(line.split(": ", 1) for line in lines if not line.startswith("WARNING"))


@needs("java")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("json", [float(np.finfo(np.float32).max), 1.401298464324817e-45, -0.0]),
        ("again", [1e10, 2, 3]),
        ("mark", [1, 2, 3]),
        ("chunked", [4, 5, 6]),
        ("expect", [7, 8, 9]),
        ("gzip", [1, 1, 1]),
    ],
)
def test_jdk_client(java_answers: dict[str, str], version: str, name: str, data: list[float]) -> None:
    """Its first request over HTTP_2, its default, offers h2c, which costs it nothing."""
    status, _, body = java_answers[f"{version} {name}"].partition(" ")
    assert (status, json.loads(body)["outputs"][0]["data"]) == ("200", data)


@needs("java")
@pytest.mark.parametrize("version", VERSIONS)
def test_jdk_client_has_tensors_files_and_errors(java_answers: dict[str, str], version: str) -> None:
    assert java_answers[f"{version} binary"] == "200 1.5 -2.0"
    assert java_answers[f"{version} mlflow"] == '200 {"predictions":[[3,9223372036854775807]]}'
    assert java_answers[f"{version} error"].startswith('404 {"error":"There is no model')
    assert java_answers[f"{version} gateway error"].startswith('404 {"message": "There is no such route; GET /docs')
    status, _, body = java_answers[f"{version} upload"].partition(" ")
    assert (status, json.loads(body)["filename"], json.loads(body)["bytes"]) == ("200", "žluť 日本.jsonl", 8)


@needs("java")
def test_jdk_client_by_default_and_its_predecessor(java_answers: dict[str, str]) -> None:
    assert '"data":[1.0,2.0,3.0]' in java_answers["default json"]
    assert java_answers["default async"].startswith("200 ")
    assert '"data":[1.0,2.0,3.0]' in java_answers["old 200"]
    assert "There is no model" in java_answers["old 404"]


CURL = {
    "plain": (),
    "http2": ("--http2",),
    "http1.0": ("--http1.0",),
    "compressed": ("--compressed",),
    "chunked": ("-H", "Transfer-Encoding: chunked"),
    "expect": ("-H", "Expect: 100-continue"),
    "old type": ("-H", "Content-Type: text/json"),
    "odata": ("-H", 'Content-Type: application/json;odata=verbose;charset="UTF-8"'),
    "vendor": ("-H", "Content-Type: application/vnd.api+json"),
    "no type": ("-H", "Content-Type:"),
    "no encodings": ("-H", "Accept-Encoding: br, *;q=0", "-H", "Accept: */*;q=0.8"),
    "trailers": ("-H", "TE: trailers", "-H", "Connection: TE"),
    "websocket": ("-H", "Connection: Upgrade", "-H", "Upgrade: websocket"),
}


@needs("curl")
@pytest.mark.parametrize("options", CURL.values(), ids=CURL)
@pytest.mark.parametrize("path", ["/v2/models/echo-fp32/infer", "/prod/v2/models/echo-fp32/versions/1/infer"])
def test_curl(url: str, options: tuple[str, ...], path: str) -> None:
    more = () if "Content-Type" in str(options) else ("-H", "Content-Type: application/json")
    said = run("curl", "-sS", "--data-binary", "@-", *more, *options, url + path, data=BODY.encode())
    assert json.loads(said)["outputs"][0]["data"] == VALUES


@needs("curl")
@pytest.mark.parametrize("options", CURL.values(), ids=CURL)
def test_curl_with_mlflow(url: str, options: tuple[str, ...]) -> None:
    more = () if "Content-Type" in str(options) else ("-H", "Content-Type: application/json")
    body = b'{"inputs": [[1, 2.5, 3.4028235e+38]]}'
    target = f"{url}/invocations?model=echo-fp32"
    said = run("curl", "-sS", "--data-binary", "@-", *more, *options, target, data=body)
    assert json.loads(said) == {"predictions": [VALUES]}


@needs("curl")
def test_curl_uploads_of_unknown_length_and_by_a_proxy(url: str) -> None:
    target = f"{url}/v2/models/echo-fp32/infer"
    for options in (("-X", "POST", "-T", "-"), ("--data-binary", "@-", "--proxy", url)):
        assert json.loads(run("curl", "-sS", *options, target, data=BODY.encode()))["outputs"][0]["data"] == VALUES


NODE = """
(async () => {
  const [base, body] = process.argv.slice(1);
  const path = `${base}/v2/models/echo-fp32/infer`;
  const read = async answer => [answer.status, await answer.json()];
  const post = (to, content, headers) => fetch(to, {method: 'POST', body: content, headers}).then(read);
  const form = new FormData();
  form.append('purpose', 'batch');
  form.append('file', new Blob(['{}']), 'žluť.jsonl');
  console.log(JSON.stringify([
    await post(path, body, {'content-type': 'application/json'}),
    await post(path, body),
    await post(`${base}/v2/models/nothing/infer`, body),
    await post(`${base}/nowhere`, body),
    await post(`${base}/v1/files`, form),
  ]));
})();
"""


@needs("node")
def test_node(url: str) -> None:
    right, untyped, missing, nowhere, uploaded = json.loads(run("node", "-e", NODE, url, BODY))
    for status, body in (right, untyped):
        assert (status, body["outputs"][0]["data"]) == (200, VALUES)
    assert missing[0] == 404
    assert missing[1]["error"].startswith("There is no model 'nothing'")
    assert nowhere[0] == 404
    assert nowhere[1]["message"].startswith("There is no such route")
    assert (uploaded[0], uploaded[1]["filename"]) == (200, "žluť.jsonl")


def ask_by_requests(url: str, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
    requests = pytest.importorskip("requests")
    answer = requests.post(url, data=body, headers=headers, timeout=TIMEOUT_S)
    return answer.status_code, answer.json()


def ask_by_httpx(url: str, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
    answer = httpx2.post(url, content=body, headers=headers, timeout=TIMEOUT_S)
    return answer.status_code, answer.json()


def ask_by_aiohttp(url: str, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
    aiohttp = pytest.importorskip("aiohttp")

    async def ask() -> tuple[int, Any]:
        async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as answer:
            return answer.status, await answer.json()

    return asyncio.run(ask())


def ask_by_urllib(url: str, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
    request = urllib.request.Request(url, body, headers)  # noqa: S310 - the test's own server
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 - likewise
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, json.load(exc)


@pytest.mark.parametrize("ask", [ask_by_requests, ask_by_httpx, ask_by_aiohttp, ask_by_urllib])
@pytest.mark.parametrize(
    ("headers", "encode"),
    [
        ({"Content-Type": "application/json"}, str.encode),
        ({"Content-Type": "application/json; charset=utf-16"}, lambda text: text.encode("utf-16")),
        ({"Content-Type": "application/json; charset=iso-8859-1"}, lambda text: text.encode("latin-1")),
        ({"Content-Type": "application/json"}, lambda text: text.encode("utf-8-sig")),
        ({"Content-Encoding": "gzip", "Content-Type": "application/json"}, lambda text: gzip.compress(text.encode())),
    ],
)
def test_libraries_of_python(
    url: str,
    ask: Callable[[str, bytes, dict[str, str]], tuple[int, Any]],
    headers: dict[str, str],
    encode: Callable[[str], bytes],
) -> None:
    text = BODY.replace("}]}", '}], "id": "Müller"}')
    status, said = ask(f"{url}/v2/models/echo-fp32/infer", encode(text), headers)
    assert (status, said["id"], said["outputs"][0]["data"]) == (200, "Müller", VALUES)
    status, said = ask(f"{url}/v2/models/nothing/infer", encode(text), headers)
    assert (status, said["error"][:25]) == (404, "There is no model 'nothin")


IMAGES, LABELS = fakes.digits()
COLUMNS = [f"pixel_{row}_{column}" for row in range(8) for column in range(8)]
FRAME = pd.DataFrame(IMAGES[:5].reshape(5, 64), columns=COLUMNS)


def write_csv(**options: Any) -> bytes:  # noqa: ANN401 - of pandas
    stream = io.StringIO()
    FRAME.to_csv(stream, **options)
    return stream.getvalue().encode()


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        ("application/json", b'{"dataframe_split": %b}' % FRAME.to_json(orient="split").encode()),
        ("application/json", b'{"dataframe_records": %b}' % FRAME.to_json(orient="records").encode()),
        ("application/json", b'{"instances": %b}' % FRAME.to_json(orient="values").encode()),
        ("application/json", b'{"inputs": %b}' % FRAME.to_json(orient="values").encode()),
        ("application/json", json.dumps({"dataframe_split": FRAME.to_dict(orient="split")}).encode()),
        ("text/csv", write_csv()),
        ("text/csv", write_csv(index=False)),
        ("application/csv", write_csv(index=False, lineterminator="\r\n")),
        ("text/csv; charset=utf-16", write_csv(index=False).decode().encode("utf-16")),
        ("text/csv", b"\xef\xbb\xbf" + write_csv(index=False, quoting=1)),
    ],
)
def test_data_frames_of_pandas(url: str, content_type: str, content: bytes) -> None:
    """The forms of mlflow's own clients, which call the same methods of pandas (`dump_input_data`)."""
    headers = {"Content-Type": content_type}
    answer = httpx2.post(f"{url}/invocations?model=digits", content=content, headers=headers)
    assert answer.status_code == 200, answer.text
    assert np.argmax(answer.json()["predictions"], axis=1).tolist() == LABELS[:5]
