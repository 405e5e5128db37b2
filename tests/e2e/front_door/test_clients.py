"""Other unmodified clients on each server: curl, MLflow's, our own, and the command with its doctor."""

import gzip
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import numpy as np
import pytest

import pilotlight
from pilotlight.cli.doctor import check_server
from pilotlight.client.client import Client, Tensor
from pilotlight.errors import NotFoundError, PilotlightError
from tests import fakes
from tests.conformance.test_mlflow import BODIES, COLUMNS, HEADERS, LABELS, ROWS, predicted
from tests.e2e.front_door.differences import expect_difference
from tests.e2e.front_door.server import COMMAND, TIMEOUT_S, Kind, Server, build_headers

IMAGES = fakes.digits()[0]
ECHO = '{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2.5,3.4028235e+38]}]}'
VALUES = [1.0, 2.5, float(np.finfo(np.float32).max)]


@pytest.fixture(autouse=True)
def difference(request: pytest.FixtureRequest, server: Server) -> None:
    expect_difference(request, server.kind)


def run_curl(server: Server, path: str, *words: str, body: bytes = b"") -> bytes:
    """Run curl with the key; it fails for any status from 400 on."""
    sent = [word for name, value in server.headers.items() for word in ("-H", f"{name}: {value}")]
    command = ["curl", "-sS", "--fail-with-body", *sent, *words, f"{server.url}{path}"]
    done = subprocess.run(command, input=body, capture_output=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


CURL = {
    "json": ("-H", "Content-Type: application/json"),
    "form's type": (),
    "no type": ("-H", "Content-Type:"),
    "compressed": ("--compressed",),
    "chunked": ("-H", "Transfer-Encoding: chunked"),
    "expect": ("-H", "Expect: 100-continue"),
    "http1.0": ("--http1.0",),
}


@pytest.mark.parametrize("options", CURL.values(), ids=CURL)
def test_curl_asks_a_model(server: Server, options: tuple[str, ...]) -> None:
    said = run_curl(server, "/v2/models/echo-fp32/infer", "--data-binary", "@-", *options, body=ECHO.encode())
    assert json.loads(said)["outputs"][0]["data"] == VALUES


def test_curl_sends_gzip_and_gets_gzip(server: Server) -> None:
    packed = gzip.compress(json.dumps({"inputs": {"image": np.repeat(IMAGES[:1], 40, axis=0).tolist()}}).encode())
    options = ("--data-binary", "@-", "-H", "Content-Encoding: gzip", "-H", "Accept-Encoding: gzip")
    said = run_curl(server, "/invocations?model=digits", *options, "-H", "Content-Type: application/json", body=packed)
    assert said[:2] == b"\x1f\x8b"
    assert np.shape(json.loads(gzip.decompress(said))["predictions"]) == (40, 10)


def test_curl_sends_a_form(server: Server, tmp_path: Path) -> None:
    (tmp_path / "žluť.bin").write_bytes(bytes(range(256)))
    said = run_curl(server, "/v1/files", "-F", "purpose=user_data", "-F", f"file=@{tmp_path}/žluť.bin")
    file = json.loads(said)
    assert (file["filename"], file["bytes"]) == ("žluť.bin", 256)
    assert run_curl(server, f"/v1/files/{file['id']}/content") == bytes(range(256))


@pytest.mark.parametrize("form", BODIES)
def test_mlflows_forms_of_json(server: Server, form: str) -> None:
    answer = server.ask("POST", "/invocations", content=json.dumps({form: BODIES[form]}), headers=HEADERS)
    assert predicted(answer) == LABELS[:5]


def test_mlflows_csv(server: Server) -> None:
    lines = [",".join(COLUMNS), *(",".join(map(str, row)) for row in ROWS)]
    headers = {"content-type": "text/csv; charset=utf-8"}
    answer = server.ask("POST", "/invocations?model=digits:2", content="\n".join(lines), headers=headers)
    assert predicted(answer) == LABELS[:5]
    assert answer.headers["x-pilotlight-model"] == "digits:2"


@pytest.mark.parametrize("form", ["frame", "array"])
def test_bodies_that_mlflow_writes(server: Server, form: str) -> None:
    """By MLflow's own function, sent by requests as its client does; where MLflow is installed."""
    utilities = pytest.importorskip("mlflow.utils.proto_json_utils")
    requests, pandas = pytest.importorskip("requests"), pytest.importorskip("pandas")
    data = IMAGES[:5] if form == "array" else pandas.DataFrame(np.reshape(ROWS, (5, 64)), columns=COLUMNS)
    headers = {**server.headers, "Content-Type": "application/json"}
    target = f"{server.url}/invocations?model=digits"
    answer = requests.post(target, data=utilities.dump_input_data(data), headers=headers, timeout=TIMEOUT_S)
    assert predicted(answer) == LABELS[:5]


def test_mlflows_scoring_client(server: Server) -> None:
    """It takes a host and a port, to which the path of a stage is added, and sends no header of its caller's."""
    client_module = pytest.importorskip("mlflow.pyfunc.scoring_server.client")
    address = urlsplit(server.url)
    client = client_module.ScoringServerClient(address.hostname, f"{address.port}{address.path}")
    try:
        client.ping()
    except Exception as exc:  # noqa: BLE001 - MLflow raises nothing more special
        pytest.fail(str(exc))
    assert client.get_version() == pilotlight.__version__


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        (HEADERS, 400, "BAD_REQUEST"),
        ({**HEADERS, "Content-Type": "text/html"}, 415, "BAD_REQUEST"),
        ({**HEADERS, "X-Pilotlight-Model": "nothing"}, 404, "RESOURCE_DOES_NOT_EXIST"),
    ],
)
def test_mlflows_errors(server: Server, headers: dict[str, str], status: int, code: str) -> None:
    answer = server.ask("POST", "/invocations", content="{}", headers=headers)
    assert (answer.status_code, answer.json()["error_code"]) == (status, code)


