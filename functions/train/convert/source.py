"""Choose the converter for PATH. Each converter's dependencies are imported only when it is used."""

import re
from pathlib import Path

from functions.train.convert.converted_model import ConvertedModel
from pilotlight.errors import InvalidInputError
from pilotlight.runtime import booster_format, tensorflow_format

PICKLE_SUFFIXES = {".pkl", ".pickle", ".joblib", ".pt", ".pth", ".bin", ".ckpt"}
SUPPORTED_SOURCES = (
    "an ONNX file, a Hugging Face checkpoint folder with safetensors, a Triton model, a .pt2 file, a file that "
    "XGBoost, LightGBM or CatBoost saved, or file.py:NAME"
)
PYTHON_OBJECT = re.compile(r"(?P<where>.+\.py|[\w.]+):(?P<name>\w+)")  # file.py:name or package.module:name


def convert_source(path: Path, target: Path, task: str | None) -> ConvertedModel:
    """Convert the model at PATH and write its graph to `target`; `InvalidInputError` if that is not supported."""
    match = PYTHON_OBJECT.fullmatch(str(path))
    if match is not None and not path.exists():
        from functions.train.convert import python_object

        return python_object.convert_python_object(match["where"], match["name"], target)
    if not path.exists():
        raise InvalidInputError(f"Cannot read {path}: there is no such file or folder.")
    tensorflow_format.refuse_tensorflow(path)
    return convert_folder(path, target, task) if path.is_dir() else convert_file(path, target)


def convert_file(path: Path, target: Path) -> ConvertedModel:
    """Convert a file by its suffix."""
    if path.suffix == ".pt2":
        from functions.train.convert import torch_module

        return torch_module.convert_pt2_file(path, target)
    booster = booster_format.check_booster_file(path)
    if booster is not None:
        from functions.train.convert import boosters

        return boosters.convert_booster_file(path, booster, target)
    if path.suffix in PICKLE_SUFFIXES:
        raise InvalidInputError(
            f"{path} may hold a pickle, which runs whatever code its author put into it, and is not opened; "
            f"bring {SUPPORTED_SOURCES}."
        )
    if path.suffix == ".skops":
        raise InvalidInputError(f"{path} is not read; bring file.py:NAME, a function that loads it with skops.")
    from functions.train.convert import onnx_file

    return onnx_file.convert_onnx_file(path, target)


def convert_folder(path: Path, target: Path, task: str | None) -> ConvertedModel:
    """Convert a folder, which must be a checkpoint: folders with a graph are handled earlier."""
    if not (path / "config.json").is_file():
        raise InvalidInputError(f"{path} holds neither an ONNX graph nor a config.json; bring {SUPPORTED_SOURCES}.")
    from functions.train.convert import hf_checkpoint

    return hf_checkpoint.convert_checkpoint(path, target, task)
