"""The training image, built on a base that is made here: it trains and publishes, and goes when Docker tells it to."""

import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests.e2e.conftest import ROOT

SYSTEM = "public.ecr.aws/lambda/python:3.13-x86_64"  # that SAM's tests need, too; any image with a C library would do
LISTS = ("layers/deps/requirements.txt", "functions/train/requirements.txt", "infra/constraints.txt")
IMAGE = "pilotlight-train:e2e"
# This machine's python, and all packages as wheels: in the build, pip asks nobody.
BASE = f"""
FROM {SYSTEM}
COPY python /usr/local
COPY wheels /wheels
ENV PATH=/usr/local/bin:/usr/bin:/bin LD_LIBRARY_PATH=/usr/local/lib PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels
RUN python3 -m ensurepip
ENTRYPOINT []
"""
LEFT_OUT = shutil.ignore_patterns("site-packages", "test", "__pycache__", "*.a", "idlelib", "include", "share")


def docker(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["docker", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def answers(*words: str) -> bool:
    return bool(shutil.which("docker")) and docker(*words, check=False).returncode == 0


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with python and the pinned packages' wheels; made anew when the pins change."""
    if not answers("info"):
        pytest.skip("no Docker engine answers here")
    if not answers("image", "inspect", SYSTEM):
        pytest.skip(f"there is no {SYSTEM} to build on")
    digest = hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in LISTS)).hexdigest()[:12]
    tag = f"pilotlight-base:{digest}"
    if not answers("image", "inspect", tag):
        folder = tmp_path_factory.mktemp("base")
        shutil.copytree(sys.base_prefix, folder / "python", symlinks=True, ignore=LEFT_OUT)
        wheels(folder / "wheels")
        (folder / "Dockerfile").write_text(BASE)
        docker("build", "--quiet", "--tag", tag, str(folder))
        shutil.rmtree(folder)
    return tag


def wheels(folder: Path) -> None:
    """Everything that the image installs, from wherever this machine's pip gets it."""
    lists = [word for name in LISTS[:2] for word in ("-r", str(ROOT / name))]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder)]
    subprocess.run([*command, "--constraint", str(ROOT / LISTS[2]), *lists], check=True)


@pytest.fixture(scope="module")
def image(base: str) -> str:
    command = ["build", "--quiet", "--file", "functions/train/Dockerfile", "--tag", IMAGE]
    docker(*command, "--build-arg", f"BASE={base}", "--build-arg", "REVISION=e2e", ".")
    return IMAGE


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A store that the image's own user may write to."""
    tmp_path.chmod(0o777)
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


def command(folder: Path, recipe: str, *words: str) -> list[str]:
    return ["--volume", f"{folder}:/store", IMAGE, recipe, "--store", "/store", "--run", "r", *words]


@pytest.mark.usefixtures("image")
def test_image_trains_and_publishes(folder: Path) -> None:
    done = docker("run", "--rm", "--network", "none", *command(folder, "wine", "--json", "--set", "epochs=200"))
    assert json.loads(done.stdout)["reference"] == "wine:1"
    manifest = Registry(open_store(str(folder))).load_manifest("wine", 1)
    assert manifest.training is not None
    assert manifest.training.revision == "e2e"


@pytest.mark.usefixtures("image")
def test_stopped_image_saves_ends_with_75_and_goes_on(folder: Path) -> None:
    words = command(folder, "digits", "--set", "epochs=500", "early_stopping.patience=500", "checkpoint.steps=20")
    name = docker("run", "--detach", "--network", "none", *words).stdout.strip()
    try:
        deadline = time.monotonic() + 60
        while not list(folder.glob("runs/r/checkpoints/step-*/manifest.json")):
            assert time.monotonic() < deadline, docker("logs", name).stderr
            time.sleep(0.2)
        docker("stop", "--time", "30", name)  # SIGTERM to the first process
        assert docker("inspect", "--format", "{{.State.ExitCode}}", name).stdout.strip() == "75"
        said = docker("logs", name).stderr
        assert "Stopped by SIGTERM and saved after step" in said
    finally:
        docker("rm", "--force", name)
    step = int(said.split("saved after step ")[1].split(";")[0])
    assert (folder / f"runs/r/checkpoints/step-{step}/manifest.json").exists()
    again = docker("run", "--rm", "--network", "none", *words, "--time-budget", "0.001", check=False)
    assert again.returncode == 75
    assert f"goes on after step {step}" in again.stderr
