"""The servers of this machine: `pilotlight serve --auth keys`, and `sam local start-api` in Docker.

tests/e2e/deploy/front_door runs the same tests against the stack that it deploys.
"""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest

from pilotlight.client.client import Client
from pilotlight.deployment.package import LOCAL_TEMPLATE_FILE
from tests import fakes
from tests.conftest import Serial, aws_variables, moto_server
from tests.e2e.conftest import BUILD, ROOT, sam
from tests.e2e.front_door.server import ALL_SCOPES, COMMAND, Server, publish_models

START_S = 180  # the SAM CLI's first start builds an image with the layers in it
BUCKET = "front-door"
TEMPLATE = BUILD / LOCAL_TEMPLATE_FILE


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The local gateway as a process of its own, by the real command."""
    folder = tmp_path_factory.mktemp("served")
    store = str(folder / "store")
    key, infer_key = (create_key(store, name, scopes) for name, scopes in (("all", ALL_SCOPES), ("app", "infer")))
    port = find_free_port()
    command = [*COMMAND, "serve", "--auth", "keys", "--port", str(port), "--workers", "1", "--store", store]
    with running([*command, "--parameter", "LargeAnswers=on"], folder) as log:
        server = Server("serve", f"http://127.0.0.1:{port}", store, key, infer_key)
        publish_models(server.registry)
        await_ready(server, log)
        yield server


@pytest.fixture(scope="session")
def local(bridge: str, moto_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The SAM CLI's API, whose containers reach a bucket of moto's."""
    folder = tmp_path_factory.mktemp("local")
    with pytest.MonkeyPatch.context() as patch, moto_server(Serial, bridge) as reachable:
        for name, value in aws_variables(moto_url).items():
            patch.setenv(name, value)
        boto3.client("s3", endpoint_url=moto_url).create_bucket(Bucket=BUCKET)
        store = f"s3://{BUCKET}?endpoint={reachable}"
        environment = folder / "environment.json"
        environment.write_text(json.dumps(build_variables(store)))
        port = find_free_port()
        server = Server("sam", f"http://127.0.0.1:{port}", store)
        publish_models(server.registry)
        command = sam(
            "start-api",
            "--template",
            str(TEMPLATE),
            "--port",
            str(port),
            "--warm-containers",
            "EAGER",
            environment=environment,
        )
        with running(command, folder) as log:
            await_ready(server, log)
            yield server


def build_variables(store: str) -> dict[str, dict[str, str]]:
    """The SAM CLI's --env-vars: the store of each function, and what makes the tests short."""
    names = ("Predict", "Generate", "Authorize", "Models", "Batch", "Batches", "Drift", "StartTraining", "Promote")
    variables = {f"{name}Function": {"PILOTLIGHT_STORE": store} for name in names}
    variables["PredictFunction"] |= {"PILOTLIGHT_ALIAS_SECONDS": "1", "PILOTLIGHT_LARGE_ANSWERS": "on"}
    return variables


def create_key(store: str, name: str, scopes: str) -> str:
    command = [*COMMAND, "keys", "create", name, "--scopes", scopes, "--store", store]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def find_free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def running(command: list[str], folder: Path) -> Iterator[Path]:
    """Run a server in the checkout, and yield the file that it writes to."""
    log = folder / "log"
    environment = {**os.environ, "PILOTLIGHT_TRAININGS": str(folder / "trainings")}
    with (
        log.open("w") as output,
        subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, env=environment) as process,
    ):
        try:
            yield log
        finally:
            process.terminate()


def await_ready(server: Server, log: Path) -> None:
    with Client(server.url, headers=server.headers) as client:
        try:
            fakes.eventually(client.is_ready, START_S)
        except AssertionError as exc:
            raise AssertionError(log.read_text()) from exc


@pytest.fixture(scope="session", params=["served", "local"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each of them."""
    found: Server = request.getfixturevalue(request.param)
    return found
