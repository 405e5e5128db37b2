"""One ONNX graph, open and ready to run: the only module that imports onnxruntime.

It depends on paths and arrays, not on stores, versions or protocols.
"""

import os
import shutil

# onnxruntime >= 1.29 reports home over HTTPS unless this is set before its import (its repository, docs/Privacy.md).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import ctypes
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from msgspec import Struct

from pilotlight.contracts.manifest import Datatype, TensorSpec
from pilotlight.errors import InvalidInputError, ModelRefusedError, TooLargeError
from pilotlight.native.calls import NativeCalls, cut_cause
from pilotlight.runtime.datatypes import ORT_DATATYPES, Array
from pilotlight.runtime.deferred_prepacking import DeferredPrepacking
from pilotlight.runtime.environment_memory import DATA_LIMIT
from pilotlight.runtime.model_files import create_private_folder

EXTERNAL_DATA_ERROR = "External data path validation failed"  # in onnxruntime's message about weights in another folder
BFLOAT16 = 16  # onnx.TensorProto.BFLOAT16
MB_PER_VCPU = 1769  # of a Lambda function's memory (AWS, Lambda quotas)
ONNXRUNTIME_VERSION: str = ort.__version__
ERROR_CODE = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : |Non-zero status code returned while running ")
NODE = re.compile(r"(\w+) node\. Name:('[^']*') Status Message: ")
LOADING = re.compile(r"Load model from .* failed:\s*(?:Fatal error: )?")
SOURCE_PLACE = re.compile(r"\S*/onnxruntime/\S*\.(?:cc|h):\d+ .*?\)(?: const)?(?: \[with [^\]]*\])? (?=[A-Z\w'{])")
TENSOR_TYPE = re.compile(r"(?:optional\()?(tensor\(\w+\))\)?")  # an optional input takes a tensor
MIN_MAPPED_BYTES = 4096  # a page; smaller weights stay in the graph
DECODER_ENTRIES = {
    "session.intra_op.allow_spinning": "1",
    "session.intra_op.spin_duration_us": "500",  # then they sleep, and take no time from the next request
    "session.prepack.enable_parallel": "1",
}
RunOptions = Any  # onnxruntime.RunOptions, which has no types; setting `terminate` stops the run
ort.set_default_logger_severity(4)  # as in `build_session_options`
# onnxruntime's errors share no base class; pybind11 turns those of C++ into the last four.
_STATE = vars(ort.capi.onnxruntime_pybind11_state)
ORT_ERRORS: tuple[type[Exception], ...] = (
    *(kind for kind in _STATE.values() if isinstance(kind, type) and issubclass(kind, Exception)),
    RuntimeError,
    ValueError,
    IndexError,
    OverflowError,
)


def build_run_error(cause: str) -> InvalidInputError:
    """Build the error of a graph that does not run on its feeds."""
    return InvalidInputError(f"The model refused the input: {cause}.")


def clean_cause(cause: str) -> str:
    """Remove from onnxruntime's message its code, and the place in its source, which say nothing to a caller."""
    line = NODE.sub(r"\1 \2: ", LOADING.sub("", ERROR_CODE.sub("", " ".join(cause.split()))))
    return SOURCE_PLACE.sub("", line).replace(" '':", ":").strip().rstrip(".")


def build_open_error(cause: str) -> ModelRefusedError:
    """Build the error of a graph that does not open."""
    outside = "it names weights that lie outside the files of its version"
    reason = outside if EXTERNAL_DATA_ERROR in cause else cause
    return ModelRefusedError(f"onnxruntime {ONNXRUNTIME_VERSION} cannot open the graph: {reason}.")


RUNNING = NativeCalls("onnxruntime", build_run_error, ORT_ERRORS, clean_cause)
OPENING = NativeCalls("onnxruntime", build_open_error, ORT_ERRORS, clean_cause)


