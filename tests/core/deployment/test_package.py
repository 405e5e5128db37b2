"""The package: what is run to build it, its templates of one architecture, and what a failed step says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pilotlight.deployment import package
from pilotlight.deployment.package import PackageBuilder, narrow_architecture, read_architecture
from pilotlight.errors import UnavailableError

ROOT = Path(__file__).parents[3]
BUILT = """Parameters:
  Auth:
    Default: keys
    AllowedValues:
    - keys
  Architecture:
    Type: String
    Default: x86_64
    AllowedValues:
    - x86_64
    - arm64
    Description: The processor architecture.
  AccessLogs:
    Default: account
Resources:
  Api:
    Properties:
      DefinitionBody:
        Fn::Transform:
          Name: AWS::Include
          Parameters:
            Location: ../../infra/api.yaml
  PredictFunction:
    Properties:
      Architectures:
      - x86_64
      - arm64
"""
STREAMED_URI = "path/2021-11-15/functions/${F.Alias}/response-streaming-invocations"
API = f"""paths:
  /v1/models: {{uri: {{'Fn::Sub': '{STREAMED_URI}'}}, responseTransferMode: STREAM, timeoutInMillis: 900000}}
  /v2: {{uri: {{'Fn::Sub': 'path/2015-03-31/functions/${{P.Alias}}/invocations'}}}}
"""
# It notes how it is called, and builds the template of the environment.
SAM = """#!{python}
import json, os, pathlib, sys
told = {{name: value for name, value in os.environ.items() if name.startswith(("PILOT", "SAM_", "RUNTIME"))}}
with open("calls.jsonl", "a") as file:
    file.write(json.dumps([sys.argv[1:], told]) + "\\n")
if sys.argv[1] == os.environ.get("FAILS"):
    sys.exit("Error: the layer does not build")
if sys.argv[1] != "build":
    sys.exit()
folder = pathlib.Path(".aws-sam/build")
for part in ("", "Events", "DepsLayer", "CoreLayer", "GenerationLayer", "PredictFunction"):
    (folder / part).mkdir(parents=True, exist_ok=True)
