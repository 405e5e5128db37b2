"""ONNX's own backend test suite, one operator a model: what is in it, and what onnxruntime makes of it by itself."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases
from onnx.backend.test.runner import Runner

from pilotlight.errors import InvalidInputError
from pilotlight.runtime.datatypes import ORT_DATATYPES, Array
from pilotlight.runtime.session import ORT_ERRORS, to_numpy, to_ort_value

BFLOAT16 = numpy_helper.to_array(onnx.helper.make_tensor("one", onnx.TensorProto.BFLOAT16, [], [1])).dtype

ROUNDING = "onnxruntime rounds otherwise than the suite tolerates"
LOCALE = "the machine has no locale en_US.UTF-8"
BY_MACHINE = (ROUNDING, LOCALE)  # reasons that another processor or system may not have


@dataclass(frozen=True)
class Case:
    """A model with the inputs and the answers that the suite expects, by name, at its tolerances."""

    name: str
    model: bytes
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    rtol: float
    atol: float

    def check(self, answers: dict[str, Array]) -> None:
        """Raise `AssertionError` unless these are the suite's answers, compared by its own rules."""
        expected, found = list(self.outputs.values()), [answers[name] for name in self.outputs]
        Runner.assert_similar_outputs(expected, [as_expected(*pair) for pair in zip(found, expected, strict=True)],
                                      self.rtol, self.atol)  # fmt: skip


def cases() -> Iterator[Case]:
    """The suite's node tests. All of them have one data set."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the suite computes NaN and infinities on purpose
        tests = collect_testcases(None)
    for test in tests:
        assert test.model is not None
        given = [value.name for value in test.model.graph.input]
        wanted = [value.name for value in test.model.graph.output]
        ((inputs, outputs),) = test.data_sets or ()
        yield Case(
            name=test.name.removeprefix("test_"),
            model=test.model.SerializeToString(),
            inputs=dict(zip(given, map(array, inputs), strict=False)),
            outputs=dict(zip(wanted, map(array, outputs), strict=False)),
            rtol=test.rtol,
            atol=test.atol,
        )


def array(value: Any) -> Any:  # noqa: ANN401 - the suite mixes protobufs, scalars, arrays, lists and None
    """A value of the suite as numpy has it; sequences and absent values as they are."""
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return value if isinstance(value, list) or value is None else np.asarray(value)


def as_expected(found: Array, expected: Array) -> Array:
    """Bits as the BF16 that they are, and texts as str, which is how the suite has them."""
    if expected.dtype == BFLOAT16 and found.dtype == np.uint16:
        return found.view(BFLOAT16)
    if expected.dtype.kind in "OU" and found.dtype == object:
        return np.array([v.decode() if isinstance(v, bytes) else v for v in found.ravel()], object).reshape(found.shape)
    return found


def exclusion(case: Case) -> str | None:
    """Why a case is none of ours: onnxruntime itself has no answer to it, or V2 has no datatype for it."""
    try:
        session = ort.InferenceSession(case.model, options(), providers=["CPUExecutionProvider"])
    except ORT_ERRORS as exc:
        return LOCALE if "locale" in str(exc) else "onnxruntime does not open it"
    arguments = [*session.get_inputs(), *session.get_outputs()]
    foreign = next((argument.type for argument in arguments if argument.type not in ORT_DATATYPES), None)
    if foreign is not None:
        return "sequences and optionals are no tensors" if "(tensor" in foreign else f"V2 has no {foreign}"
    try:
        case.check(run(session, case))
    except (*ORT_ERRORS, InvalidInputError):
        return "onnxruntime does not run it"
    except AssertionError:
        return ROUNDING if nearly(session, case) else "onnxruntime answers otherwise than the suite"
    return None


def nearly(session: Any, case: Case) -> bool:  # noqa: ANN401 - onnxruntime ships no types
    """Whether onnxruntime's own answers are the suite's but for rounding."""
    try:
        replace(case, rtol=1e-2, atol=1e-2).check(run(session, case))
    except AssertionError:
        return False
    return True


def options() -> Any:  # noqa: ANN401 - onnxruntime ships no types
    """One thread and no words; all else as onnxruntime has it."""
    chosen = ort.SessionOptions()
    chosen.intra_op_num_threads = 1
    chosen.log_severity_level = 4
    return chosen


def run(session: Any, case: Case) -> dict[str, Array]:  # noqa: ANN401 - onnxruntime ships no types
    """onnxruntime's own answers."""
    kinds = {argument.name: ORT_DATATYPES[argument.type] for argument in session.get_inputs()}
    bits = {n: value.view(np.uint16) if kinds[n] == "BF16" else value for n, value in case.inputs.items()}
    if "BF16" not in kinds.values() and "tensor(bfloat16)" not in [argument.type for argument in session.get_outputs()]:
        return dict(zip(case.outputs, session.run(list(case.outputs), bits), strict=True))
    values = {name: to_ort_value(value, kinds[name]) for name, value in bits.items()}
    return dict(zip(case.outputs, map(to_numpy, session.run_with_ort_values(list(case.outputs), values)), strict=True))