class GraphSignature(Struct, frozen=True):
    """What a graph takes and gives."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    left_out: tuple[str, ...] = ()  # outputs that V2 has no type for, with theirs: sequences, maps
    defaults: tuple[str, ...] = ()  # inputs that have a value in the graph, and are not asked for


@dataclass(frozen=True)
class Session:
    """An open graph. `run` is thread-safe."""

    get_native: Callable[[], Any]  # returns the onnxruntime.InferenceSession for the next run; it has no types
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    left_out: tuple[str, ...] = ()  # as of the signature, like the next
    defaults: tuple[str, ...] = ()

    @property
    def signature(self) -> GraphSignature:
        """What the graph takes and gives."""
        return GraphSignature(self.inputs, self.outputs, self.left_out, self.defaults)

    def run(
        self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None, options: RunOptions | None = None
    ) -> dict[str, Array]:
        """Compute all outputs, or the requested ones, by name; `InvalidInputError` if the graph refuses the feeds.

        Raises `OutOfMemoryError` if an allocation fails.
        """
        names = list(outputs) if outputs is not None else [output.name for output in self.outputs]
        native = self.get_native()
        try:
            if self.has_bfloat16:
                return dict(zip(names, self._run_bfloat16(native, names, feeds, options), strict=True))
            with RUNNING:
                return dict(zip(names, native.run(names, feeds, options), strict=True))
        except InvalidInputError as exc:
            if exc.__cause__ is None or isinstance(exc, TooLargeError):
                raise
            cause = cut_cause(clean_cause(str(exc.__cause__)))
            raise build_run_error(f"{cause} (sent: {describe_feeds(feeds)})") from exc

    def prepack_now(self) -> None:
        """Open the fast session now if that was deferred, and wait for it."""
        if isinstance(self.get_native, DeferredPrepacking):
            self.get_native.prepack_now()

    @cached_property
    def has_bfloat16(self) -> bool:
        """Whether a tensor is BF16, for which numpy has no type: such arrays hold its bits as uint16."""
        return any(spec.datatype == "BF16" for spec in (*self.inputs, *self.outputs))

    def _run_bfloat16(
        self,
        native: Any,  # noqa: ANN401 - onnxruntime ships no types
        names: Sequence[str],
        feeds: Mapping[str, Array],
        options: RunOptions | None,
    ) -> list[Array]:
        kinds = {spec.name: spec.datatype for spec in self.inputs}
        with RUNNING:
            values = {name: to_ort_value(array, kinds.get(name)) for name, array in feeds.items()}
            return [to_numpy(value) for value in native.run_with_ort_values(names, values, options)]


def describe_feeds(feeds: Mapping[str, Array]) -> str:
    """Describe a request by the shapes of its inputs."""
    return ", ".join(f"{name} {list(values.shape)}" for name, values in feeds.items()) or "no inputs"


@RUNNING
def to_ort_value(array: Array, datatype: Datatype | None) -> Any:  # noqa: ANN401 - onnxruntime ships no types
    """Convert an array to an onnxruntime value; for bits of BF16, with the type's number in ONNX."""
    if datatype == "BF16":
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(np.require(array, requirements="C"), BFLOAT16)
    return ort.OrtValue.ortvalue_from_numpy(array)


@RUNNING
def to_numpy(value: Any) -> Array:  # noqa: ANN401 - onnxruntime ships no types
    """Convert an onnxruntime value to an array; bits of BF16 are copied from its memory, the only access to them."""
    if value.element_type() != BFLOAT16:
        array: Array = value.numpy()
        return array
    shape = value.shape()
    return np.frombuffer(ctypes.string_at(value.data_ptr(), 2 * prod(shape)), np.uint16).reshape(shape)


@RUNNING
def create_run_options() -> RunOptions:
    """Create the options of one run."""
    return ort.RunOptions()


def open_session(path: str, memory_mb: int = MB_PER_VCPU, *, quick: bool = False) -> Session:
    """Open the graph at `path` with as many threads as a Lambda function of `memory_mb` has vCPUs.

    With `quick`, a graph with external weights answers sooner, and runs faster only after some runs. Graphs are not
    opened from bytes, since onnxruntime would keep those beside its own copy while the session is open. Raises
    `ModelRefusedError` if this onnxruntime cannot run the file.
    """
    get_native = (
        open_with_deferred_prepacking(path, memory_mb)
        if quick and has_external_weights(path)
        else open_with_prepacking(path, memory_mb)
    )
    native = get_native()
    with OPENING:
        return build_session(get_native, native)


def open_decoder_session(path: Path | str, memory_mb: int = MB_PER_VCPU) -> Any:  # noqa: ANN401 - onnxruntime ships no types
    """Open the graph of a language model, and return onnxruntime's own session, whose memory is bound by its caller.

    Weights are packed at once, by all threads: unpacked, each token would take 400 ms. Threads spin between two nodes,
    which is a quarter of the speed of decoding, but for no longer than that. Raises as `open_session` does.
    """
    options = build_session_options(memory_mb)
    with OPENING:
        for key, value in DECODER_ENTRIES.items():
            options.add_session_config_entry(key, value)
    return open_native(path, options)