(folder / "template.yaml").write_text({built!r})
(folder / "Events" / "template.yaml").write_text({built!r})
(folder / "PredictFunction" / "handler.py").write_text("x = 1")
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose SAM CLI is a program of ours."""
    sam = tmp_path / ".venv-sam" / "bin" / "sam"
    sam.parent.mkdir(parents=True)
    sam.write_text(SAM.format(python=sys.executable, built=BUILT))
    sam.chmod(0o755)
    (tmp_path / "infra").mkdir()
    (tmp_path / "infra" / "api.yaml").write_text(API)
    return tmp_path


def build(checkout: Path, python: str | None = sys.executable, architecture: str = "x86_64", **more: str) -> list[str]:
    told: list[str] = []
    sam = package.find_sam(checkout)
    assert sam == str(checkout / ".venv-sam" / "bin" / "sam")
    PackageBuilder(checkout, sam, python, architecture, environment={**os.environ, **more}).build(told.append)
    return told


def read_calls(checkout: Path) -> list[tuple[list[str], dict[str, str]]]:
    return [tuple(json.loads(line)) for line in (checkout / "calls.jsonl").read_text().splitlines()]


def test_one_architecture_is_left_and_nothing_else_is_touched() -> None:
    narrowed = narrow_architecture(BUILT, "arm64")
    assert read_architecture(narrowed) == "arm64"
    expected = BUILT.replace(
        "Default: x86_64\n    AllowedValues:\n    - x86_64\n", "Default: arm64\n    AllowedValues:\n"
    )
    assert narrowed == expected
    assert narrow_architecture(narrowed, "arm64") == narrowed


def test_a_build_runs_sam_compiles_and_tells_the_size(checkout: Path) -> None:
    told = build(checkout, architecture="arm64")
    (first, environment), (last, _) = read_calls(checkout)
    assert first == ["build", "--parameter-overrides", "Architecture=arm64"]
    assert last == ["validate", "--lint"]
    known = {"PILOTLIGHT_ARCHITECTURE": "arm64", "RUNTIME_PYTHON": sys.executable, "SAM_CLI_TELEMETRY": "0"}
    assert environment.items() >= known.items()
    for template in (".aws-sam/build/template.yaml", ".aws-sam/build/Events/template.yaml"):
        assert read_architecture((checkout / template).read_text()) == "arm64"
    (compiled,) = (checkout / ".aws-sam" / "build" / "PredictFunction").rglob("*.pyc")
    assert str(checkout).encode() not in compiled.read_bytes(), "a traceback would show this machine's folders"
    assert told[-1].endswith("MB of the 250 that Lambda allows a function.")


def test_the_template_for_sam_local_streams_nothing(checkout: Path) -> None:
    build(checkout)
    folder = checkout / ".aws-sam" / "build"
    template = (folder / "template.yaml").read_text()
    assert (folder / "local.yaml").read_text() == template.replace("../../infra/api.yaml", "local-api.yaml")
    streamed, whole = (folder / "local-api.yaml").read_text().splitlines()[1:]
    assert whole == API.splitlines()[2]
    assert "path/2015-03-31/functions/${F.Alias}/invocations" in streamed
    assert "STREAM" not in streamed


def test_a_build_without_the_document_of_the_api_is_refused(checkout: Path) -> None:
    sam = checkout / ".venv-sam" / "bin" / "sam"
    sam.write_text(sam.read_text().replace("infra/api.yaml", "infra/other.yaml"))
    with pytest.raises(UnavailableError, match="does not include"):
        build(checkout)


def test_without_lambdas_python_sams_image_builds_and_compiles(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/docker.txt\n')
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{docker.parent}{os.pathsep}{os.environ['PATH']}")
    build(checkout, None)
    (words, environment), _ = read_calls(checkout)
    assert words[-3:] == ["--use-container", "--container-env-var", "PILOTLIGHT_ARCHITECTURE=x86_64"]
    assert "RUNTIME_PYTHON" not in environment
    ran = (tmp_path / "docker.txt").read_text()
    assert f"--user {os.getuid()}:{os.getgid()} --volume {checkout}/.aws-sam/build:/package" in ran
    assert "--entrypoint python3.13 public.ecr.aws/sam/build-python3.13:latest-x86_64 -m compileall" in ran


def test_a_failed_step_says_what_the_program_said(checkout: Path) -> None:
    with pytest.raises(UnavailableError, match=r"`sam build` failed with 1:\nError: the layer does not build"):
        build(checkout, FAILS="build")
    with pytest.raises(UnavailableError, match=r"no/python cannot be run: No such file"):
        build(checkout, "no/python")


def test_a_build_without_the_parameter_is_refused(checkout: Path) -> None:
    sam = checkout / ".venv-sam" / "bin" / "sam"
    sam.write_text(sam.read_text().replace("Architecture:", "Machine:"))
    with pytest.raises(UnavailableError, match="has no parameter Architecture"):
        build(checkout)


def test_make_package_needs_the_standard_library_alone(checkout: Path) -> None:
    """`-S` hides every installed package, as in a checkout where `.venv` was not made yet."""
    assert re.search(
        r"^package:.*\n\tPYTHONPATH=layers/core .* -m pilotlight\.deployment\.package",
        (ROOT / "Makefile").read_text(),
        re.MULTILINE,
    )
    command = [sys.executable, "-S", "-m", "pilotlight.deployment.package", "--python", sys.executable]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "layers" / "core")}
    ran = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "Building for x86_64 with python" in ran.stdout
    wrong = subprocess.run(
        [*command, "--architecture", "arm65"],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (wrong.returncode, wrong.stderr) == (2, "ARCH is 'arm65'; x86_64 and arm64 are built.\n")