def test_our_client_asks_and_is_told(server: Server) -> None:
    with Client(server.url, headers=server.headers) as client:
        assert "digits" in client.list_models()
        answer = client.infer("digits", [Tensor("image", "FP32", [20, 1, 8, 8], IMAGES[:20].ravel().tolist())])
        logits = np.reshape(answer.get_output("logits").data, (20, 10))
        assert (logits.argmax(axis=1) == LABELS[:20]).mean() >= 0.95
        assert [row.name for row in client.registry.list_models()] == client.list_models()
        assert client.registry.get_alias("digits").version == 1
        with pytest.raises(NotFoundError, match="There is no model 'nothing'"):
            client.get_metadata("nothing")


def test_our_client_is_told_that_it_lacks_a_key(server: Server) -> None:
    with Client(server.url) as client, pytest.raises(PilotlightError, match="Send a key or token that is valid"):
        client.list_models()


def run_command(server: Server, *words: str, key: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PILOTLIGHT_")}
    environment |= {"PILOTLIGHT_KEY": server.key if key is None else key}
    command = [*COMMAND, *words, "--url", server.url]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def test_the_command_predicts(server: Server, tmp_path: Path) -> None:
    (tmp_path / "digit.json").write_text(json.dumps(IMAGES[:1].tolist()))
    done = run_command(server, "predict", "digits", "--input", str(tmp_path / "digit.json"), "--json")
    assert done.returncode == 0, done.stderr
    (output,) = json.loads(done.stdout)["outputs"]
    assert np.argmax(output["data"]) == LABELS[0]


def test_the_command_promotes_and_rolls_back(server: Server) -> None:
    """Through the gate, whose function the server starts for it."""
    promoted = run_command(server, "promote", "laboratory:2", "--alias", "stable", "--json")
    assert (promoted.returncode, '"promoted"' in promoted.stdout) == (0, True), promoted
    moved = run_command(server, "promote", "laboratory:3", "--alias", "stable", "--json")
    assert (moved.returncode, '"promoted"' in moved.stdout) == (0, True), moved
    back = run_command(server, "rollback", "laboratory", "--alias", "stable")
    assert (back.returncode, back.stdout) == (0, "laboratory@stable is version 2.\n"), back


def test_the_command_lists_trainings(server: Server) -> None:
    listed = run_command(server, "runs", "--json")
    assert listed.returncode == 0, listed.stderr


def test_a_key_that_is_created_and_revoked_by_the_command(server: Server) -> None:
    """The new one works within seconds; a revoked one is believed for a minute, which others wait for."""

    def keys(*words: str) -> str:
        command = [*COMMAND, "keys", *words, "--store", server.store_url]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    made = keys("create", "visitor", "--scopes", "infer")
    fakes.eventually(lambda: server.ask("GET", "/v2", key=made).status_code == 200, 60)
    assert "visitor" in keys("list")
    assert server.ask("GET", "/registry/models", key=made).status_code == 403
    keys("revoke", "visitor")
    later = keys("create", "visitor", "--scopes", "infer")
    assert later != made


# What fails and what is not checked, where that is more than TLS, which a server on this machine does without.
DOCTORS: Mapping[Kind, tuple[set[str], set[str]]] = {"sam": ({"gateway's errors"}, {"TLS", "keys"})}


def test_the_doctor_passes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every check that there is, with the store and its files; the SAM CLI has its own errors, and no keys."""
    monkeypatch.setenv("PILOTLIGHT_KEY", server.key)
    found = {one.check: one for one in check_server(server.url, server.store_url, deep=True)}
    states = {state: {name for name, one in found.items() if one.state == state} for state in ("fails", "not checked")}
    assert (states["fails"], states["not checked"]) == DOCTORS.get(server.kind, (set(), {"TLS"})), found
    assert "11 requests of 1 champions" in found["golden requests"].said


def test_the_doctor_says_what_it_lacks_without_a_key(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PILOTLIGHT_KEY", raising=False)
    live = next(one for one in check_server(server.url, None, deep=False) if one.check == "live")
    assert (live.state, "PILOTLIGHT_KEY" in live.said) == ("fails", True)


def test_a_key_goes_in_either_header(server: Server) -> None:
    for headers in (build_headers(server.infer_key), {"x-api-key": server.infer_key}):
        answer = httpx2.get(f"{server.url}/v2/models/digits", headers=headers, timeout=TIMEOUT_S)
        assert answer.status_code == 200, answer.text
