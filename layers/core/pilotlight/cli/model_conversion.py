"""Convert models to graphs, and graphs to smaller ones, in a process of its own.

`python -m functions.train.convert` imports torch, onnx and scikit-learn. It writes `draft.json` and the files of the
version to a folder, and nothing to a store.
"""

import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import typer

from pilotlight.cli.train import build_job_environment
from pilotlight.contracts.codec import decode_document
from pilotlight.contracts.manifest import ManifestDraft
from pilotlight.errors import UnavailableError

DRAFT_FILE = "draft.json"


def convert_model(path: Path, options: Mapping[str, object], folder: Path) -> tuple[ManifestDraft, dict[str, Path]]:
    """Convert PATH, and return the draft and the files in the folder.

    The process prints its errors on standard error; this one then exits with the same code.
    """
    code = run_converter([str(path), *build_option_arguments(options), "--into", str(folder)])
    if code:
        raise typer.Exit(code)
    draft = decode_document((folder / DRAFT_FILE).read_bytes(), ManifestDraft, DRAFT_FILE)
    return draft, {file.name: file for file in sorted(folder.iterdir()) if file.name != DRAFT_FILE and file.is_file()}


def build_option_arguments(options: Mapping[str, object]) -> list[str]:
    """Build the arguments of the options that are set."""
    return [word for name, value in options.items() if value is not None for word in (name, str(value))]


def run_converter(arguments: list[str]) -> int:
    """Run the process and return its exit code."""
    if find_spec("torch") is None or find_spec("onnx") is None:
        raise UnavailableError(
            "Only an ONNX file as it is can be published here; to convert or quantize, run pip install -e '.[train]'."
        )
    return subprocess.call([sys.executable, "-m", "functions.train.convert", *arguments], env=build_job_environment())
