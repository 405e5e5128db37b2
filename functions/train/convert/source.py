"""Choose the converter for PATH. Each converter's dependencies are imported only when it is used.

`pilotlight.cli.file_format` has refused before what nothing converts.
"""

import re
from pathlib import Path

from functions.train.convert.converted_model import ConvertedModel
from pilotlight.errors import InvalidInputError
from pilotlight.runtime import booster_format

PYTHON_OBJECT = re.compile(r"(?P<where>.+\.py|[\w.]+):(?P<name>\w+)")  # file.py:name or package.module:name


def convert_source(path: Path, target: Path, task: str | None) -> ConvertedModel:
    """Convert the model at PATH and write its graph to `target`; `InvalidInputError` if that is not supported."""
    match = PYTHON_OBJECT.fullmatch(str(path))
    if match is not None and not path.exists():
        from functions.train.convert import python_object

        return python_object.convert_python_object(match["where"], match["name"], target)
    if not path.exists():
        raise InvalidInputError(f"Cannot read {path}: there is no such file or folder.")
    if path.is_dir():
        from functions.train.convert import hf_checkpoint

        return hf_checkpoint.convert_checkpoint(path, target, task)
    return convert_file(path, target)


def convert_file(path: Path, target: Path) -> ConvertedModel:
    """Convert a file by its suffix or its first bytes; what is of no known kind is read as a graph."""
    if path.suffix == ".pt2":
        from functions.train.convert import torch_module

        return torch_module.convert_pt2_file(path, target)
    booster = booster_format.check_booster_file(path)
    if booster is not None:
        from functions.train.convert import boosters

        return boosters.convert_booster_file(path, booster, target)
    from functions.train.convert import onnx_file

    return onnx_file.convert_onnx_file(path, target)
