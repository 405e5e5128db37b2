"""The training image, built on a base that is made here: it trains and publishes, and goes when Docker tells it to."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests.e2e.training_image import docker


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A store that the image's own user may write to."""
    tmp_path.chmod(0o777)
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


def command(image: str, folder: Path, recipe: str, *words: str) -> list[str]:
    return ["--volume", f"{folder}:/store", image, recipe, "--store", "/store", "--run", "r", *words]


def test_image_trains_and_publishes(training_image: str, folder: Path) -> None:
    words = command(training_image, folder, "wine", "--json", "--set", "epochs=200")
    done = docker("run", "--rm", "--network", "none", *words)
    assert json.loads(done.stdout)["reference"] == "wine:1"
    manifest = Registry(open_store(str(folder))).load_manifest("wine", 1)
    assert manifest.training is not None
    assert manifest.training.revision == "e2e"


def test_image_has_what_uploads_large_files(training_image: str) -> None:
    """A version's files above 16 MB go to a bucket in parts, by a module that is imported for them alone."""
    docker("run", "--rm", "--entrypoint", "python", training_image, "-c", "import pilotlight.storage.multipart_upload")


def test_stopped_image_saves_ends_with_75_and_goes_on(training_image: str, folder: Path) -> None:
    settings = ("epochs=500", "early_stopping.patience=500", "checkpoint.steps=20")
    words = command(training_image, folder, "digits", "--set", *settings)
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
