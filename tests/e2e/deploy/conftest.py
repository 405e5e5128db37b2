"""Stacks, deployed by `sam deploy` as they are onto an emulator of AWS (tests/emulator) that judges every call by IAM.

`make test-deploy` runs these tests; without Docker, Lambda's image or `.venv-emulator` they are skipped.
`PILOTLIGHT_EMULATOR_IAM=off` lets every call through. A fixture asks for stacks: `stacks` for two with the defaults,
`deploy` for others; each one is there until the end of the session, when the rights that its roles used are told.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
import httpx2
import pytest

from pilotlight.storage.object_store import ObjectStore, open_store
from tests import fakes
from tests.e2e.deploy.changed_templates import change_defaults
from tests.e2e.deploy.emulator_process import emulator_running, find_obstacle
from tests.e2e.deploy.rights import DeployedRoles, compare, describe

ROOT = Path(__file__).parents[3]
BUILT = ROOT / ".aws-sam" / "build" / "template.yaml"
SAM = ROOT / ".venv-sam" / "bin" / "sam"
PILOTLIGHT = Path(sys.executable).with_name("pilotlight")
DEPLOY = ("--resolve-s3", "--capabilities", "CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND", "--no-confirm-changeset",
          "--no-fail-on-empty-changeset")  # fmt: skip
ROOT_CREDENTIALS = {  # of the emulator's account, and where it is
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
UNAUTHORIZED = 401
needs_iam = pytest.mark.skipif(os.environ.get("PILOTLIGHT_EMULATOR_IAM") == "off", reason="every call is let through")
NONE = '""'  # how the SAM CLI is told of an empty parameter
USAGE = pytest.StashKey[tuple[Path, DeployedRoles]]()  # the emulator's notes, and what the deployed roles may do
REPLIES = "replies"  # the queue to which the stack `captured` may reply
SPREAD_BYTES = 1_000_000  # from which on it spreads a file


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
        headers = {"authorization": f"Bearer {self.key}", **more.pop("headers", {})}
        return httpx2.request(method, f"{self.url}{path}", headers=headers, timeout=60, **more)

    def count_messages(self, queue: str) -> int:
        """How many messages wait in its queue of that output."""
        asked = {"QueueUrl": self.outputs[queue], "AttributeNames": ["ApproximateNumberOfMessages"]}
        found = boto3.client("sqs").get_queue_attributes(**asked)["Attributes"]
        return int(found["ApproximateNumberOfMessages"])

    def has(self, path: str) -> bool:
        """Whether its bucket has an object; the folder of which is listed, as a user would."""
        return path in set(self.store.list_paths(path.rpartition("/")[0]))

    def read_log(self, function: str) -> str:
        """Everything that the function with this logical id has logged."""
        logs = boto3.client("logs")
        pages = logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=f"/aws/lambda/{self.name}-")
        groups = [one["logGroupName"] for page in pages for one in page["logGroups"]]
        own = [name for name in groups if re.search(rf"/aws/lambda/{self.name}-(Events-[\w-]+-)?{function}-", name)]
        return "".join(
            event["message"] for name in own for event in logs.filter_log_events(logGroupName=name)["events"]
        )


@pytest.fixture(scope="session")
def emulator_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the emulator's log is, its notes of calls, and the certificates that functions trust."""
    return tmp_path_factory.mktemp("emulator")


