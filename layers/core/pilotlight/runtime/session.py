"""One ONNX graph, open and ready to run: the only module that imports onnxruntime.

It knows paths and arrays, not stores, versions or protocols.
"""

import os

# onnxruntime >= 1.29 reports home over HTTPS unless this is set before its import (reference/lambda.md).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort

from pilotlight.contracts import Datatype, TensorSpec
from pilotlight.errors import InvalidInputError, ModelRefusedError
from pilotlight.runtime.datatypes import ORT_DATATYPES

MB_PER_VCPU = 1769  # of a Lambda function's memory (reference/lambda.md)
Array = np.ndarray[Any, Any]
RunOptions = Any  # onnxruntime.RunOptions, which ships no types; `terminate` stops the run that has it


@dataclass(frozen=True)
class Session:
    """An open graph. `run` may be called from several threads at once."""

    native: Any  # onnxruntime.InferenceSession, which ships no types
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(
        self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None, options: RunOptions | None = None
    ) -> dict[str, Array]:
        """The outputs by name, all of them or those asked for; `InvalidInputError` when the graph refuses the feeds."""
        names = list(outputs) if outputs is not None else [output.name for output in self.outputs]
        try:
            return dict(zip(names, self.native.run(names, feeds, options), strict=True))
        except REFUSALS as exc:
            raise InvalidInputError(f"The model refused the input: {exc}") from exc


# What onnxruntime raises when a graph does not run (REFUSALS) or does not open (DEFECTS); they share no base class.
_STATE = ort.capi.onnxruntime_pybind11_state
REFUSALS = (_STATE.InvalidArgument, _STATE.Fail, _STATE.RuntimeException)
DEFECTS = (*REFUSALS, _STATE.InvalidGraph, _STATE.InvalidProtobuf, _STATE.NoSuchFile, _STATE.NotImplemented)


def run_options() -> RunOptions:
    """Options of one run."""
    return ort.RunOptions()


def open_session(path: str, memory_mb: int = MB_PER_VCPU) -> Session:
    """Open the graph at `path` with the threads that `memory_mb` of a Lambda function buy.

    Never from bytes: onnxruntime keeps them beside its own copy for the session's life. Raises `ModelRefusedError`
    when the file is not a graph that this onnxruntime runs.
    """
    try:
        native = ort.InferenceSession(path, session_options(memory_mb), providers=["CPUExecutionProvider"])
    except DEFECTS as exc:
        raise ModelRefusedError(f"onnxruntime {ort.__version__} cannot open the graph: {exc}") from exc
    return Session(native, specs(native.get_inputs()), specs(native.get_outputs()))


def session_options(memory_mb: int) -> Any:  # noqa: ANN401 - onnxruntime ships no types
    """One request at a time on a frozen-between-requests machine: sequential, no spinning threads, no growing arena."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = max(1, min(round(memory_mb / MB_PER_VCPU), os.cpu_count() or 1))
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = False  # one large request would hold its memory for good
    options.log_severity_level = 3  # errors only; they are raised too
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # burns the CPU share of the next request
    return options


def specs(arguments: Sequence[Any]) -> tuple[TensorSpec, ...]:
    """The graph's own words for its inputs or outputs as `TensorSpec`s; `ModelRefusedError` for what is no tensor."""
    return tuple(TensorSpec(argument.name, datatype(argument), shape(argument)) for argument in arguments)


def datatype(argument: Any) -> Datatype:  # noqa: ANN401 - onnxruntime ships no types
    """The V2 datatype of a graph's argument."""
    try:
        return ORT_DATATYPES[argument.type]
    except KeyError:
        known = ", ".join(ORT_DATATYPES)
        raise ModelRefusedError(f"{argument.name!r} is a {argument.type}; Pilotlight serves {known}.") from None


def shape(argument: Any) -> tuple[int | str, ...]:  # noqa: ANN401 - onnxruntime ships no types
    """The shape, with a name of its own for each free dimension that has none: nothing says that two are the same."""
    return tuple(
        size if size is not None else f"{argument.name}.{position}" for position, size in enumerate(argument.shape)
    )
