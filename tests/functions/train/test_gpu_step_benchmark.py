"""The GPU benchmark runs where there is no GPU, and says so."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.benchmarks.gpu_step import (
    GIB,
    StepMeasurement,
    build_size,
    choose_batch,
    compare_losses,
    generate_windows,
    list_variants,
    smooth_losses,
)

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")


@pytest.mark.slow
def test_runs_without_a_gpu(tmp_path: Path) -> None:
    result = tmp_path / "b.json"
    command = [sys.executable, "-W", "error", "-m", "tests.benchmarks.gpu_step", "--steps", "5", "--out", str(result)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "No GPU here: the tiny model on the CPU" in done.stdout
    assert result.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    said = json.loads(result.read_text())
    assert [row["way"] for row in said["rows"]] == [
        "bf16, eager, fused",
        "fp32, eager, fused",
        "bf16, eager, not fused",
    ]
    assert all(len(row["losses"]) == 15 and row["tokens_per_s"] > 0 and row["mfu"] is None for row in said["rows"])
    assert 0 < said["bf16_fp32_apart"] < 0.05
    assert said["rows"][1]["losses"][-1] < said["rows"][1]["losses"][0]


def test_everything_is_turned_off_once_where_there_is_a_compiler() -> None:
    assert list(map(str, list_variants(CPU, with_compiler=True))) == [
        "bf16, compiled, fused",
        "fp32, compiled, fused",
        "bf16, eager, fused",
        "bf16, compiled, not fused",
    ]


def test_windows_are_the_same_in_every_run_and_each_token_is_followed_by_its_target() -> None:
    size = build_size(2, 64, 4, 2, 128, 16, 256)
    first, again = (list(generate_windows(size, 3, 2, CPU)) for _ in range(2))
    for (tokens, truth), (same, also) in zip(first, again, strict=True):
        assert torch.equal(tokens, same)
        assert torch.equal(truth, also)
        assert torch.equal(tokens[:, 1:], truth.view(3, 16)[:, :-1])


def test_smoothed_losses_in_closed_form() -> None:
    assert smooth_losses([2.0, 2.0, 2.0]) == pytest.approx([2.0, 2.0, 2.0])
    assert smooth_losses([1.0, 2.0])[1] == pytest.approx((0.9 * 1 + 2) / 1.9)
    rows = [StepMeasurement("a", losses=(1.0, 2.0)), StepMeasurement("b", losses=(1.0, 1.0))]
    assert compare_losses(rows) == pytest.approx(1 / 1.9)
    assert compare_losses([StepMeasurement("too large"), rows[1]]) is None


@pytest.mark.parametrize(("gib", "expected"), [(15, 1), (22, 2), (44, 4), (79, 4), (139, 8), (180, 16)])
def test_batch_fits_the_gpu(gib: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gpu:
        total_memory = gib * GIB

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Gpu)
    assert choose_batch(torch.device("cuda")) == expected
    assert choose_batch(CPU) == 4