@pytest.fixture(scope="session")
def emulator(emulator_folder: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of the emulator, where AWS's clients of this process find it."""
    if obstacle := find_obstacle() or ("" if BUILT.exists() and SAM.exists() else "`make package` has not run"):
        pytest.skip(obstacle)
    folder = emulator_folder
    iam = os.environ.get("PILOTLIGHT_EMULATOR_IAM", "on")
    request.config.stash[USAGE] = (folder / "usage.jsonl", DeployedRoles())
    with (
        emulator_running(folder / "log", folder / "usage.jsonl", iam=iam) as url,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in {**ROOT_CREDENTIALS, "AWS_ENDPOINT_URL": url}.items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        yield url


def read_outputs(stack: str) -> dict[str, str]:
    """Read the outputs of a stack."""
    (found,) = boto3.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    return {one["OutputKey"]: one["OutputValue"] for one in found["Outputs"]}


def sam_package(template: Path, packaged: Path) -> Path:
    """Upload a built template's code, and write the template that names the uploads.

    SAM names nested templates by the endpoint that it was given, and takes them at AWS's own alone.
    """
    command = [str(SAM), "package", "--template-file", str(template), "--resolve-s3"]
    subprocess.run([*command, "--output-template-file", str(packaged)], capture_output=True, check=True)
    named = packaged.read_text().replace(os.environ["AWS_ENDPOINT_URL"], "https://s3.us-east-1.amazonaws.com")
    packaged.write_text(named)
    return packaged


def sam_deploy(template: Path, name: str, **parameters: str) -> None:
    """Deploy a template as the stack `name`, or update that."""
    given = [f"{parameter}={value or NONE}" for parameter, value in parameters.items()]
    command = [str(SAM), "deploy", "--template-file", str(template), "--stack-name", name, *DEPLOY]
    ran = subprocess.run([*command, "--parameter-overrides", *given], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def set_schedule(stack: DeployedStack, function: str, schedule: str) -> None:
    """Give the rule that invokes a function of the stack by time another schedule; all else of it stays."""
    events = boto3.client("events")
    rules = [rule for rule in events.list_rules()["Rules"] if rule["Name"].startswith(f"{stack.name}-{function}")]
    (rule,) = (rule for rule in rules if rule.get("ScheduleExpression"))
    events.put_rule(Name=rule["Name"], ScheduleExpression=schedule, State="ENABLED")


def read_alarm(stack: DeployedStack, alarm: str) -> str:
    """Read the state of one of the stack's alarms."""
    found = boto3.client("cloudwatch").describe_alarms(AlarmNamePrefix=f"{stack.name}-", MaxRecords=100)
    alarms = [*found["MetricAlarms"], *found["CompositeAlarms"]]
    (state,) = (one["StateValue"] for one in alarms if f"-{alarm}-" in one["AlarmName"])
    return str(state)


@pytest.fixture(scope="session")
def packaged(emulator: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template with all code uploaded, which `sam deploy` would compress and upload for each stack again."""
    return sam_package(BUILT, tmp_path_factory.mktemp("packaged") / "template.yaml")


@pytest.fixture(scope="session")
def deploy(emulator: str, packaged: Path, request: pytest.FixtureRequest) -> Callable[..., DeployedStack]:
    """Deploy Pilotlight's stack, with a rate that tests do not reach, which an idle machine does with the default's."""

    def deploy_stack(name: str, template: Path = packaged, **parameters: str) -> DeployedStack:
        sam_deploy(template, name, AccessLogs="off", **{"RateLimit": "1000", **parameters})
        request.config.stash[USAGE][1].add(name)
        stack = DeployedStack(name)
        # The emulator's form of https://ID.execute-api..., which asks nothing of this machine's resolver.
        stack.url = f"{emulator}/_aws/execute-api/{stack.outputs['ApiId']}/prod"
        return stack

    return deploy_stack


@pytest.fixture(scope="session")
def stacks(deploy: Callable[..., DeployedStack]) -> tuple[DeployedStack, DeployedStack]:
    """Two of them, side by side in one account and region, as the template's defaults have them."""
    return deploy("pilotlight-one"), deploy("pilotlight-two")


@pytest.fixture(scope="session")
def captured(deploy: Callable[..., DeployedStack], tmp_path_factory: pytest.TempPathFactory) -> DeployedStack:
    """A stack with a data key and all alarms that captures each request; users change defaults in events.yaml so."""
    queue = boto3.client("sqs").create_queue(QueueName=REPLIES)["QueueUrl"]
    found = boto3.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]
    changed = {"ReplyQueues": found["QueueArn"], "SpreadBytes": str(SPREAD_BYTES)}
    template = change_defaults(BUILT, tmp_path_factory.mktemp("changed"), "Events", **changed)
    key = boto3.client("kms").create_key()["KeyMetadata"]["Arn"]
    return deploy("pilotlight-events", template, CaptureRate="1", DataKey=key, MonitoringLevel="full")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the report on rights after what it reports on."""
    items.sort(key=lambda item: item.path.name == "test_rights.py")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Tell what the roles of all stacks did with their rights."""
    notes, roles = config.stash.get(USAGE, (Path("none"), DeployedRoles()))
    if notes.exists():
        terminalreporter.section("what roles did with their rights: calls, action, resource")
        for line in describe(compare(roles.rights, roles.read_calls(notes))):
            terminalreporter.write_line(line)
