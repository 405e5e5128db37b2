"""The GPU benchmark runs where there is neither GPU nor pydantic, and says so."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from functions.train.benchmark import GIB, Measured, Shape, difference, fitting, smooth, ways, windows

ROOT = Path(__file__).parents[3]
ABSENT = ("pydantic", "yaml", "msgspec", "obstore", "sklearn", "matplotlib", "aws_lambda_powertools")
BARE = "import sys; sys.modules.update(dict.fromkeys(sys.argv.pop(1).split(','))); "
RUN = BARE + "from functions.train.benchmark import main; sys.exit(main(sys.argv[1:]))"
CPU = torch.device("cpu")


def test_runs_with_torch_and_rich_alone(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "layers/core")])}
    command = [
        sys.executable,
        "-W",
        "error",
        "-c",
        RUN,
        ",".join(ABSENT),
        "--steps",
        "5",
        "--out",
        str(tmp_path / "b.json"),
    ]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "No GPU here: the tiny model on the CPU" in done.stdout
    assert "there is no matplotlib" in done.stdout
    said = json.loads((tmp_path / "b.json").read_text())
    assert [row["way"] for row in said["rows"]] == [
        "bf16, eager, fused",
        "fp32, eager, fused",
        "bf16, eager, not fused",
    ]
    assert all(len(row["losses"]) == 15 and row["tokens_per_s"] > 0 and row["mfu"] is None for row in said["rows"])
    assert 0 < said["bf16_fp32_apart"] < 0.05
    assert said["rows"][1]["losses"][-1] < said["rows"][1]["losses"][0]


def test_everything_is_turned_off_once_where_there_is_a_compiler() -> None:
    assert list(map(str, ways(CPU, compiled=True))) == [
        "bf16, compiled, fused",
        "fp32, compiled, fused",
        "bf16, eager, fused",
        "bf16, compiled, not fused",
    ]


def test_windows_are_the_same_in_every_run_and_each_token_is_followed_by_its_target() -> None:
    shape = Shape(context=16)
    first, again = (list(windows(shape, 3, 2, CPU)) for _ in range(2))
    for (tokens, truth), (same, also) in zip(first, again, strict=True):
        assert torch.equal(tokens, same)
        assert torch.equal(truth, also)
        assert torch.equal(tokens[:, 1:], truth.view(3, 16)[:, :-1])


def test_smoothed_losses_in_closed_form() -> None:
    assert smooth([2.0, 2.0, 2.0]) == pytest.approx([2.0, 2.0, 2.0])
    assert smooth([1.0, 2.0])[1] == pytest.approx((0.9 * 1 + 2) / 1.9)
    rows = [Measured("a", losses=(1.0, 2.0)), Measured("b", losses=(1.0, 1.0))]
    assert difference(rows) == pytest.approx(1 / 1.9)
    assert difference([Measured("too large"), rows[1]]) is None


@pytest.mark.parametrize(("gib", "expected"), [(15, 1), (22, 2), (44, 4), (79, 4), (139, 8), (180, 16)])
def test_batch_fits_the_gpu(gib: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gpu:
        total_memory = gib * GIB

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Gpu)
    assert fitting(torch.device("cuda")) == expected
    assert fitting(CPU) == 4
