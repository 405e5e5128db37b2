"""The life of a stack: other parameters, new code while requests run, back again, a failed deploy, the end.

The tests are one story in the order of this file; each leaves the stack as the next one finds it.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest

import pilotlight
from pilotlight.registry.registry import Registry
from tests import fakes
from tests.e2e.deploy.account import list_resources
from tests.e2e.deploy.builds import NEXT, build_next_code, change_template, refuse_last
from tests.e2e.deploy.callers import Callers, X
from tests.e2e.deploy.conftest import DeployedStack, sam_deploy

NAME = "pilotlight-life"
OLD = pilotlight.__version__
# What changes from one deploy to the next by itself.
VOLATILE = {"RevisionId", "LastModified", "LastUpdateStatus", "LastUpdateStatusReason", "LastUpdateStatusReasonCode"}
VOLATILE |= {"State", "StateReason", "StateReasonCode", "ResponseMetadata"}


@dataclass
class Life:
    """The stack, what the account had before it, and the parameters that it has."""

    stack: DeployedStack
    before: set[str]
    parameters: dict[str, str]
    package: Path
    left: set[str] = field(default_factory=set)  # by another stack, which failed

    @property
    def predict(self) -> str:
        """The name of its predict function."""
        (name,) = (name for name in list_functions() if name.startswith(f"{NAME}-PredictFunction"))
        return name

    def read_live(self) -> dict[str, Any]:
        """The configuration with which callers are answered."""
        return read_configuration(self.predict, "live")

    def read_version(self) -> str:
        """The version of the code that answers."""
        return str(self.stack.call("GET", "/v2").json()["version"])

    def infer(self) -> list[float]:
        answer = self.stack.call("POST", "/v2/models/double/infer", json=X)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["outputs"][0]["data"])

    def describe(self) -> dict[str, Any]:
        """Everything about it that a deploy may change, but for the versions of functions and layers that it keeps."""
        (stack,) = boto3.client("cloudformation").describe_stacks(StackName=NAME)["Stacks"]
        names = [name for name in list_functions() if name.startswith(f"{NAME}-")]
        return {
            "parameters": {one["ParameterKey"]: one["ParameterValue"] for one in stack["Parameters"]},
            "outputs": {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]},
            "functions": {name: read_configuration(name, "$LATEST") for name in names},
            "live": self.read_live(),
            "resources": {one for one in list_resources() if not one.startswith(("function version", "layer"))},
        }


def list_functions() -> list[str]:
    return [one["FunctionName"] for one in boto3.client("lambda").list_functions()["Functions"]]


def read_configuration(function: str, qualifier: str) -> dict[str, Any]:
    found = boto3.client("lambda").get_function_configuration(FunctionName=function, Qualifier=qualifier)
    return {name: value for name, value in found.items() if name not in VOLATILE}


def delete_stack(name: str) -> None:
    """Delete it as `sam delete` does once it has removed what it uploaded, for which it wants a URL of AWS's own."""
    client = boto3.client("cloudformation")
    client.delete_stack(StackName=name)
    client.get_waiter("stack_delete_complete").wait(StackName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 300})


def find_network() -> dict[str, str]:
    """Find the account's own network, for trainings."""
    (subnet, *_) = boto3.client("ec2").describe_subnets()["Subnets"]
    return {"TrainingVpc": subnet["VpcId"], "TrainingSubnets": subnet["SubnetId"]}


@pytest.fixture(scope="module")
def life(emulator: str, packaged: Path) -> Life:
    """A stack with every resource that outlives one."""
    before = list_resources()
    parameters = {"AccessLogs": "create", "RateLimit": "1000", **find_network()}  # so that no caller is told to wait
    sam_deploy(packaged, NAME, **parameters)
    stack = DeployedStack(NAME)
    stack.url = f"{emulator}/_aws/execute-api/{stack.outputs['ApiId']}/prod"
    fakes.publish(Registry(stack.store))
    return Life(stack, before, parameters, packaged)


@pytest.fixture(scope="module")
def next_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_next_code(tmp_path_factory.mktemp("next"))


