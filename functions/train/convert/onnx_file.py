"""Check an ONNX file, and write it again with its weights inside.

What onnxruntime opens is taken: onnx's own checker refuses graphs that run, such as those of IR 3 whose initializers
are no inputs.
"""

from pathlib import Path

import onnx

from functions.train.convert.converted_model import ConvertedModel
from functions.train.export.graph_metadata import strip_metadata
from pilotlight.errors import InvalidInputError, ModelRefusedError
from pilotlight.runtime import onnx_header
from pilotlight.runtime.session import open_session

MAX_BYTES = 2_000_000_000  # nearly the maximum of a protobuf message


def convert_onnx_file(path: Path, target: Path) -> ConvertedModel:
    """Convert the file to a single fp32 graph."""
    header = onnx_header.check_onnx_file(path)
    size = sum(file.stat().st_size for file in (path, *(path.parent / place for place in header.external_files)))
    if size > MAX_BYTES:
        raise InvalidInputError(f"{path} takes {size:,} bytes, more than the {MAX_BYTES:,} that can be quantized here.")
    onnx.save(strip_metadata(load_onnx_file(path)), target)
    try:
        open_session(str(target))
    except ModelRefusedError as exc:
        raise InvalidInputError(f"{path} cannot be served: {exc}") from exc
    return ConvertedModel(graph=target, description="An ONNX graph")


def load_onnx_file(path: Path) -> onnx.ModelProto:
    """Load a file with its weights; `InvalidInputError` if its bytes are damaged behind what the header shows."""
    try:
        return onnx.load(path)
    except Exception as exc:
        reason = " ".join(str(exc).split())
        raise InvalidInputError(f"{path} is damaged ({reason}); download or export it again.") from exc
