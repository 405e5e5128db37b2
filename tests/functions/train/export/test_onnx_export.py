"""An exported graph computes what the model computes, for any batch, and tells nothing of where it was made."""

import re
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from functions.train.data.split import Splits
from functions.train.errors import ExportError, GoldenError, ParityError
from functions.train.export import golden, onnx_export, parity
from functions.train.training.prediction import predict_outputs
from pilotlight.contracts.codec import decode_document, encode_document
from pilotlight.contracts.manifest import TensorSpec
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.schema import ExportOptions
from pilotlight.runtime.golden import GoldenDocument, to_array
from pilotlight.runtime.session import open_session
from tests.functions.train.conftest import Finished, tiny_recipe

TELLTALE = re.compile(rb"site-packages|\.py\b|stack_trace|/home|/root|" + re.escape(tempfile.gettempdir().encode()))


def test_untrained_model_is_exported_faithfully(untrained: nn.Module, graph: Path, splits: Splits) -> None:
    found = parity.check_parity(untrained, graph, splits.validation.inputs, 1e-4)
    assert found.batches == (1, 2, 7, 64)
    assert found.max_abs <= 1e-4


@pytest.mark.parametrize("batch", [1, 2, 7, 64, 450])
def test_graph_answers_as_the_model_for_any_batch(
    untrained: nn.Module, graph: Path, splits: Splits, batch: int
) -> None:
    images = splits.test.inputs[:batch]
    logits = open_session(str(graph)).run({"image": images})["logits"]
    assert logits.shape == (batch, 10)
    assert np.abs(logits - predict_outputs(untrained, images)).max() <= 1e-4


def test_graph_names_its_ends_and_frees_its_batch(graph: Path) -> None:
    session = open_session(str(graph))
    assert session.inputs == (TensorSpec("image", "FP32", ("batch", 1, 8, 8)),)
    assert session.outputs == (TensorSpec("logits", "FP32", ("batch", 10)),)
    shape = onnx.load(graph).graph.input[0].type.tensor_type.shape
    assert shape.dim[0].dim_param == "batch"


@pytest.mark.parametrize("name", ["model.fp32.onnx", "model.int8.onnx"])
def test_graphs_tell_nothing_of_their_origin(tiny: Finished, name: str) -> None:
    data = tiny.file(name)
    assert TELLTALE.search(data) is None
    loaded = onnx.load_model_from_string(data)
    parts = [loaded, loaded.graph, *loaded.graph.node, *loaded.graph.value_info, *loaded.graph.initializer]
    assert not any(part.doc_string or list(part.metadata_props) for part in parts)


