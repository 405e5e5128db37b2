"""An ONNX file: checked, and written again with its weights inside."""

from pathlib import Path

import onnx

from functions.train.convert.converted_model import Model
from functions.train.export.onnx_export import strip
from pilotlight.errors import InvalidInputError, ModelRefusedError
from pilotlight.runtime import onnx_header
from pilotlight.runtime.session import open_session

LARGEST = 2_000_000_000  # bytes of a protobuf message, nearly


def read(path: Path, target: Path) -> Model:
    """The file as a graph in fp32, whole."""
    found = onnx_header.check(path)
    size = sum(file.stat().st_size for file in (path, *(path.parent / place for place in found.files)))
    if size > LARGEST:
        raise InvalidInputError(f"{path} takes {size:,} bytes, more than the {LARGEST:,} that can be quantized here.")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as exc:
        raise InvalidInputError(f"{path} is not a valid ONNX file: {' '.join(str(exc).split())}.") from exc
    onnx.save(strip(model), target)
    try:
        open_session(str(target))
    except ModelRefusedError as exc:
        raise InvalidInputError(f"{path} cannot be served: {exc}") from exc
    return Model(graph=target, what="An ONNX graph")
