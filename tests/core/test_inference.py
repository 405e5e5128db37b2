"""One path for every protocol: what is run, noted and captured of a request, and what of one that fails."""

import json
from collections.abc import Mapping
from math import inf
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from functions.batch_worker.inputs import JsonInput
from functions.batch_worker.predictor import WorkerRequest
from functions.predict.mlflow_endpoints import MlflowRequest
from functions.predict.v2_endpoints import V2Request
from pilotlight.api.large_tensors import StoredOutputs, UploadedTensors
from pilotlight.api.model_statistics import ModelStatistics
from pilotlight.api.request_context import RequestContext
from pilotlight.api.v2 import InferenceRequest, RequestedOutput
from pilotlight.capture.recorder import CaptureRecorder
from pilotlight.contracts.manifest import Manifest, TensorSpec
from pilotlight.contracts.names import ModelReference
from pilotlight.errors import DeadlineError, InvalidInputError, TooLargeError
from pilotlight.inference import InferenceService, count_examples
from pilotlight.registry.registry import Registry
from pilotlight.runtime.datatypes import Array
from pilotlight.runtime.inference_deadline import DeadlineRunner
from pilotlight.runtime.model_cache import ModelCache
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.runtime.session import Session
from pilotlight.runtime.traffic import InferenceResult
from pilotlight.storage.object_store import open_store
from tests import fakes

DOUBLE = ModelReference("double")
ROW = np.array([[1, 2, 3]], np.float32)


class Doubled:
    """A request without a protocol, which may fail before or behind the model."""

    def __init__(self, before: Exception | None = None, behind: Exception | None = None, rows: Array = ROW) -> None:
        self.before, self.behind, self.rows = before, behind, rows
        self.steps: list[str] = []

    def decode(self, manifest: Manifest) -> InferenceRequest:
        self.steps.append("decode")
        if self.before is not None:
            raise self.before
        return InferenceRequest(None, {"x": self.rows}, [RequestedOutput("y")])

    def encode(self, manifest: Manifest, request: InferenceRequest, outputs: Mapping[str, Array]) -> Any:  # noqa: ANN401 - of any body
        self.steps.append("encode")
        if self.behind is not None:
            raise self.behind
        return InferenceResult(outputs["y"].tolist(), outputs)


