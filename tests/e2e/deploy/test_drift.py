"""Captures of requests over HTTP, under the predict function's role, and the nightly report on them, by its schedule.

Nights are short here: the rule of the drift function is set to one minute, and the captures are moved to the day
before, since a report leaves out the last hour.
"""

import gzip
import json
import os
import subprocess
from datetime import UTC, datetime, timedelta

import boto3
import httpx2
import numpy as np
import pytest
from msgspec import structs

from pilotlight.capture.record import HOUR_FORMAT
from pilotlight.contracts.capture_policy import CapturePolicy
from pilotlight.drift import training_profile
from pilotlight.registry.registry import Registry
from tests import fakes
from tests.e2e.deploy.conftest import PILOTLIGHT, DeployedStack, read_alarm, set_schedule

REQUESTS = 40  # more than the 30 examples that a report needs
DRAWN = np.random.default_rng(1)
SHIFT = 5.0  # of the middle one of three normal columns, which no accident explains


@pytest.fixture(scope="module")
def shifted(captured: DeployedStack) -> DeployedStack:
    """The stack with captures of a model whose requests are not what it was trained on, and of one that keeps none."""
    generator = np.random.default_rng(0)
    train = generator.standard_normal((1000, 3)).astype(np.float32)
    registry = Registry(captured.store)
    publish(registry, "shifted", train, CapturePolicy())
    publish(registry, "private", train, CapturePolicy(keep="off"))
    for _ in range(REQUESTS):
        ask_shifted(captured)
    assert infer(captured, "private", [1, 2, 3]).status_code == 200
    return captured


def publish(
    registry: Registry, name: str, train: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]", policy: CapturePolicy
) -> None:
    draft = structs.replace(fakes.draft(name), profile=training_profile.PROFILE_FILE, capture=policy)
    profile = training_profile.build_profile(draft, {"x": train}, {"y": 2 * train})
    files = {
        "model.onnx": fakes.graph("double"),
        training_profile.PROFILE_FILE: training_profile.encode_profile(profile),
    }
    registry.publish_version(draft, files)


def infer(stack: DeployedStack, model: str, row: list[float]) -> httpx2.Response:
    x = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": row}
    return stack.call("POST", f"/v2/models/{model}/infer", json={"inputs": [x]})


def ask_shifted(stack: DeployedStack) -> None:
    """Send a request whose middle column is not what it was in training."""
    row = DRAWN.standard_normal(3) + np.array([0, SHIFT, 0])
    assert infer(stack, "shifted", row.tolist()).status_code == 200


def list_captures(stack: DeployedStack, model: str) -> list[str]:
    return list(stack.store.list_paths(f"captures/{model}"))


def move_to_yesterday(stack: DeployedStack) -> int:
    """Move the captures of today to the day before, and return how many requests are captured."""
    now = datetime.now(UTC)
    hours = [(now - timedelta(hours=hour)).strftime(HOUR_FORMAT) for hour in (0, 1)]
    yesterday = (now - timedelta(days=1)).strftime(HOUR_FORMAT)
    count = 0
    for path in list_captures(stack, "shifted"):
        data = stack.store.get(path).data
        count += gzip.decompress(data).count(b"\n")
        for hour in hours:
            if hour in path:
                stack.store.put(path.replace(hour, yesterday), data)
                stack.store.delete(path)
    return count


def test_requests_are_captured_as_the_models_policy_says(shifted: DeployedStack) -> None:
    """The first ones of an environment at once, the others once a minute, as infra/docs/drift.md has it."""
    fakes.eventually(lambda: bool(list_captures(shifted, "shifted")), 60)
    (record, *_) = gzip.decompress(shifted.store.get(list_captures(shifted, "shifted")[0]).data).splitlines()
    assert sorted(json.loads(record)["features"]) == ["x[0]", "x[1]", "x[2]"]
    assert list_captures(shifted, "private") == []


def test_the_nightly_report_names_what_drifted(shifted: DeployedStack) -> None:
    def is_written() -> bool:
        ask_shifted(shifted)  # an environment writes during a request
        return move_to_yesterday(shifted) >= REQUESTS

    fakes.eventually(is_written, 120)
    set_schedule(shifted, "Drift", "rate(1 minute)")
    try:
        fakes.eventually(lambda: any(shifted.store.list_paths("drift/shifted/1")), 180)
    finally:
        set_schedule(shifted, "Drift", "cron(15 2 * * ? *)")
    (path, *_) = shifted.store.list_paths("drift/shifted")
    report = json.loads(shifted.store.get(path).data)
    drifted = [one["name"] for one in report["comparisons"] if one["verdict"] == "drifted"]
    assert drifted == ["x[1]", "y[1]"]
    fakes.eventually(lambda: read_alarm(shifted, "Drifted") == "ALARM", 60)
    command = [str(PILOTLIGHT), "drift", "shifted", "--store", shifted.store_url]
    said = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert (said.returncode, "x[1]" in said.stdout, "drifted" in said.stdout) == (0, True, True), said
    assert shifted.store.get("secrets/capture-key").data  # which the drift function makes, and may never replace
    assert (
        boto3.client("s3").head_object(Bucket=shifted.outputs["Bucket"], Key=path)["ServerSideEncryption"] == "aws:kms"
    )
