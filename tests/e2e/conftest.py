"""The package that `make package` built, and the SAM CLI over it in Docker."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from pilotlight.contracts.manifest import Datatype
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.conftest import Serial, aws_variables, moto_server
from tests.e2e import training_image as images

ROOT = Path(__file__).parents[2]
BUILD = ROOT / ".aws-sam" / "build"
JUDGED = "s3://models/judged"  # apart, so that what is judged there is no version of what others are asked for
ECHOES: tuple[Datatype, ...] = ("FP16", "BF16", "FP32", "INT64", "UINT8", "BOOL", "BYTES")


def sam(*words: str, environment: Path) -> list[str]:
    """A command of `sam local`, over the images that are there."""
    return ["sam", "local", *words, "--skip-pull-image", "--env-vars", str(environment)]


@pytest.fixture(scope="session")
def bridge() -> str:
    """The address under which containers reach this machine; Docker itself may leave it to the kernel to choose."""
    command = ["ip", "-json", "-4", "address", "show", "docker0"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return str(json.loads(shown)[0]["addr_info"][0]["local"])


@pytest.fixture(scope="session")
def environment_file(bridge: str, moto_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """SAM's --env-vars: the store is a bucket that the containers can reach, with the digits model in it."""
    with pytest.MonkeyPatch.context() as patch, moto_server(Serial, bridge) as reachable:
        for name, value in aws_variables(moto_url).items():
            patch.setenv(name, value)
        boto3.client("s3", endpoint_url=moto_url).create_bucket(Bucket="models")
        registry = Registry(open_store("s3://models"))
        fakes.publish_digits(registry)
        for datatype in ECHOES:
            fakes.publish_echo(registry, datatype)
        store = {"PILOTLIGHT_STORE": f"s3://models?endpoint={reachable}"}
        variables = {"PredictFunction": {**store, "PILOTLIGHT_ALIAS_SECONDS": "1"}}
        others = ("Authorize", "Generate", "Models", "Batch", "Batches", "Drift", "StartTraining")
        variables |= {f"{name}Function": store for name in others}
        variables |= {"PromoteFunction": {"PILOTLIGHT_STORE": f"{JUDGED}?endpoint={reachable}"}}
        file = tmp_path_factory.mktemp("sam") / "environment.json"
        file.write_text(json.dumps(variables))
        yield file


@pytest.fixture(scope="session")
def training_image() -> str:
    """The id of the training image, built now."""
    if obstacle := images.find_obstacle():
        pytest.skip(obstacle)
    return images.build_image(images.build_base())
