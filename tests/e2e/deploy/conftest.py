"""Two stacks, deployed by `sam deploy` as they are onto an emulator of AWS that judges every call by IAM.

`PILOTLIGHT_AWS_EMULATOR` names the program that starts and stops it (`start`, `stop`, and `env`, which prints variables
to export); without it, without Docker, or before `make package`, these tests are skipped.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import httpx2
import pytest

from pilotlight.storage.object_store import ObjectStore, open_store

ROOT = Path(__file__).parents[3]
BUILT = ROOT / ".aws-sam" / "build" / "template.yaml"
SAM = ROOT / ".venv-sam" / "bin" / "sam"
DEPLOY = ("--resolve-s3", "--capabilities", "CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND", "--no-confirm-changeset",
          "--no-fail-on-empty-changeset", "--parameter-overrides", "AccessLogs=off")  # fmt: skip
EMULATOR = os.environ.get("PILOTLIGHT_AWS_EMULATOR", "")


@dataclass
class DeployedStack:
    """A stack, by its outputs and the functions in it."""

    name: str
    outputs: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (stack,) = boto3.client("cloudformation").describe_stacks(StackName=self.name)["Stacks"]
        self.outputs = {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}

    @property
    def store(self) -> ObjectStore:
        """Its bucket, as the account's administrator reaches it."""
        return open_store(f"s3://{self.outputs['Bucket']}")

    def call(self, method: str, path: str, **more: Any) -> httpx2.Response:  # noqa: ANN401 - httpx's own
        """Ask its API, with its first key."""
        key = boto3.client("apigateway").get_api_key(apiKey=self.outputs["Key"], includeValue=True)["value"]
        headers = {"Host": f"{self.outputs['ApiId']}.execute-api.localhost", "x-api-key": key}
        url = f"{os.environ['AWS_ENDPOINT_URL']}/prod{path}"
        return httpx2.request(method, url, headers=headers, timeout=60, **more)

    def count_messages(self, queue: str) -> int:
        """How many messages wait in its queue of that output."""
        asked = {"QueueUrl": self.outputs[queue], "AttributeNames": ["ApproximateNumberOfMessages"]}
        found = boto3.client("sqs").get_queue_attributes(**asked)["Attributes"]
        return int(found["ApproximateNumberOfMessages"])

    def read_log(self, function: str) -> str:
        """Everything that the function with this logical id has logged."""
        logs = boto3.client("logs")
        groups = [one["logGroupName"] for one in logs.describe_log_groups()["logGroups"]]
        own = [name for name in groups if re.search(rf"/aws/lambda/{self.name}-(Events-[\w-]+-)?{function}-", name)]
        return "".join(
            event["message"] for name in own for event in logs.filter_log_events(logGroupName=name)["events"]
        )


@pytest.fixture(scope="session")
def emulator() -> Iterator[None]:
    """The emulator, with IAM on, as where AWS's clients of this process find it."""
    if not (EMULATOR and shutil.which("docker") and BUILT.exists() and SAM.exists()):
        pytest.skip("needs PILOTLIGHT_AWS_EMULATOR, Docker and `make package`")
    subprocess.run([EMULATOR, "start"], env={**os.environ, "IAM": "1"}, check=True)
    told = subprocess.run([EMULATOR, "env"], capture_output=True, text=True, check=True).stdout
    with pytest.MonkeyPatch.context() as patch:
        for name, value in re.findall(r"(\w+)=(\S+)", told):
            patch.setenv(name, value)
        patch.setenv("AWS_REGION", os.environ["AWS_DEFAULT_REGION"])
        yield
    subprocess.run([EMULATOR, "stop"], check=True)


@pytest.fixture(scope="session")
def stacks(emulator: None) -> tuple[DeployedStack, DeployedStack]:
    """Two of them, side by side in one account and region."""
    names = ("pilotlight-one", "pilotlight-two")
    for name in names:
        command = [str(SAM), "deploy", "--template-file", str(BUILT), "--stack-name", name, *DEPLOY]
        subprocess.run(command, check=True, capture_output=True)
    return DeployedStack(names[0]), DeployedStack(names[1])
