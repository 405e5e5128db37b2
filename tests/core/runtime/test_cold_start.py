import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
CODE = """
import gc, os
from pilotlight.runtime import cold_start
cold_start.begin_imports()
assert not gc.isenabled()
import numpy as np, numpy.ma, numpy.random, numpy.polynomial
cold_start.finish_imports()
assert gc.isenabled() and gc.get_freeze_count() > 10_000
assert np.dot.__doc__ is None or "dot" in np.dot.__doc__
assert (np.ones((3, 4)) @ np.ones((4, 2))).sum() == 24
print(len(os.listdir("/proc/self/task")) if os.path.exists("/proc") else 1)
"""


def test_numpy_works_as_ever_and_starts_no_threads() -> None:
    environment = {"PYTHONPATH": str(ROOT / "layers/core")}
    found = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "1"


def test_a_variable_that_is_set_already_is_the_users() -> None:
    code = (
        "import os; from pilotlight.runtime import cold_start as i; i.begin_imports(); "
        "print(os.environ[i.BLAS_THREADS])"
    )
    environment = {"PYTHONPATH": str(ROOT / "layers/core"), "OPENBLAS_NUM_THREADS": "4"}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "4"