def build_session(get_native: Callable[[], Any], native: Any) -> Session:  # noqa: ANN401 - onnxruntime ships no types
    """Build the session of an open graph; outputs that V2 cannot name are left out, unless there is no other."""
    given = native.get_outputs()
    named = [argument for argument in given if argument.type in ORT_DATATYPES]
    left_out = tuple(f"{argument.name} {argument.type}" for argument in given if argument not in named)
    defaults = tuple(argument.name for argument in native.get_overridable_initializers())
    inputs, outputs = to_tensor_specs(native.get_inputs()), to_tensor_specs(named or given)
    return Session(get_native, inputs, outputs, left_out, defaults)


def open_with_prepacking(path: str, memory_mb: int) -> Callable[[], Any]:
    """Open the session with its weights packed for the kernels from the start."""
    native = open_native(path, build_session_options(memory_mb))
    return lambda: native


def open_with_deferred_prepacking(path: str, memory_mb: int) -> Callable[[], Any]:
    """Open the session without packed weights, which takes a quarter of the time, and with them after some runs.

    The files are linked into another folder, since the caller removes the folder of `path`.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(create_private_folder(Path(path).parents[1]))
        shutil.copytree(Path(path).parent, folder, copy_function=os.link, dirs_exist_ok=True)
        linked = folder / Path(path).name
        open_unpacked = partial(open_native, linked, build_session_options(memory_mb, prepacked=False))
        open_prepacked = partial(open_native, linked, build_session_options(memory_mb))
        deferred = DeferredPrepacking(open_unpacked, open_prepacked)
        deferred.release_files = stack.pop_all().close
    return deferred


def has_external_weights(path: str) -> bool:
    """Return whether the graph has its weights in a file beside it, named as by `save_graph`."""
    return Path(f"{path}.data").exists()


@OPENING
def save_graph(source: Path, target: Path, *, optimized: bool = False) -> Path:
    """Write the graph at `source` to `target`, with its large weights in a file beside it that is mapped when opened.

    Returns the weights' path. With `optimized`, the graph has the optimizations of onnxruntime that are the same on
    every CPU of one architecture; the others are applied when it is opened. Raises as `open_session` does.
    """
    levels, weights = ort.GraphOptimizationLevel, target.with_name(f"{target.name}.data")
    options = build_session_options(MB_PER_VCPU)
    options.graph_optimization_level = levels.ORT_ENABLE_EXTENDED if optimized else levels.ORT_DISABLE_ALL
    options.optimized_model_filepath = str(target)
    for key, value in {
        "session.disable_prepacking": "1",  # the session is never run
        "session.optimized_model_external_initializers_file_name": weights.name,
        "session.optimized_model_external_initializers_min_size_in_bytes": str(MIN_MAPPED_BYTES),
    }.items():
        options.add_session_config_entry(key, value)
    open_native(source, options)
    return weights


@OPENING
def open_native(path: Path | str, options: Any) -> Any:  # noqa: ANN401 - onnxruntime ships no types
    """Open onnxruntime's session over the graph at `path`; `ModelRefusedError` if that fails."""
    with DATA_LIMIT.suspend():
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@OPENING
def build_session_options(memory_mb: int, *, prepacked: bool = True) -> Any:  # noqa: ANN401 - onnxruntime ships no types
    """Build options for one request at a time in an environment that is frozen between requests.

    Execution is sequential, threads do not spin, and there is no growing memory arena.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = max(1, min(round(memory_mb / MB_PER_VCPU), os.cpu_count() or 1))
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = False  # one large request would hold its memory for good
    options.log_severity_level = 4  # log nothing of errors: they are raised, and told in a sentence
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # would use CPU time of the next request
    if not prepacked:
        options.add_session_config_entry("session.disable_prepacking", "1")
    return options


def to_tensor_specs(arguments: Sequence[Any]) -> tuple[TensorSpec, ...]:
    """Convert onnxruntime's descriptions of inputs or outputs; `ModelRefusedError` for one that is no tensor."""
    return tuple(TensorSpec(argument.name, to_datatype(argument), to_shape(argument)) for argument in arguments)


def to_datatype(argument: Any) -> Datatype:  # noqa: ANN401 - onnxruntime ships no types
    """Return the V2 datatype of a graph's argument."""
    try:
        return ORT_DATATYPES[TENSOR_TYPE.sub(r"\1", argument.type)]
    except KeyError:
        supported = ", ".join(ORT_DATATYPES)
        raise ModelRefusedError(
            f"{argument.name!r} is a {argument.type}; Pilotlight serves {supported}. Export the graph with such a "
            "tensor in its place."
        ) from None


def to_shape(argument: Any) -> tuple[int | str, ...]:  # noqa: ANN401 - onnxruntime ships no types
    """Return the shape, with a unique name for each unnamed free dimension, since no two are known to be equal."""
    return tuple(
        size if size is not None else f"{argument.name}.{position}" for position, size in enumerate(argument.shape)
    )