@pytest.fixture(scope="module")
def broken_build(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, uploaded, with one resource that is refused when everything else is there."""
    return change_template(packaged, tmp_path_factory.mktemp("broken") / "template.yaml", refuse_last)


def test_changed_parameters_are_what_callers_meet(life: Life) -> None:
    """The alias `live` moves to a version that has them; nothing that clients know changes."""
    assert life.infer() == [2, 0, 2]
    outputs = life.stack.outputs
    life.parameters |= {"ModelMemory": "1800", "ModelDisk": "600", "LargeAnswers": "on", "Preload": "double"}
    sam_deploy(life.package, NAME, **life.parameters)
    live = life.read_live()
    variables = live["Environment"]["Variables"]
    assert (live["MemorySize"], live["EphemeralStorage"]["Size"]) == (1800, 600)
    assert (variables["PILOTLIGHT_LARGE_ANSWERS"], variables["PILOTLIGHT_PRELOAD"]) == ("on", "double")
    assert DeployedStack(NAME).outputs == outputs
    assert life.infer() == [2, 0, 2]


def test_new_code_takes_over_while_requests_run(life: Life, next_build: Path) -> None:
    """Other code of the core layer alone, as most releases have it; no request fails."""
    callers = Callers(life.stack)
    with callers.calling():
        fakes.eventually(lambda: callers.answered["/v1/trainings"] >= 2, 120)
        sam_deploy(next_build, NAME, **life.parameters)
        fakes.eventually(lambda: callers.versions[-1:] == [NEXT], 60)
        done = callers.answered.total()
        fakes.eventually(lambda: callers.answered.total() > done + 10, 60)
    assert callers.refused == []
    assert set(callers.versions) == {OLD, NEXT}


def test_the_alias_goes_back_to_old_code(life: Life) -> None:
    """As `aws lambda update-alias` does: the predict function's alone, with the layers that the version had."""
    client, name = boto3.client("lambda"), life.predict
    newest = life.read_live()["Version"]
    client.update_alias(FunctionName=name, Name="live", FunctionVersion=str(int(newest) - 1))
    assert (life.read_version(), life.infer()) == (OLD, [2, 0, 2])
    client.update_alias(FunctionName=name, Name="live", FunctionVersion=newest)
    assert (life.read_version(), life.infer()) == (NEXT, [2, 0, 2])


def test_a_deploy_goes_back_to_old_code_while_requests_run(life: Life) -> None:
    callers = Callers(life.stack)
    with callers.calling():
        fakes.eventually(lambda: callers.versions[-1:] == [NEXT], 120)
        sam_deploy(life.package, NAME, **life.parameters)
        fakes.eventually(lambda: callers.versions[-1:] == [OLD], 60)
    assert callers.refused == []
    assert life.infer() == [2, 0, 2]


def test_a_deploy_that_fails_leaves_the_stack_as_it_was(life: Life, broken_build: Path) -> None:
    """All of it: everything has been updated when the last resource is refused. Callers notice nothing."""
    before, callers = life.describe(), Callers(life.stack)
    changed = {"Preload": "", "RateLimit": "2000", "Auth": "open", "ModelMemory": "2000"}
    with callers.calling(), pytest.raises(AssertionError, match="UPDATE_ROLLBACK_COMPLETE"):
        sam_deploy(broken_build, NAME, **{**life.parameters, **changed})
    assert (callers.refused, callers.answered.total() > 0) == ([], True)
    assert life.describe() == before
    assert (life.read_version(), life.infer()) == (OLD, [2, 0, 2])
    assert life.stack.get("/v2").status_code == 401  # as with Auth=keys


def test_a_first_deploy_that_fails_leaves_nothing(life: Life, broken_build: Path) -> None:
    """But the dead letters, which a nested stack keeps whenever it goes."""
    before = list_resources()
    with pytest.raises(AssertionError, match="ROLLBACK_COMPLETE"):
        sam_deploy(broken_build, f"{NAME}-2", AccessLogs="off")
    life.left = list_resources() - before
    assert [one for one in life.left if not (one.startswith("queue ") and "DeadLetters" in one)] == []
    delete_stack(f"{NAME}-2")  # the record of it, without which it cannot be deployed again


def test_what_the_guide_promises_outlives_the_stack_and_nothing_else(life: Life) -> None:
    """The table in infra/docs/deploy.md, section "Removal"."""
    outputs = life.stack.outputs
    roles = [one for one in list_resources() if "GatewayLogRole" in one]
    delete_stack(NAME)
    kept = {f"bucket {outputs['Bucket']}", f"queue {outputs['DeadLetters'].rpartition('/')[2]}", *roles}
    kept.add(f"image repository {outputs['TrainingRepository'].partition('/')[2]}")
    assert list_resources() - life.before - life.left == kept
    assert len(roles) == 1
    assert Registry(life.stack.store).load_manifest("double", 1).version == 1


def test_a_stack_of_the_same_name_comes_after_it(life: Life) -> None:
    """With a bucket of its own; the former one stays as it is."""
    former = life.stack.outputs
    sam_deploy(life.package, NAME, AccessLogs="off")
    stack = DeployedStack(NAME)
    assert stack.outputs["Bucket"] != former["Bucket"]
    assert list(stack.store.list_paths("models")) == []
    assert Registry(life.stack.store).load_manifest("double", 1).version == 1
