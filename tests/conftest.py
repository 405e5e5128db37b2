"""Stores of every kind, and moto's S3 on loopback."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from pilotlight.registry import Registry
from pilotlight.storage import ObjectStore, open_store


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """The address of an S3 that nobody shares with another test run."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def aws_environment(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The variables by which any AWS client, in this process or another, finds moto."""
    variables = {
        "AWS_ENDPOINT_URL": moto_url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.fixture
def bucket_url(aws_environment: dict[str, str]) -> str:
    """A new bucket, with a prefix below it."""
    name = f"models-{uuid.uuid4().hex}"
    boto3.client("s3", endpoint_url=aws_environment["AWS_ENDPOINT_URL"]).create_bucket(Bucket=name)
    return f"s3://{name}/some/prefix"


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