class Deadlines(DeadlineRunner):
    """Remembers how long each graph may run."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    def run(self, session: Session, feeds: Any, outputs: Any, deadline: float = inf) -> dict[str, Array]:  # noqa: ANN401 - as there
        self.seen.append(deadline)
        if deadline == 0:
            raise DeadlineError("It is over.")
        return super().run(session, feeds, outputs, deadline)


class Rig:
    """A service over a store with one model, all of whose requests are captured."""

    def __init__(self) -> None:
        self.store = open_store("memory://")
        self.registry = Registry(self.store)
        fakes.publish(self.registry)
        self.manager = ModelManager(self.registry, ModelCache(1_000_000), memory_mb=1769, alias_seconds=10)
        self.deadlines, self.statistics = Deadlines(), ModelStatistics()
        self.recorder = CaptureRecorder(lambda: self.store, 1.0, 3600, chance=lambda: 0.0)
        self.service = InferenceService(self.manager, self.statistics, self.deadlines, self.recorder)

    def infer(self, request: Any, context: RequestContext | None = None, **options: bool) -> InferenceResult[Any]:  # noqa: ANN401 - of any body
        model = self.service.open_model(DOUBLE, RequestContext())
        return self.service.infer(model, request, context or RequestContext(), **options)

    def counts(self) -> tuple[int, int, int]:
        """Answers, examples in them, failures."""
        (found,) = self.statistics.build_document([("double", 1)], {})["model_stats"]
        return found["execution_count"], found["inference_count"], found["inference_stats"]["fail"]["count"]

    def captured(self) -> int:
        self.recorder.flush()
        return len(list(self.store.list_paths("captures")))


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_the_answer_is_of_what_was_decoded(rig: Rig) -> None:
    request, context = Doubled(), RequestContext()
    result = rig.infer(request, context)
    assert (result.body, request.steps) == ([[2, 4, 6]], ["decode", "encode"])
    np.testing.assert_array_equal(result.outputs["y"], ROW * 2)
    assert (context.model, context.version) == ("double", 1)
    assert [name for name, _ in context.marks] == ["decode", "infer"]


def test_opening_a_model_notes_its_version_and_whether_it_waited(rig: Rig) -> None:
    first, second = RequestContext(), RequestContext()
    assert rig.service.open_model(DOUBLE, first) is rig.service.open_model(DOUBLE, second)
    for context, cold in ((first, True), (second, False)):
        assert (context.model, context.version, context.cold) == ("double", 1, cold)
        assert [name for name, _ in context.marks] == ["load"]


def test_statistics_count_examples(rig: Rig) -> None:
    rig.infer(Doubled())
    rig.infer(Doubled(rows=np.zeros((4, 3), np.float32)))
    assert rig.counts() == (2, 5, 0)


@pytest.mark.parametrize(
    ("inputs", "count"),
    [
        ((TensorSpec("x", "FP32", ("n", 3)), TensorSpec("z", "FP32", ("m",))), 4),
        ((TensorSpec("x", "FP32", ("n",)),), 4),
        ((TensorSpec("x", "FP32", (4, "n")),), 1),
        ((TensorSpec("x", "FP32", ()),), 1),
        ((), 1),
    ],
)
def test_examples_are_the_first_inputs_free_rows(inputs: tuple[TensorSpec, ...], count: int) -> None:
    manifest = replace(fakes.stepped(None), inputs=inputs)
    assert count_examples(manifest, {"x": np.zeros(4), "z": np.zeros(2)}) == count


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (Doubled(before=InvalidInputError("not a request")), InvalidInputError),
        (Doubled(behind=TooLargeError("more than is sent")), TooLargeError),
        (Doubled(rows=np.zeros((1, 2), np.float32)), InvalidInputError),
    ],
)
def test_a_failure_before_or_behind_the_model_is_counted(rig: Rig, request_: Doubled, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        rig.infer(request_)
    assert rig.counts() == (0, 0, 1)


def test_the_deadline_is_the_contexts(rig: Rig) -> None:
    rig.infer(Doubled())
    with pytest.raises(DeadlineError):
        rig.infer(Doubled(), RequestContext(deadline=0))
    assert rig.deadlines.seen == [inf, 0]
    assert rig.counts() == (1, 1, 1)


@pytest.mark.parametrize(("capture", "files"), [(True, 1), (False, 0)])
def test_a_request_is_captured_unless_that_is_forbidden(rig: Rig, capture: bool, files: int) -> None:
    rig.infer(Doubled(), capture=capture)
    assert rig.captured() == files


def test_what_the_model_refuses_is_not_captured(rig: Rig) -> None:
    for request in (Doubled(before=InvalidInputError("no")), Doubled(rows=np.zeros((1, 2), np.float32))):
        with pytest.raises(InvalidInputError):
            rig.infer(request)
    assert rig.captured() == 0


def test_what_is_too_large_to_be_sent_is_captured(rig: Rig) -> None:
    with pytest.raises(TooLargeError):
        rig.infer(Doubled(behind=TooLargeError("more than is sent")))
    assert rig.captured() == 1


def test_without_a_recorder_nothing_is_captured(rig: Rig) -> None:
    service = InferenceService(rig.manager, rig.statistics, rig.deadlines)
    assert service.infer(service.open_model(DOUBLE, RequestContext()), Doubled(), RequestContext()).body == [[2, 4, 6]]
    service.notify_recorder()
    assert rig.captured() == 0


def test_every_protocol_is_run_and_counted_alike(rig: Rig) -> None:
    v2 = b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}'
    uploads, stored = UploadedTensors(rig.registry, 0), StoredOutputs(rig.registry, enabled=False)
    requests = (
        V2Request(v2, {}, uploads, stored),
        MlflowRequest(b'{"instances":[[1,2,3]]}', {}),
        WorkerRequest(JsonInput.parse(v2), uploads),
        WorkerRequest(JsonInput.parse(b"[1,2,3]"), None),
    )
    for request in requests:
        context = RequestContext()
        np.testing.assert_array_equal(rig.infer(request, context).outputs["y"], ROW * 2)
        assert [name for name, _ in context.marks] == ["decode", "infer"]
    assert rig.counts() == (4, 4, 0)
    rig.recorder.flush()


def test_a_batch_has_no_binary_answers(rig: Rig) -> None:
    body = (
        b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2,3]}],'
        b'"parameters":{"binary_data_output":true}}'
    )
    with pytest.raises(InvalidInputError, match="ask for no binary_data"):
        rig.infer(WorkerRequest(JsonInput.parse(body), None))
    assert rig.counts() == (0, 0, 1)


def test_a_canary_compares_all_outputs_of_a_call_by_mlflow(rig: Rig) -> None:
    """What the answer has may be texts alone, by which no drift is measured."""
    request = MlflowRequest(b'{"instances":[[1,2,3]]}', {})
    manifest = rig.service.open_model(DOUBLE, RequestContext()).manifest
    result = request.encode(manifest, request.decode(manifest), {"y": ROW, "scores": ROW})
    assert list(result.outputs) == ["y", "scores"]
    assert json.loads(result.body.body) == {"predictions": [[1.0, 2.0, 3.0]]}
