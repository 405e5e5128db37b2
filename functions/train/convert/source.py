"""Which kind of thing PATH is, and who reads it. What it takes to read one is imported only then."""

import re
from pathlib import Path

from functions.train.convert.converted_model import Model
from pilotlight.errors import InvalidInputError

PICKLES = {".pkl", ".pickle", ".joblib", ".pt", ".pth", ".bin", ".ckpt"}
WAYS = "an ONNX file, a Hugging Face checkpoint folder with safetensors, a Triton model, a .pt2 file, or file.py:NAME"
FACTORY = re.compile(r"(?P<where>.+\.py|[\w.]+):(?P<name>\w+)")  # file.py:name or package.module:name


def read(path: Path, target: Path, task: str | None) -> Model:
    """The model at PATH, its graph written to `target`; `InvalidInputError` for what cannot be taken in."""
    factory = FACTORY.fullmatch(str(path))
    if factory is not None and not path.exists():
        from functions.train.convert import python_object as made

        return made.read(factory["where"], factory["name"], target)
    if not path.exists():
        raise InvalidInputError(f"Cannot read {path}: there is no such file or folder.")
    return checkpointed(path, target, task) if path.is_dir() else single(path, target)


def single(path: Path, target: Path) -> Model:
    """A file by its suffix."""
    if path.suffix == ".pt2":
        from functions.train.convert import pt2_program

        return pt2_program.read(path, target)
    if path.suffix in PICKLES:
        raise InvalidInputError(
            f"{path} may hold a pickle, which runs whatever code its author put into it, and is not opened; "
            f"bring {WAYS}."
        )
    if path.suffix == ".skops":
        raise InvalidInputError(f"{path} is not read; bring file.py:NAME, a function that loads it with skops.")
    from functions.train.convert import onnx_file

    return onnx_file.read(path, target)


def checkpointed(path: Path, target: Path, task: str | None) -> Model:
    """A folder, which must be a checkpoint: those with a graph are told apart before."""
    if not (path / "config.json").is_file():
        raise InvalidInputError(f"{path} holds neither an ONNX graph nor a config.json; bring {WAYS}.")
    from functions.train.convert import hf_checkpoint

    return hf_checkpoint.read(path, target, task)
