"""Models that become a graph first, and graphs that become smaller: a process of its own does both.

`python -m functions.train.convert` brings torch, onnx and scikit-learn; what it makes lies in a folder: `draft.json`,
and the files that go into the version. It writes to no store.
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
    """Have PATH taken in; gives the draft and the files in the folder.

    What is wrong is told on standard error by the process itself; this one ends with its exit code.
    """
    code = run_converter([str(path), *build_option_arguments(options), "--into", str(folder)])
    if code:
        raise typer.Exit(code)
    draft = decode_document((folder / DRAFT_FILE).read_bytes(), ManifestDraft, DRAFT_FILE)
    return draft, {file.name: file for file in sorted(folder.iterdir()) if file.name != DRAFT_FILE and file.is_file()}


def build_option_arguments(options: Mapping[str, object]) -> list[str]:
    """Options for the command line, those that are not set left out."""
    return [word for name, value in options.items() if value is not None for word in (name, str(value))]


def run_converter(arguments: list[str]) -> int:
    """Run the process; its exit code."""
    if find_spec("torch") is None or find_spec("onnx") is None:
        raise UnavailableError(
            "Only an ONNX file as it is can be published here; to convert or quantize, run pip install -e '.[train]'."
        )
    return subprocess.call([sys.executable, "-m", "functions.train.convert", *arguments], env=build_job_environment())
