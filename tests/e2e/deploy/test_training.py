"""Trainings of a deployed stack: from the request to the champion, through a Spot reclaim, and how they fail.

The emulator runs Batch's jobs in containers of the training image on this machine (tests/emulator/batch.py), which has
no GPU. Jobs get less memory than by default, as infra/docs/deploy.md says: by a default in infra/training.yaml.
"""

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest

from pilotlight.client.client import Client, Tensor
from pilotlight.contracts.manifest import Manifest
from pilotlight.registry.registry import Registry
from tests import fakes
from tests.e2e.deploy.conftest import BUILT, PILOTLIGHT, DeployedStack
from tests.e2e.training_image import docker

STACK = "pilotlight-trains"
MEMORY_MB = 2000  # of a job: three times what digits take, and nothing to this machine
WITHIN_S = 400.0  # for what takes ten seconds on an idle machine
SETTINGS = ("epochs=12", "early_stopping.patience=12", "checkpoint.steps=5")  # 17 steps in an epoch
LOST = "data.path=store:data/nothing.csv"
TOO_WIDE = "model.hidden=[20000,20000]"  # 400 million weights, 1.6 GB, and Adam keeps two more for each
STOPPED = re.compile(r"Stopped by SIGTERM and saved after step (\d+)")


@dataclass(frozen=True)
class TrainingStack:
    """A stack that trains, and a queue that gets what its alarm topic says."""

    stack: DeployedStack
    alarms: str  # the queue's URL

    def start(self, run: str, recipe: str, *settings: str, nodes: int = 1) -> None:
        """Ask for a training as any client of HTTP does."""
        body = {"run": run, "recipe": recipe, "set": settings, "nodes": nodes}
        started = self.stack.call("POST", "/v1/trainings", json=body)
        assert started.status_code == 202, started.text

    def show(self, run: str) -> dict[str, Any]:
        """What the API says of a run."""
        shown: dict[str, Any] = self.stack.call("GET", f"/v1/trainings/{run}").json()
        return shown

    def wait(self, run: str, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until something is so of a run, and return what the API says of it then."""
        shown = self.show(run)

        def is_so() -> bool:
            shown.update(self.show(run))
            return until(shown)

        fakes.eventually(is_so, WITHIN_S)
        return shown

    def wait_for_end(self, run: str, state: str) -> dict[str, Any]:
        """Wait until the event of a job's end is recorded with the run, which is in this state then."""
        fakes.eventually(lambda: bool(self.read_document(run).get("end")), WITHIN_S)
        shown = self.show(run)
        assert shown["state"] == state, shown
        return shown

    def read_document(self, run: str) -> dict[str, Any]:
        """The document of a run's job, as the function keeps it."""
        read: dict[str, Any] = json.loads(self.stack.store.get(f"runs/{run}/job.json").data)
        return read

    def describe(self, run: str, node: str = "") -> dict[str, Any]:
        """What Batch says of a run's job, or of one node of it."""
        job = self.read_document(run)["id"] + node
        (found,) = boto3.client("batch").describe_jobs(jobs=[job])["jobs"]
        return dict(found)

    def find_container(self, run: str, node: str = "") -> str:
        """The container in which a run's job is at work, once it has printed something."""
        label = f"label=batch.job={self.read_document(run)['id']}{node}"
        fakes.eventually(lambda: bool(docker("ps", "--quiet", "--filter", label).stdout), WITHIN_S)
        return docker("ps", "--quiet", "--filter", label).stdout.strip()

    def read_logs(self, run: str) -> list[str]:
        """The log of each attempt of a run."""
        logs, group = boto3.client("logs"), f"/aws/cloudformation/{STACK}-Training"
        (name,) = [
            one["logGroupName"]
            for one in logs.describe_log_groups()["logGroups"]
            if one["logGroupName"].startswith(group)
        ]
        streams = [attempt["container"]["logStreamName"] for attempt in self.describe(run)["attempts"]]
        read = [logs.get_log_events(logGroupName=name, logStreamName=one, startFromHead=True) for one in streams]
        return ["\n".join(event["message"] for event in page["events"]) for page in read]

    def read_alarms(self) -> list[str]:
        """What the alarm topic has said so far; messages stay in the queue."""
        options = {"MaxNumberOfMessages": 10, "VisibilityTimeout": 0, "WaitTimeSeconds": 0}
        found = boto3.client("sqs").receive_message(QueueUrl=self.alarms, **options).get("Messages", [])
        return [json.loads(one["Body"])["Message"] for one in found]

    def run_command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the real command against the stack."""
        environment = {**os.environ, "PILOTLIGHT_KEY": self.stack.key, "COLUMNS": "300"}
        command = [str(PILOTLIGHT), *words, "--remote", "--url", self.stack.url]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def load_manifest(self, version: int) -> Manifest:
        """The manifest of a version of digits."""
        return Registry(self.stack.store).load_manifest("digits", version)

    @property
    def champion(self) -> int:
        """The version that answers for digits by default."""
        return int(self.stack.call("GET", "/registry/models/digits").json()["aliases"]["champion"]["version"])

    def predict(self) -> int:
        """How many of 20 test digits are told rightly over HTTP."""
        images, labels = fakes.digits()
        image = Tensor("image", "FP32", [20, *images.shape[1:]], images[:20].ravel().tolist())
        with Client(self.stack.url, key=self.stack.key) as client:
            logits = np.reshape(client.infer("digits", [image]).get_output("logits").data, (20, 10))
        return int((logits.argmax(1) == labels[:20]).sum())


@pytest.fixture(scope="module")
def trains(deploy: Callable[..., DeployedStack]) -> Iterator[TrainingStack]:
    """A stack in the account's default network, whose repository has no image yet."""
    subnets = boto3.client("ec2").describe_subnets()["Subnets"]
    network = {"TrainingVpc": subnets[0]["VpcId"], "TrainingSubnets": ",".join(one["SubnetId"] for one in subnets)}
    with tempfile.TemporaryDirectory(prefix="small-jobs-", dir=BUILT.parents[1]) as folder:
        stack = deploy(STACK, limit_memory(Path(folder)), Promotion="champion", **network)
    yield TrainingStack(stack, subscribe_queue())
    docker("rmi", f"{stack.outputs['TrainingRepository']}:current", check=False)


def limit_memory(folder: Path) -> Path:
    """Make a folder that is the built package, but for the default of one parameter."""
    for part in BUILT.parent.iterdir():
        (folder / part.name).symlink_to(part)
    (folder / "Training").unlink()
    (folder / "Training").mkdir()
    built = (BUILT.parent / "Training" / "template.yaml").read_text()
    text, count = re.subn(r"(  MemoryMb:\n    Type: Number\n    Default: )\d+", rf"\g<1>{MEMORY_MB}", built)
    assert count == 1
    (folder / "Training" / "template.yaml").write_text(text)
    return folder / BUILT.name


def subscribe_queue() -> str:
    """Make a queue that gets what the stack's alarm topic says, and that lets the topic send."""
    sns, sqs, name = boto3.client("sns"), boto3.client("sqs"), f"{STACK}-alarms"
    (topic,) = [one["TopicArn"] for one in sns.list_topics()["Topics"] if f":{STACK}-" in one["TopicArn"]]
    queue = f"arn:aws:sqs:us-east-1:000000000000:{name}"
    allowed = {"Effect": "Allow", "Principal": {"Service": "sns.amazonaws.com"}, "Action": "sqs:SendMessage"}
    policy = {"Version": "2012-10-17", "Statement": [{**allowed, "Resource": queue}]}
    url: str = sqs.create_queue(QueueName=name, Attributes={"Policy": json.dumps(policy)})["QueueUrl"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue)
    return url


@pytest.fixture
def training(trains: TrainingStack, training_image: str) -> TrainingStack:
    """The stack, with the training image in its repository: Docker's tag is what the emulator has of a push."""
    docker("tag", training_image, f"{trains.stack.outputs['TrainingRepository']}:current")
    return trains


def test_a_job_without_an_image_says_so(trains: TrainingStack) -> None:
    """What everybody forgets first. Batch tries again, since an image may be on its way, and gives up."""
    docker("rmi", f"{trains.stack.outputs['TrainingRepository']}:current", check=False)
    trains.start("no-image", "digits")
    reason = trains.wait_for_end("no-image", "failed")["reason"]
    assert "CannotPullContainerError" in reason
    assert f"{trains.stack.outputs['TrainingRepository']}:current not found" in reason
    assert len(trains.describe("no-image")["attempts"]) == 10


def test_a_training_becomes_the_champion(training: TrainingStack) -> None:
    changes = [word for setting in SETTINGS for word in ("--set", setting)]
    done = training.run_command("train", "digits", "--run", "unbroken", *changes)
    assert (done.returncode, done.stdout.split()[-1:]) == (0, ["digits:1"]), done.stdout + done.stderr
    shown = training.wait_for_end("unbroken", "finished")
    assert (shown["version"], shown["epochs"], shown["job"]["attempts"], shown["reason"]) == ("digits:1", 12, 1, "")
    record = training.load_manifest(1).training
    assert record is not None
    assert (record.revision, record.device) == ("e2e", "cpu")
    fakes.eventually(lambda: training.champion == 1, WITHIN_S)
    assert training.predict() >= 19


def test_a_reclaimed_run_goes_on_and_passes_the_gate(training: TrainingStack) -> None:
    """One machine is drained by ECS, which sends SIGTERM; the next is gone at once. The model is the unbroken run's."""
    training.start("reclaimed", "digits", *SETTINGS)
    training.wait("reclaimed", lambda shown: shown["epochs"] >= 2)
    docker("kill", "--signal", "TERM", training.find_container("reclaimed"))
    training.wait("reclaimed", lambda shown: shown["job"]["attempts"] == 2 and shown["epochs"] >= 6)
    docker("rm", "--force", training.find_container("reclaimed"))
    shown = training.wait_for_end("reclaimed", "finished")
    assert (shown["version"], shown["epochs"], shown["job"]["attempts"]) == ("digits:2", 12, 3)
    first, second, third = training.describe("reclaimed")["attempts"]
    assert (first["statusReason"], first["container"]["exitCode"]) == ("Essential container in task exited", 75)
    assert re.fullmatch(r"Host EC2 \(instance i-\w+\) terminated\.", second["statusReason"])
    assert third["container"]["exitCode"] == 0
    logs = training.read_logs("reclaimed")
    stopped = STOPPED.search(logs[0])
    assert stopped is not None
    assert f"goes on after step {stopped[1]}" in logs[1]
    assert re.search(r"goes on after step \d+", logs[2])
    graphs = [{one.path: one.sha256 for one in training.load_manifest(version).files} for version in (1, 2)]
    assert graphs[0]["model.fp32.onnx"] == graphs[1]["model.fp32.onnx"]
    fakes.eventually(lambda: training.champion == 2, WITHIN_S)
    assert training.show("reclaimed")["verdict"] == "passed"
    assert training.predict() >= 19


def test_a_cancelled_run_ends_with_its_container(training: TrainingStack) -> None:
    training.start("unwanted", "digits", "epochs=500", "early_stopping.patience=500", "checkpoint.steps=5")
    training.wait("unwanted", lambda shown: shown["epochs"] >= 1)
    container = training.find_container("unwanted")
    done = training.run_command("runs", "cancel", "unwanted", "--why", "wrong data")
    assert done.returncode == 0, done.stderr
    shown = training.wait_for_end("unwanted", "cancelled")
    assert shown["reason"].startswith("Cancelled by operator: wrong data.")
    job = training.describe("unwanted")
    assert (job["status"], job["statusReason"]) == ("FAILED", "Cancelled: wrong data")
    assert [one["container"]["exitCode"] for one in job["attempts"]] == [75]
    assert not docker("ps", "--all", "--quiet", "--filter", f"id={container}").stdout
    assert not [one for one in training.read_alarms() if "unwanted" in one]  # a person wanted it so


def test_a_recipe_without_its_data_is_told_in_a_sentence(training: TrainingStack) -> None:
    training.start("lost", "iris", LOST)
    shown = training.wait_for_end("lost", "failed")
    sentence = f"There is nothing at {training.stack.store_url}/data/nothing.csv. It is named by data.path."
    assert (shown["reason"], shown["job"]["attempts"]) == (sentence, 1)
    told = training.run_command("runs", "show", "lost")
    assert told.stdout.splitlines()[:2] == ["lost  failed", sentence]
    (alarm,) = [one for one in training.read_alarms() if one.startswith('"Training lost (')]
    assert alarm.endswith(
        'failed: Essential container in task exited. Its log: pilotlight runs show lost --remote --url URL."'
    )


def test_a_job_that_takes_too_much_memory_says_so(training: TrainingStack) -> None:
    training.start("wide", "breast-cancer", TOO_WIDE)
    shown = training.wait_for_end("wide", "failed")
    assert "OutOfMemoryError: Container killed due to memory usage" in shown["reason"]
    assert (shown["job"]["attempts"], training.describe("wide")["attempts"][0]["container"]["exitCode"]) == (1, 137)


def test_two_nodes_train_together_and_go_on_when_one_is_lost(training: TrainingStack) -> None:
    """The main node notices that the other one is gone, and ends with 75, on which Batch starts both again."""
    training.start("together", "digits", *SETTINGS, nodes=2)
    training.wait("together", lambda shown: shown["epochs"] >= 2)
    docker("kill", training.find_container("together", "#1"))
    shown = training.wait_for_end("together", "finished")
    assert (shown["version"], shown["job"]["nodes"], shown["job"]["attempts"]) == ("digits:3", 2, 2)
    main, other = (training.describe("together", node) for node in ("#0", "#1"))
    assert [main["nodeDetails"]["isMainNode"], other["nodeDetails"]["isMainNode"]] == [True, False]
    assert [one["container"]["exitCode"] for one in main["attempts"]] == [75, 0]
    assert [one["container"]["exitCode"] for one in other["attempts"]] == [137, 0]
    log = training.stack.call("GET", "/v1/trainings/together/log").json()["lines"]
    assert any(re.search(r"goes on after step \d+", line) for line in log)
    assert any("epochs on 2 x cpu" in line for line in log)


def test_the_main_nodes_exit_code_is_the_jobs(training: TrainingStack) -> None:
    training.start("lost-together", "iris", LOST, nodes=2)
    shown = training.wait_for_end("lost-together", "failed")
    assert shown["reason"].endswith("It is named by data.path.")
    assert training.describe("lost-together")["attempts"][0]["container"]["exitCode"] == 2
    assert training.read_document("lost-together")["end"]["reason"] == "Essential container in task exited; exit code 2"
