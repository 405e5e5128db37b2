"""The Open Inference Protocol (V2): what the server says of itself and of a model, also as Triton's configuration."""

from collections.abc import Sequence
from typing import Any

import pilotlight
from pilotlight.contracts.manifest import Manifest, TensorSpec
from pilotlight.processing.signature import list_signatures

PLATFORM = "onnxruntime_onnx"
# Extensions of the protocol; only those that work are advertised.
EXTENSIONS = (
    "binary_tensor_data", "classification", "model_configuration", "model_repository", "parameters", "statistics",
)  # fmt: skip


def build_server_metadata() -> dict[str, Any]:
    """Build the protocol's metadata of the server."""
    return {"name": "pilotlight", "version": pilotlight.__version__, "extensions": EXTENSIONS}


def build_model_metadata(manifest: Manifest, versions: Sequence[int]) -> dict[str, Any]:
    """Build the protocol's model metadata from the first signature; a free dimension is -1."""
    return {
        "name": manifest.name,
        "versions": [str(version) for version in versions],
        "platform": PLATFORM,
        "inputs": [describe_tensor(given.spec) for given in list_signatures(manifest)[0].inputs],
        "outputs": [describe_tensor(spec) for spec in list_signatures(manifest)[0].outputs],
    }


def describe_tensor(spec: TensorSpec) -> dict[str, Any]:
    """Describe one tensor of the model metadata."""
    return {"name": spec.name, "datatype": spec.datatype, "shape": spec.v2_shape}


def build_model_config(manifest: Manifest) -> dict[str, Any]:
    """Build Triton's ModelConfig; `max_batch_size` is 0 since shapes include the batch dimension."""
    return {
        "name": manifest.name,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "version_policy": {"all": {}},
        "max_batch_size": 0,
        "input": [build_config_tensor(spec) for spec in manifest.inputs],
        "output": [build_config_tensor(spec) for spec in manifest.outputs],
        "default_model_filename": manifest.graph_file.path,
        "parameters": {"precision": {"string_value": manifest.serve}, "task": {"string_value": manifest.task}},
    }


def build_config_tensor(spec: TensorSpec) -> dict[str, Any]:
    """Build one tensor of the ModelConfig, which calls BYTES STRING."""
    kind = "STRING" if spec.datatype == "BYTES" else spec.datatype
    return {"name": spec.name, "data_type": f"TYPE_{kind}", "dims": spec.v2_shape}
