"""Every architecture answers any batch as its graph does, and refuses data that it cannot take."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from functions.train.data.builtin import BUILTIN_DATASETS
from functions.train.data.dataset import Dataset
from functions.train.data.load import load_dataset
from functions.train.data.split import Splits, scale_targets, split_dataset
from functions.train.export import parity
from functions.train.export.onnx_export import export_onnx
from functions.train.models import build
from functions.train.models.transformer import PatchSplitter, SelfAttention
from functions.train.training.prediction import predict_outputs
from functions.train.training.trainer import seed_torch
from pilotlight.contracts.manifest import TensorSpec
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.schema import load_recipe
from pilotlight.runtime.session import open_session
from tests.functions.train.conftest import tiny_recipe

RNN = "model={{architecture: rnn, cell: {}, hidden: 6, layers: {}, bidirectional: {}, dropout: 0.1}}"
TRANSFORMER = "model={{architecture: transformer, patch: {}, width: 8, heads: 2, layers: 1, hidden: 8, pooling: {}}}"
MLP = "model={architecture: mlp, hidden: [8], dropout: 0.1}"


def drawn(override: str, train: Dataset) -> nn.Module:
    """An untrained model of the recipe with this override."""
    with seed_torch(3):
        return build.build_model(tiny_recipe(override).model, train)


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize(
    ("override", "operator"),
    [
        (RNN.format("lstm", 2, "true"), "LSTM"),
        (RNN.format("gru", 2, "true"), "GRU"),
        (TRANSFORMER.format(2, "cls"), "Softmax"),
        (MLP, "Gemm"),
    ],
    ids=["lstm", "gru", "transformer", "mlp"],
)
def test_graph_computes_what_the_model_computes(override: str, operator: str, splits: Splits, tmp_path: Path) -> None:
    network, path = drawn(override, splits.train), tmp_path / "model.onnx"
    assert export_onnx(network, splits.train, tiny_recipe().export, path) == 20
    found = parity.check_parity(network, path, splits.validation.inputs, 1e-4)
    assert found.batches == (1, 2, 7, 64)
    assert operator in operators(path)
    session = open_session(str(path))
    assert session.inputs == (TensorSpec("image", "FP32", ("batch", 1, 8, 8)),)
    assert session.outputs == (TensorSpec("logits", "FP32", ("batch", 10)),)


def test_two_recurrent_layers_are_two_nodes_not_sixteen_steps(splits: Splits, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export_onnx(drawn(RNN.format("gru", 2, "false"), splits.train), splits.train, tiny_recipe().export, path)
    assert operators(path).count("GRU") == 2
    assert not {"Loop", "Scan", "Tanh", "Sigmoid"} & set(operators(path))


@pytest.mark.parametrize(
    "override",
    [RNN.format("lstm", 1, "false"), RNN.format("gru", 1, "true"), TRANSFORMER.format(4, "mean"), MLP],
)
@pytest.mark.parametrize("batch", [1, 5])
def test_batched_is_single(override: str, batch: int, splits: Splits) -> None:
    network, images = drawn(override, splits.train), splits.test.inputs[:20]
    assert predict_outputs(network, images, batch) == pytest.approx(predict_outputs(network, images), abs=1e-5)


def test_recurrent_network_reads_rows_in_order(splits: Splits) -> None:
    network = drawn(RNN.format("gru", 1, "false"), splits.train)
    images = splits.test.inputs[:4]
    assert np.abs(predict_outputs(network, images) - predict_outputs(network, images[:, :, ::-1].copy())).max() > 1e-3


def test_patches_are_squares_row_by_row() -> None:
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert PatchSplitter(2)(image).tolist() == [[[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]]


def test_attention_is_the_papers() -> None:
    with seed_torch(0):
        layer, sequence = SelfAttention(6, 2), torch.randn(2, 5, 6)
    with torch.no_grad():
        query, key, value = layer.project(sequence).reshape(2, 5, 3, 2, 3).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(query @ key.transpose(2, 3) / 3**0.5, dim=3)  # softmax(Q K^T / sqrt(d)), d = 3
        expected = layer.merge((weights @ value).transpose(1, 2).reshape(2, 5, 6))
        assert torch.allclose(layer(sequence), expected, atol=1e-6)


@pytest.mark.parametrize("architecture", ["cnn", "rnn", "transformer"])
def test_table_is_refused_by_what_takes_images(architecture: str) -> None:
    recipe = {"cnn": "digits", "rnn": "digits-rnn", "transformer": "digits-transformer"}[architecture]
    with pytest.raises(InvalidInputError, match=f"'{architecture}', which takes images, not examples of 13 values"):
        build.build_model(load_recipe(recipe).model, BUILTIN_DATASETS["wine"]())


def test_what_no_memory_holds_is_refused(splits: Splits) -> None:
    with pytest.raises(InvalidInputError, match="of more weights than this machine has memory for; make its sizes"):
        drawn("model={architecture: mlp, hidden: [100000000000000]}", splits.train)


def test_patches_that_leave_a_rest_are_refused(splits: Splits) -> None:
    with pytest.raises(InvalidInputError, match=r"model\.patch is 3; it must divide the 8 x 8 pixels"):
        drawn(TRANSFORMER.format(3, "mean"), splits.train)


def test_column_without_variance_is_not_blown_up() -> None:
    wine = BUILTIN_DATASETS["wine"]()
    flat = replace(wine, inputs=np.concatenate([wine.inputs[:, :1] * 0 + 3, wine.inputs[:, 1:]], axis=1))
    scaled = build.Standardise(flat.statistics.input_moments, flat.inputs.ndim)(torch.from_numpy(flat.inputs + 1))
    assert float(scaled[:, 0].abs().max()) == pytest.approx(1)


def test_number_is_answered_in_its_own_unit() -> None:
    options = load_recipe("diabetes")
    splits = split_dataset(load_dataset(options.data), options.data)
    learned = scale_targets(splits).train.targets
    assert [float(learned.mean()), float(learned.std())] == pytest.approx([0, 1], abs=1e-5)
    rescale = build.Rescale(splits.train.statistics.target_moments)
    assert rescale(torch.from_numpy(learned)).numpy() == pytest.approx(splits.train.targets, abs=1e-3)
    network = build.restore_scale(nn.Sequential(nn.Linear(10, 1)), splits.train)
    scaling = build.find_scaling(network, build.Rescale, ("prediction",))
    assert scaling is not None
    assert scaling.names == ("prediction",)
    assert list(scaling.mean) == pytest.approx([splits.train.targets.mean()])


def test_classes_have_no_unit(splits: Splits) -> None:
    assert scale_targets(splits) is splits
    network = nn.Linear(1, 1)
    assert build.restore_scale(network, splits.train) is network
    assert build.find_scaling(network, build.Rescale, ("prediction",)) is None
