"""How much of a GPU a training uses: model FLOPs utilisation, the share of its peak that the model's FLOPs need.

MFU = FLOPs of an example * examples per second / peak (Chowdhery et al., PaLM, 2022, appendix B). What an
implementation computes twice to save memory does not count.
"""

import copy
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from functions.train.training.precision import TrainingPrecision

# A backward pass multiplies each matrix twice: for its own gradient and for that of what came in.
BACKWARD_FLOPS_RATIO = 2
TERA = 1e12

# Dense FLOP/s of one GPU by the longest start of its name, in bf16 on tensor cores and in fp32 without them (torch's
# default; not TF32). Data sheets of the newer ones print bf16 for sparse matrices, twice these. Compared on 2026-11-25
# with reprints of NVIDIA's data sheets and with other trainers' tables (infra/docs/performance.md); for the A10G, which
# only AWS has, and for the fp32 of the two NVL cards no reprint was found. The T4 has no bf16 units.
PEAK_TERAFLOPS: dict[str, dict[TrainingPrecision, float]] = {
    "Tesla T4": {"fp32": 8.1},  # T4 Tensor Core GPU, 2019
    "NVIDIA A10G": {"bf16": 70, "fp32": 31.5},  # A10G Tensor Core GPU, 2021
    "NVIDIA L4": {"bf16": 121, "fp32": 30.3},  # L4 Tensor Core GPU, 2023
    "NVIDIA L40S": {"bf16": 362, "fp32": 91.6},  # L40S GPU, 2023
    "NVIDIA A100": {"bf16": 312, "fp32": 19.5},  # A100 80GB, 2021; PCIe and SXM alike
    "NVIDIA H100": {"bf16": 989, "fp32": 67},  # H100 SXM, 2023
    "NVIDIA H100 PCIe": {"bf16": 756, "fp32": 51},
    "NVIDIA H100 NVL": {"bf16": 835, "fp32": 60},
    "NVIDIA H200": {"bf16": 989, "fp32": 67},  # H200 SXM, 2024
    "NVIDIA H200 NVL": {"bf16": 835, "fp32": 60},
    "NVIDIA B200": {"bf16": 2250, "fp32": 75},  # HGX B200, an eighth, 2025
}


def find_peak_flops(gpu_name: str, precision: TrainingPrecision) -> float | None:
    """Find the most FLOP/s of a GPU of this name; None for one that is not in the table."""
    matches = [
        start for start in PEAK_TERAFLOPS if gpu_name == start or gpu_name.startswith((f"{start} ", f"{start}-"))
    ]
    value = PEAK_TERAFLOPS[max(matches, key=len)].get(precision) if matches else None
    return None if value is None else value * TERA


def count_training_flops(model: nn.Module, example: torch.Tensor) -> float | None:
    """Count the FLOPs of one training step over one example, (1, ...); None where torch cannot count them.

    torch counts them over two examples on its `meta` device, without computing; a batch normalisation needs two.
    """
    ghost = copy.deepcopy(model).to("meta")
    pair = torch.cat([example, example]).to("meta")
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            ghost(pair)
    except (NotImplementedError, RuntimeError, TypeError):  # a layer that cannot run on the meta device
        return None
    return float(counter.get_total_flops()) / 2 * (1 + BACKWARD_FLOPS_RATIO)


class MfuMeter:
    """Computes the utilisation of the GPUs that train a model."""

    def __init__(
        self,
        model: nn.Module,
        example: Callable[[], torch.Tensor],
        gpu: str,
        precision: TrainingPrecision,
        processes: int,
    ) -> None:
        highest = find_peak_flops(gpu, precision)
        self._flops = count_training_flops(model, example()) if highest else None
        self._peak = (highest or 0) * processes

    def compute_mfu(self, examples_per_s: float) -> float | None:
        """Compute the MFU, 0 to 1; None on any GPU that is not in the table."""
        return self._flops * examples_per_s / self._peak if self._flops else None
