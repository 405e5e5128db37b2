"""Two stacks in one account and region: what one is told and does, the other neither hears nor has."""

import json
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from pilotlight.errors import AlreadyExistsError
from pilotlight.gate.verdict import verdict_path
from pilotlight.registry.approval import load_approval
from pilotlight.registry.registry import Registry, version_path
from pilotlight.storage import object_store
from tests import fakes
from tests.e2e.deploy.conftest import DeployedStack, needs_iam

Stacks = tuple[DeployedStack, DeployedStack]
UNKNOWN = "batch_" + "0" * 32


def infer(number: int) -> dict[str, Any]:
    x = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [number, 0, 1]}
    return {"custom_id": str(number), "method": "POST", "url": "/v2/models/double/infer", "body": {"inputs": [x]}}


@pytest.fixture(scope="module")
def with_model(stacks: Stacks) -> Stacks:
    """A model of two versions, in the first stack alone."""
    registry = Registry(stacks[0].store)
    for _ in range(2):
        fakes.publish(registry)
    return stacks


def put_event(**more: Any) -> None:  # noqa: ANN401 - fields of an entry
    entry = {"Source": "pilotlight.batches", "DetailType": "Pilotlight Inference", **more}
    assert boto3.client("events").put_events(Entries=[entry])["FailedEntryCount"] == 0


def make_batch(stack: DeployedStack) -> dict[str, Any]:
    """Upload a file over HTTP and order a batch of it."""
    lines = "\n".join(json.dumps(infer(number)) for number in range(3)).encode()
    file = stack.call("POST", "/v1/files", data={"purpose": "batch"}, files={"file": ("a.jsonl", lines)})
    assert file.status_code == 200, file.text
    body = {"input_file_id": file.json()["id"], "endpoint": "/v2/models/double/infer", "completion_window": "24h"}
    batch = stack.call("POST", "/v1/batches", json=body)
    assert batch.status_code == 200, batch.text
    found: dict[str, Any] = batch.json()
    return found


def test_a_batch_of_one_stack_is_no_business_of_the_other(with_model: Stacks) -> None:
    one, two = with_model
    before = two.read_log("BatchFunction").count("START")
    batch = make_batch(one)
    fakes.eventually(lambda: one.call("GET", f"/v1/batches/{batch['id']}").json()["status"] == "completed", 120)
    output = one.store.get(f"outbox/batches/{batch['id'].removeprefix('batch_')}/output.jsonl").data
    assert len(output.splitlines()) == 3
    # The second one's function works and tells what it hears: that an unknown batch is done, and nothing before it.
    bucket = f"arn:aws:s3:::{two.outputs['Bucket']}"
    put_event(Resources=[bucket], Detail=json.dumps({"batch": UNKNOWN}))
    fakes.eventually(lambda: two.read_log("BatchFunction").count("START") > before, 120)
    heard = two.read_log("BatchFunction")
    assert heard.count("START") == before + 1, heard
    assert batch["id"] not in heard
    assert "Traceback" not in heard
    assert [path for path in two.store.list_paths("") if not path.startswith("secrets/")] == []
    for stack in with_model:
        assert (stack.count_messages("Queue"), stack.count_messages("DeadLetters")) == (0, 0)
    states = boto3.client("cloudwatch").describe_alarms(StateValue="ALARM")
    rung = [one["AlarmName"] for one in [*states["MetricAlarms"], *states["CompositeAlarms"]]]
    assert [name for name in rung if name.startswith(tuple(f"{stack.name}-" for stack in with_model))] == []


def test_an_event_without_a_stack_is_heard_by_none(with_model: Stacks) -> None:
    before = [stack.read_log("BatchFunction").count("START") for stack in with_model]
    put_event(Detail=json.dumps({"batch": UNKNOWN}))
    put_event(Resources=["arn:aws:s3:::another"], Detail=json.dumps({"batch": UNKNOWN}))
    bucket = f"arn:aws:s3:::{with_model[0].outputs['Bucket']}"
    put_event(Resources=[bucket], Detail=json.dumps({"batch": UNKNOWN}))  # the last of the three, which one hears
    fakes.eventually(lambda: with_model[0].read_log("BatchFunction").count("START") == before[0] + 1, 120)
    assert with_model[1].read_log("BatchFunction").count("START") == before[1]


def test_the_gate_and_people_judge_by_their_own_roles(with_model: Stacks) -> None:
    """Their rights suffice for the places where judgements lie, under IAM."""
    one, two = with_model
    registry = Registry(one.store)
    fakes.eventually(lambda: one.has(verdict_path("double", 2)), 120)
    version = "/registry/models/double/versions/2"
    assert one.call("GET", f"{version}/verdict").json()["passed"] is True
    assert one.call("PUT", f"{version}/approval", json={"state": "approved", "why": "good"}).status_code == 200
    assert load_approval(registry, "double", 2).state == "approved"
    fakes.publish(registry)
    fakes.publish(registry)
    assert one.call("DELETE", f"{version}").json() == {"deleted": "double:2"}
    assert not one.has(verdict_path("double", 2))
    assert "double" not in two.read_log("PromoteFunction")


def test_a_large_file_of_a_version_is_created_once(
    with_model: Stacks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In parts, which the emulator joins under `If-None-Match` as S3 does."""
    monkeypatch.setattr(object_store, "SINGLE_PUT_BYTES", 1000)
    (tmp_path / "large").write_bytes(bytes(range(256)) * 80_000)
    store, path = with_model[0].store, version_path("large", 1, "model.onnx")
    store.create_from_file(path, tmp_path / "large")
    with pytest.raises(AlreadyExistsError):
        store.create_from_file(path, tmp_path / "large")
    assert store.get_size(path) == 20_480_000


@needs_iam
def test_a_stack_does_not_reach_the_bucket_of_the_other(with_model: Stacks) -> None:
    one, two = with_model
    role = next(
        name
        for each in boto3.client("iam").list_roles()["Roles"]
        if "one-PredictFunction" in (name := each["RoleName"])
    )
    trusted = boto3.client("iam").get_role(RoleName=role)["Role"]["Arn"]
    taken = boto3.client("sts").assume_role(RoleArn=trusted, RoleSessionName="test")["Credentials"]
    s3 = boto3.client(
        "s3",
        aws_access_key_id=taken["AccessKeyId"],
        aws_secret_access_key=taken["SecretAccessKey"],
        aws_session_token=taken["SessionToken"],
    )
    manifest = version_path("double", 1, "manifest.json")
    assert s3.get_object(Bucket=one.outputs["Bucket"], Key=manifest)["ContentLength"] > 0
    for bucket, key in ((two.outputs["Bucket"], manifest), (one.outputs["Bucket"], "approvals/double/1.json")):
        with pytest.raises(ClientError, match="AccessDenied"):
            s3.get_object(Bucket=bucket, Key=key)
