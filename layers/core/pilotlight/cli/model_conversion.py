"""Convert models to graphs, and graphs to smaller ones, in a process of its own.

`python -m functions.train.convert` imports torch, onnx and scikit-learn. It writes `draft.json` and the files of the
version to a folder, and nothing to a store.
"""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import typer

from pilotlight.cli.train import build_job_environment
from pilotlight.contracts.codec import decode_document
from pilotlight.contracts.manifest import ManifestDraft
from pilotlight.errors import UnavailableError

DRAFT_FILE = "draft.json"


@dataclass(frozen=True)
class Converter:
    """A program that makes a version's files: its module, the packages that it needs, and the extras with those."""

    module: str
    packages: tuple[str, ...]
    extras: str = "train"

    def check_packages(self) -> None:
        """Raise `UnavailableError` if one of the packages is not installed."""
        if any(find_spec(package) is None for package in self.packages):
            raise UnavailableError(
                "Only an ONNX file as it is can be published here; to convert or quantize, run pip install -e "
                f"'.[{self.extras}]'."
            )


GRAPH_CONVERTER = Converter("functions.train.convert", ("torch", "onnx"))


def convert_model(
    path: Path, options: Mapping[str, object], folder: Path, converter: Converter = GRAPH_CONVERTER
) -> tuple[ManifestDraft, dict[str, Path]]:
    """Convert PATH, and return the draft and the files in the folder.

    The process prints its errors on standard error; this one then exits with the same code.
    """
    converter.check_packages()
    code = run_converter(converter.module, [str(path), *build_option_arguments(options), "--into", str(folder)])
    if code:
        raise typer.Exit(code)
    draft = decode_document((folder / DRAFT_FILE).read_bytes(), ManifestDraft, DRAFT_FILE)
    return draft, {file.name: file for file in sorted(folder.iterdir()) if file.name != DRAFT_FILE and file.is_file()}


def build_option_arguments(options: Mapping[str, object]) -> list[str]:
    """Build the arguments of the options that are set."""
    return [word for name, value in options.items() if value is not None for word in (name, str(value))]


def run_converter(module: str, arguments: list[str]) -> int:
    """Run the process and return its exit code."""
    return subprocess.call([sys.executable, "-m", module, *arguments], env=build_job_environment())