@pytest.mark.parametrize("name", ["model.fp32.onnx", "model.int8.onnx"])
def test_batched_is_single_in_both_graphs(tiny: Finished, splits: Splits, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(tiny.file(name))
    session, images = open_session(str(path)), splits.test.inputs[:33]
    together = session.run({"image": images})["logits"]
    alone = np.concatenate([session.run({"image": image[None]})["logits"] for image in images])
    assert np.abs(together - alone).max() <= 1e-5


def test_exporter_is_silent_and_touches_nothing(
    untrained: nn.Module, splits: Splits, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    untrained.train()
    assert onnx_export.export_onnx(untrained, splits.train, ExportOptions(opset=18), tmp_path / "model.onnx") == 18
    assert untrained.training
    untrained.eval()
    assert capfd.readouterr() == ("", "")


class Branching(nn.Module):
    """Asks a value of its input which way to go, which no graph can hold."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image if image.sum() > 0 else -image


def test_model_that_no_graph_can_hold_is_refused(splits: Splits, tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=r"cannot be exported: Could not guard .* torch\.where takes both\.$"
    ) as caught:
        onnx_export.export_onnx(Branching(), splits.train, tiny_recipe().export, tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)


def test_another_model_fails_parity_with_numbers(graph: Path, untrained: nn.Module, splits: Splits) -> None:
    other = nn.Sequential(untrained, nn.Softmax(dim=1))
    other.register_parameter("device", nn.Parameter(torch.zeros(1)))
    with pytest.raises(ParityError, match=r"At batch 1, .* is \d.* away .* tolerance of 0\.0001"):
        parity.check_parity(other, graph, splits.validation.inputs, 1e-4)


class Priced(nn.Module):
    """Answers in a unit of which there are many: float32 has no fourth decimal of such a number."""

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return logits * 1e6 + 3e6


def test_parity_is_measured_by_the_size_of_the_answers(untrained: nn.Module, splits: Splits, tmp_path: Path) -> None:
    priced = nn.Sequential(untrained, Priced())
    onnx_export.export_onnx(priced, splits.train, tiny_recipe().export, tmp_path / "priced.onnx")
    agreed = parity.check_parity(priced, tmp_path / "priced.onnx", splits.validation.inputs, 1e-6)
    assert 1e-6 < agreed.max_abs < 10
    with pytest.raises(ParityError, match="nan away"):
        parity.check_parity(nn.Sequential(priced, Poison()), tmp_path / "priced.onnx", splits.validation.inputs, 1e-6)


def test_model_of_nan_fails_parity(graph: Path, untrained: nn.Module, splits: Splits) -> None:
    poisoned = nn.Sequential(untrained, Poison())
    with pytest.raises(ParityError, match="nan away"):
        parity.check_parity(poisoned, graph, splits.validation.inputs, 1e-4)


class Poison(nn.Module):
    """Makes everything NaN."""

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return logits * torch.nan


def test_golden_requests_are_v2_requests_on_test_digits(graph: Path, splits: Splits) -> None:
    recorded = golden.record_test_requests(graph, "fp32", splits.test)
    tests = {image.tobytes() for image in splits.test.inputs}
    for exchange in recorded.exchanges:
        (given,), (answer,) = exchange.request.inputs, exchange.response.outputs
        assert (given.name, given.datatype, given.shape[1:]) == ("image", "FP32", (1, 8, 8))
        assert (answer.name, answer.datatype, answer.shape) == ("logits", "FP32", (given.shape[0], 10))
        assert all(image.tobytes() in tests for image in to_array(given))
    assert recorded.exchanges[-1].request.inputs[0].shape[0] > 1


def test_golden_requests_are_repeated_by_the_same_graph_only(graph: Path, splits: Splits, tmp_path: Path) -> None:
    document = encode_document(golden.record_test_requests(graph, "fp32", splits.test))
    golden.verify_recorded_answers(document, graph)
    broken = onnx.load(graph)
    bias = next(tensor for tensor in broken.graph.initializer if list(tensor.dims) == [10])
    bias.raw_data = (onnx.numpy_helper.to_array(bias) + np.float32(0.1)).tobytes()
    onnx.save(broken, tmp_path / "broken.onnx")
    with pytest.raises(GoldenError, match=r"Golden request 1 is answered 0\.1 away"):
        golden.verify_recorded_answers(document, tmp_path / "broken.onnx")


def test_golden_request_that_is_answered_nan_is_refused(graph: Path, splits: Splits, tmp_path: Path) -> None:
    document = encode_document(golden.record_test_requests(graph, "fp32", splits.test))
    broken = onnx.load(graph)
    bias = next(tensor for tensor in broken.graph.initializer if list(tensor.dims) == [10])
    bias.raw_data = np.full(10, np.nan, np.float32).tobytes()
    onnx.save(broken, tmp_path / "broken.onnx")
    with pytest.raises(GoldenError, match="nan away"):
        golden.verify_recorded_answers(document, tmp_path / "broken.onnx")


def test_golden_document_is_checked_when_read() -> None:
    with pytest.raises(InvalidInputError, match="golden"):
        decode_document(b'{"variant": "fp64"}', GoldenDocument, "golden.json")
