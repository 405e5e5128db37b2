"""Stacks, deployed by `sam deploy` as they are onto an emulator of AWS that judges every call by IAM.

`PILOTLIGHT_AWS_EMULATOR` names the program that starts and stops it (`start`, `stop`, and `env`, which prints variables
to export); without it, without Docker, or before `make package`, these tests are skipped. `make test-deploy` runs them.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
import httpx2
import pytest

from pilotlight.storage.object_store import ObjectStore, open_store
from tests import fakes
from tests.e2e.deploy.metering_proxy import metering_proxy

ROOT = Path(__file__).parents[3]
BUILT = ROOT / ".aws-sam" / "build" / "template.yaml"
SAM = ROOT / ".venv-sam" / "bin" / "sam"
PILOTLIGHT = Path(sys.executable).with_name("pilotlight")
DEPLOY = ("--resolve-s3", "--capabilities", "CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND", "--no-confirm-changeset",
          "--no-fail-on-empty-changeset")  # fmt: skip
EMULATOR = os.environ.get("PILOTLIGHT_AWS_EMULATOR", "")
UNAUTHORIZED = 401


@dataclass
class DeployedStack:
    """A stack, by its outputs and the functions in it."""

    name: str
    url: str = ""  # of its API with the stage, where unmodified clients reach it
    outputs: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.outputs = read_outputs(self.name)

    @property
    def store_url(self) -> str:
        """Its store, for the command."""
        return f"s3://{self.outputs['Bucket']}"

    @property
    def store(self) -> ObjectStore:
        """Its bucket, as the account's administrator reaches it."""
        return open_store(self.store_url)

    @cached_property
    def key(self) -> str:
        """A key that opens every route."""
        return self.create_key("operator", "infer,batch,admin,train")

    def create_key(self, name: str, scopes: str, *options: str) -> str:
        """Create a key by the real command, and wait until the authorizer has listed it, some seconds at most."""
        command = [str(PILOTLIGHT), "keys", "create", name, "--scopes", scopes, *options, "--store", self.store_url]
        key: str = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        fakes.eventually(lambda: self.get("/v2", key=key).status_code != UNAUTHORIZED, 30)
        return key

    def get(self, path: str, *, key: str = "", **headers: str) -> httpx2.Response:
        """Get a path with this key, or with none."""
        sent = {"authorization": f"Bearer {key}"} if key else {}
        return httpx2.get(f"{self.url}{path}", headers={**sent, **headers}, timeout=60)

    def call(self, method: str, path: str, **more: Any) -> httpx2.Response:  # noqa: ANN401 - httpx's own
        """Call its API with a key that opens every route."""
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx2.request(method, f"{self.url}{path}", headers=headers, timeout=60, **more)

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


def read_outputs(stack: str) -> dict[str, str]:
    """Read the outputs of a stack."""
    (found,) = boto3.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    return {one["OutputKey"]: one["OutputValue"] for one in found["Outputs"]}


def sam_deploy(template: Path, name: str, **parameters: str) -> None:
    """Deploy a template as the stack `name`, or update that."""
    given = [f"{parameter}={value}" for parameter, value in parameters.items()]
    command = [str(SAM), "deploy", "--template-file", str(template), "--stack-name", name, *DEPLOY]
    ran = subprocess.run([*command, "--parameter-overrides", *given], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.fixture(scope="session")
def deploy(emulator: None) -> Iterator[Callable[..., DeployedStack]]:
    """Deploy Pilotlight's stack, and stand the proxy that names meters before its API."""
    with ExitStack() as proxies:

        def deploy_stack(name: str, **parameters: str) -> DeployedStack:
            sam_deploy(BUILT, name, AccessLogs="off", **parameters)
            stack = DeployedStack(name)
            described = boto3.client("cloudformation").describe_stack_resource(
                StackName=name, LogicalResourceId="AuthorizeFunction"
            )
            authorizer = described["StackResourceDetail"]["PhysicalResourceId"]
            proxy = metering_proxy(stack.outputs["ApiId"], authorizer, stack.outputs["UsagePlan"])
            stack.url = f"{proxies.enter_context(proxy)}/prod"
            return stack

        yield deploy_stack


@pytest.fixture(scope="session")
def stacks(deploy: Callable[..., DeployedStack]) -> tuple[DeployedStack, DeployedStack]:
    """Two of them, side by side in one account and region, as the template's defaults have them."""
    return deploy("pilotlight-one"), deploy("pilotlight-two")
