"""What is made without torch does not wait for it: its import takes two seconds or more."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pilotlight.native import child_process
from tests import fakes

CODE = (
    "import json, sys\n"
    "from functions.train.convert.__main__ import main\n"
    "print(json.dumps([main(sys.argv[1:]), 'torch' in sys.modules]))"
)
ESTIMATOR = """
import numpy as np
from sklearn.linear_model import LinearRegression
model = LinearRegression().fit(np.eye(3), np.arange(3.0))
"""


def convert(path: Path | str, tmp_path: Path, *options: str) -> tuple[int, bool]:
    """Convert in a new process; return the exit code and whether torch was imported."""
    (tmp_path / "into").mkdir()
    words = [str(path), "--name", "m", "--into", str(tmp_path / "into"), *options]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE, *words],
        capture_output=True,
        text=True,
        check=True,
        env=child_process.build_environment(),
    )
    code, has_torch = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stderr
    return code, has_torch


def test_a_booster_file(tmp_path: Path) -> None:
    xgboost = pytest.importorskip("xgboost")
    rows = np.random.default_rng(0).normal(size=(40, 3))
    booster = xgboost.train({"max_depth": 2, "nthread": 1}, xgboost.DMatrix(rows, rows[:, 0]), 2)
    booster.save_model(tmp_path / "m.ubj")
    assert convert(tmp_path / "m.ubj", tmp_path) == (0, False)


def test_an_estimator(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(ESTIMATOR)
    assert convert(f"{tmp_path / 'mine.py'}:model", tmp_path) == (0, False)


def test_a_graph_that_is_compared_without_right_answers(tmp_path: Path) -> None:
    (tmp_path / "double.onnx").write_bytes(fakes.graph("double"))
    assert convert(tmp_path / "double.onnx", tmp_path, "--quantize", "auto") == (0, False)
