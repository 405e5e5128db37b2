"""Check this machine: python, the pinned packages, onnxruntime, disk space, and the tools of a deploy."""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
from packaging.requirements import Requirement

from pilotlight.doctor.finding import CheckFailedError, HealthCheck, NotCheckedError, join_names
from pilotlight.runtime.model_files import PINNED_ONNXRUNTIME
from pilotlight.runtime.session import ONNXRUNTIME_VERSION, open_session
from pilotlight.settings import Settings

MIN_PYTHON = (3, 11)
MIN_FREE_BYTES = Settings().model_memory_budget  # bytes of models that a function of the template's size may hold
TOOL_TIMEOUT_S = 20.0  # for docker or sam to print its version
# An ONNX file of 67 bytes: y = x, one float.
IDENTITY_MODEL = (
    b'\x08\n\x12\x00:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01iZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08'
    b"\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x12"
)


def list_machine_checks() -> tuple[HealthCheck, ...]:
    """List all checks; those of tools and credentials never fail, since serving needs none."""
    return (
        HealthCheck("python", check_python),
        HealthCheck("packages", check_packages),
        HealthCheck("training packages", check_training_packages),
        HealthCheck("onnxruntime", check_onnxruntime),
        HealthCheck("telemetry", check_telemetry),
        HealthCheck("disk", check_disk_space),
        HealthCheck("docker", check_docker),
        HealthCheck("sam", check_sam),
        HealthCheck("AWS credentials", check_aws_credentials),
    )


def check_python(version: Sequence[int] = sys.version_info[:3]) -> str:
    """Check the interpreter."""
    version_text = ".".join(map(str, version))
    if tuple(version[:2]) < MIN_PYTHON:
        raise CheckFailedError(
            f"python is {version_text}, and 3.11 is the oldest that works; make PYTHON=python3.13 demo."
        )
    return f"python {version_text} on {platform.system()} {platform.machine()} with {os.cpu_count()} CPUs."


def load_requirements(extra: str) -> list[Requirement]:
    """Load the pinned requirements of this installation, of the core or of an extra."""
    try:
        declared = map(Requirement, metadata.requires("pilotlight") or [])
    except metadata.PackageNotFoundError as exc:
        raise NotCheckedError("Pilotlight is not installed as a package here, so that nothing tells its pins.") from exc
    here = [need for need in declared if need.marker is None or need.marker.evaluate({"extra": extra})]
    return [need for need in here if bool(extra) == ("extra" in str(need.marker))]


def check_packages(pins: Sequence[Requirement] | None = None, extra: str = "") -> str:
    """Check that every package has its pinned version."""
    pins = load_requirements(extra) if pins is None else pins
    wrong = [mismatch for need in pins if (mismatch := describe_package_mismatch(need))]
    if wrong:
        command = f"pip install -c infra/constraints.txt -e '.{f'[{extra}]' if extra else ''}'"
        raise CheckFailedError(
            f"{len(wrong)} of {len(pins)} packages are not as pinned: {join_names(wrong)}; {command}."
        )
    return f"All {len(pins)} packages are as pinned."


def describe_package_mismatch(requirement: Requirement) -> str:
    """Describe how a package differs from its pin; return an empty string if it does not."""
    try:
        installed = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} is missing"
    return (
        ""
        if requirement.specifier.contains(installed, prereleases=True)
        else f"{requirement.name} is {installed}, not {requirement.specifier}"
    )


def check_training_packages() -> str:
    """Check the packages of the training extra, if it is installed."""
    try:
        metadata.version("torch")
    except metadata.PackageNotFoundError as exc:
        raise NotCheckedError("Training is not installed; pip install -e '.[train]' brings it.") from exc
    return check_packages(extra="train")


def check_onnxruntime(version: str = ONNXRUNTIME_VERSION) -> str:
    """Check that a graph opens and runs, in the build that the rest of the code expects."""
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        file.write(IDENTITY_MODEL)
        file.flush()
        began = time.perf_counter()
        answer = open_session(file.name).run({"x": np.array([1.5], np.float32)})["y"]
        took_ms = (time.perf_counter() - began) * 1000
    if answer.tolist() != [1.5]:
        raise CheckFailedError(f"onnxruntime {version} gives {answer.tolist()} for y = x at 1.5; install it again.")
    if version != PINNED_ONNXRUNTIME:
        raise CheckFailedError(
            f"onnxruntime is {version}, and prepared graphs are for {PINNED_ONNXRUNTIME}; install that."
        )
    return f"onnxruntime {version} opens a graph and runs it, in {took_ms:.1f} ms."


def check_telemetry() -> str:
    """Check that onnxruntime's telemetry is off, as `runtime.session` sets it unless the environment differs."""
    value = os.environ.get("ORT_DISABLE_TELEMETRY", "")
    if value != "1":
        raise CheckFailedError(
            f"ORT_DISABLE_TELEMETRY is {value!r}, so that onnxruntime may report home; unset it, or say 1."
        )
    return "onnxruntime's telemetry is off."


def check_disk_space(folder: Path | None = None, min_free_bytes: int = MIN_FREE_BYTES) -> str:
    """Check that the largest model of a function fits into the folder to which models are fetched."""
    folder = folder or Path(tempfile.gettempdir())
    free = shutil.disk_usage(folder).free
    if free < min_free_bytes:
        raise CheckFailedError(
            f"{folder} has {free / 1e9:.1f} GB free, and a model may take {min_free_bytes / 1e9:.1f}; make room."
        )
    return f"{folder} has {free / 1e9:.1f} GB free."


def check_docker() -> str:
    """Check the engine that runs `sam local` and builds images."""
    version = run_tool("docker", "version", "--format", "{{.Server.Version}}")
    return f"The engine answers, version {version}."


def check_sam() -> str:
    """Check the tool that builds and deploys the stack."""
    return f"{run_tool('sam', '--version')}."


def run_tool(*command: str) -> str:
    """Run a program and return its first line; raise `NotCheckedError` if it is not installed or fails."""
    if shutil.which(command[0]) is None:
        raise NotCheckedError(f"{command[0]} is not on the PATH; only deploys and `sam local` need it.")
    quiet = os.environ | {"SAM_CLI_TELEMETRY": "0"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S, check=True, env=quiet)
    except (OSError, subprocess.SubprocessError) as exc:
        reason = (getattr(exc, "stderr", None) or str(exc)).strip().rsplit("\n", 1)[-1]
        raise NotCheckedError(f"{command[0]} is there and does not work: {reason}; only deploys need it.") from exc
    return done.stdout.strip().split("\n", 1)[0]


def check_aws_credentials(load: Callable[[], str] | None = None) -> str:
    """Check where boto3 would find credentials, without a request to AWS."""
    method = (load or find_credentials_method)()
    if not method:
        raise NotCheckedError(
            "There are none: AWS_PROFILE names some, `aws configure` makes some; only AWS needs them."
        )
    return f"There are some, from {method}."


def find_credentials_method() -> str:
    """Find the kind of credentials on this machine; empty if there are none. Skip roles, which take HTTP requests."""
    from botocore.exceptions import BotoCoreError
    from botocore.session import get_session

    session = get_session()
    try:
        resolver = session.get_component("credential_provider")
        for remote in ("iam-role", "container-role"):
            resolver.remove(remote)
        credentials = session.get_credentials()
    except BotoCoreError as exc:
        raise NotCheckedError(f"They cannot be read: {exc}.") from exc
    return str(credentials.method) if credentials is not None else ""
