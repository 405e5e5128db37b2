"""What is told of this machine, and that each check can fail."""

import subprocess
from importlib import metadata
from pathlib import Path

import onnx
import pytest
from packaging.requirements import Requirement

from pilotlight.doctor import machine
from pilotlight.doctor.finding import CheckFailedError, NotCheckedError, run_check


def test_this_machine_passes() -> None:
    found = {one.check: one for one in map(run_check, machine.list_machine_checks())}
    assert not [one for one in found.values() if one.state == "fails"]
    assert found["python"].state == found["onnxruntime"].state == found["telemetry"].state == "passes"


def test_an_old_python() -> None:
    with pytest.raises(CheckFailedError, match=r"python is 3\.10\.4, and 3\.11 is the oldest"):
        machine.check_python((3, 10, 4))


def test_packages_that_are_not_as_pinned() -> None:
    needs = [Requirement("numpy==1.0.0"), Requirement("no-such-package==1.0"), Requirement("msgspec>=0.1")]
    said = rf"2 of 3 packages .*: numpy is {metadata.version('numpy')}, not ==1\.0\.0, no-such-package is missing; pip"
    with pytest.raises(CheckFailedError, match=said):
        machine.check_packages(needs)


def test_a_local_version_is_the_pinned_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda _: "2.13.0+cpu")
    assert machine.describe_package_mismatch(Requirement("torch==2.13.0")) == ""


def nowhere(name: str) -> str:
    raise metadata.PackageNotFoundError(name)


def test_what_is_not_installed_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", nowhere)
    with pytest.raises(NotCheckedError, match=r"pip install -e '\.\[train\]'"):
        machine.check_training_packages()
    monkeypatch.setattr(metadata, "requires", nowhere)
    with pytest.raises(NotCheckedError, match="nothing tells its pins"):
        machine.check_packages()


def test_the_graph_is_an_identity() -> None:
    graph = onnx.load_from_string(machine.IDENTITY_MODEL).graph
    assert [(node.op_type, *node.input, *node.output) for node in graph.node] == [("Identity", "x", "y")]


def test_another_onnxruntime() -> None:
    with pytest.raises(CheckFailedError, match=r"onnxruntime is 1\.0\.0, and prepared graphs are for"):
        machine.check_onnxruntime("1.0.0")


def test_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    with pytest.raises(CheckFailedError, match="ORT_DISABLE_TELEMETRY is '0'"):
        machine.check_telemetry()


def test_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(CheckFailedError, match="make room"):
        machine.check_disk_space(tmp_path, min_free_bytes=1 << 62)


def test_tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotCheckedError, match="docker is not on the PATH"):
        machine.check_docker()
    for name, script in {"docker": "echo Cannot connect >&2; exit 1", "sam": "echo SAM CLI, version 1.170.0"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(NotCheckedError, match="docker is there and does not work: Cannot connect"):
        machine.check_docker()
    assert machine.check_sam() == "SAM CLI, version 1.170.0."

    def hangs(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("docker", 20)

    monkeypatch.setattr(subprocess, "run", hangs)
    with pytest.raises(NotCheckedError, match="timed out after 20 seconds"):
        machine.check_docker()


def test_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(NotCheckedError, match="AWS_PROFILE names some"):
        machine.check_aws_credentials()
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    with pytest.raises(NotCheckedError, match="no-such-profile"):
        machine.check_aws_credentials()
    monkeypatch.delenv("AWS_PROFILE")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    assert machine.check_aws_credentials() == "There are some, from env."
