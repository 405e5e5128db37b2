"""Counted FLOPs are those of the formulas, and a GPU's peak is found by its name."""

import pytest
import torch
from torch import nn

from functions.train.models.decoder import Decoder
from functions.train.training.mfu import MfuMeter, count_training_flops, find_peak_flops
from functions.train.training.precision import TrainingPrecision
from tests.benchmarks.gpu_step import MODELS, TokenClassifier, count_weights, estimate_token_flops


@pytest.mark.parametrize(
    ("name", "precision", "expected"),
    [
        ("Tesla T4", "fp32", 8.1e12),
        ("Tesla T4", "bf16", None),  # it has no such units
        ("NVIDIA A10G", "bf16", 70e12),
        ("NVIDIA L4", "bf16", 121e12),
        ("NVIDIA L40S", "bf16", 362e12),
        ("NVIDIA A100-SXM4-40GB", "bf16", 312e12),
        ("NVIDIA A100 80GB PCIe", "fp32", 19.5e12),
        ("NVIDIA H100 80GB HBM3", "bf16", 989e12),
        ("NVIDIA H100 PCIe", "bf16", 756e12),
        ("NVIDIA H100 NVL", "bf16", 835e12),
        ("NVIDIA H200", "bf16", 989e12),
        ("NVIDIA H200 NVL", "bf16", 835e12),
        ("NVIDIA B200", "bf16", 2250e12),
        ("NVIDIA A10", "bf16", None),  # no A10G
        ("NVIDIA L400", "bf16", None),
        ("cpu", "fp32", None),
    ],
)
def test_peak_by_name(name: str, precision: TrainingPrecision, expected: float | None) -> None:
    assert find_peak_flops(name, precision) == expected


def test_dense_layers_count_six_for_each_weight() -> None:
    network = nn.Sequential(nn.Linear(10, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 3))
    before = network.state_dict()["1.running_mean"].clone()
    assert count_training_flops(network.train(), torch.zeros(1, 10)) == 6 * (10 * 20 + 20 * 3)
    assert torch.equal(network.state_dict()["1.running_mean"], before)  # nothing has run


def test_counted_decoder_is_the_papers_formula() -> None:
    size = MODELS["tiny"]
    decoder = TokenClassifier(Decoder(size.options, size.vocabulary))
    found = count_training_flops(decoder, torch.zeros((1, size.context), dtype=torch.long))
    assert found == pytest.approx(
        estimate_token_flops(size) * size.context, rel=0.01
    )  # the norms' gains do not multiply


def test_large_model_of_the_benchmark_is_what_it_says() -> None:
    assert count_weights(MODELS["350m"]) == pytest.approx(354e6, rel=0.002)
    assert estimate_token_flops(MODELS["350m"]) == pytest.approx(6 * 354e6 + 12 * 24 * 2048 * 1024, rel=0.002)


def test_utilisation_is_a_share_of_all_gpus() -> None:
    network = nn.Linear(1000, 1000, bias=False)
    meter = MfuMeter(network, lambda: torch.zeros(1, 1000), "NVIDIA H200", "bf16", 2)
    assert meter.compute_mfu(1e6) == pytest.approx(6e6 * 1e6 / (2 * 989e12))
    assert MfuMeter(network, lambda: torch.zeros(1, 1000), "cpu", "fp32", 1).compute_mfu(1e6) is None


def test_layer_without_a_ghost_is_not_counted() -> None:
    class Odd(nn.Module):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return values * float(values.sum())  # asks for a number

    assert count_training_flops(Odd(), torch.zeros(1, 2)) is None
