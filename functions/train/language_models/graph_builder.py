"""Build an ONNX graph node by node, and write its large constants to a file beside it as they come.

No more than one constant is in memory at a time, since all of them may be larger than it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

MICROSOFT = "com.microsoft"  # the domain of onnxruntime's own operators
OPSET, IR_VERSION = 21, 10
INLINE_BYTES = 1024  # of a constant that is kept in the graph itself
PAGE_BYTES = 4096  # to which constants in the file are aligned, since they are mapped into memory one by one
Tensor = npt.NDArray[Any]


class GraphBuilder:
    """Collects nodes and constants; `weights_file` takes the bytes of the large ones."""

    def __init__(self, weights_file: BinaryIO, weights_name: str) -> None:
        """Keep the open file, and the name by which the graph will find it in its folder."""
        self._file = weights_file
        self._file_name = weights_name
        self._nodes = list[onnx.NodeProto]()
        self._constants = dict[str, TensorProto]()

    def add_node(
        self,
        operator: str,
        inputs: Sequence[str],
        output: str | Sequence[str],
        domain: str = "",
        **attributes: Any,  # noqa: ANN401 - what onnx takes
    ) -> str:
        """Add a node, and return the name of its first output; an empty name is an input or output left out."""
        outputs = [output] if isinstance(output, str) else list(output)
        name = f"{outputs[0]}/{operator}"
        self._nodes.append(helper.make_node(operator, list(inputs), outputs, name, domain=domain, **attributes))
        return outputs[0]

    def add_constant(self, name: str, values: Tensor) -> str:
        """Add a constant, unless there is one of this name, and return its name."""
        if name not in self._constants:
            self._constants[name] = self._store(name, values)
        return name

    def has_constant(self, name: str) -> bool:
        """Return whether there is a constant of this name."""
        return name in self._constants

    def get_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a constant."""
        return tuple(self._constants[name].dims)

    def add_view(self, name: str, source: str, shape: Sequence[int]) -> str:
        """Add a constant of the same bytes as another in another shape; both are mapped from the same place."""
        view = TensorProto()
        view.CopyFrom(self._constants[source])
        view.name = name
        del view.dims[:]
        view.dims.extend(shape)
        self._constants[name] = view
        return name

    def _store(self, name: str, values: Tensor) -> TensorProto:
        values = np.ascontiguousarray(values)
        if values.nbytes <= INLINE_BYTES:
            return numpy_helper.from_array(values, name)
        self._file.write(bytes(-self._file.tell() % PAGE_BYTES))
        tensor = TensorProto(name=name, dims=values.shape, data_location=TensorProto.EXTERNAL)
        tensor.data_type = helper.np_dtype_to_tensor_dtype(values.dtype)
        places = {"location": self._file_name, "offset": self._file.tell(), "length": values.nbytes}
        for key, value in places.items():
            tensor.external_data.add(key=key, value=str(value))
        self._file.write(values.data)
        return tensor

    def save(
        self,
        path: Path,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
        notes: Mapping[str, str],
    ) -> None:
        """Write the graph to a file; `notes` become its metadata."""
        graph = helper.make_graph(self._nodes, "decoder", inputs, outputs, list(self._constants.values()))
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="pilotlight")
        helper.set_model_props(model, dict(notes))
        path.write_bytes(model.SerializeToString())
