"""A training as a process of its own, to be watched from its checkpoints and killed."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests.functions.train.conftest import TINY

ROOT = Path(__file__).parents[3]


class Process:
    """A training of the tiny recipe under one name, in a folder."""

    def __init__(self, folder: Path, steps: int) -> None:
        self.store = folder / "store"
        self._command = [
            *(sys.executable, "-m", "functions.train", "digits", "--set", *TINY, f"checkpoint.steps={steps}"),
            *("--store", str(self.store), "--run", "r"),
        ]

    def also(self, *words: str) -> None:
        """Give it more words."""
        self._command += words

    def start(self) -> subprocess.Popen[str]:
        path = os.pathsep.join([str(ROOT), str(ROOT / "layers/core")])
        environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            self._command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def steps(self) -> list[int]:
        """The complete checkpoints."""
        return sorted(int(path.parent.name[5:]) for path in self.store.glob("runs/r/checkpoints/*/manifest.json"))

    def reach(self, process: subprocess.Popen[str], step: int) -> None:
        """Wait for a checkpoint of this step or a later one."""
        until(lambda: process.poll() is not None or (self.steps() or [0])[-1] >= step)
        assert process.poll() is None, process.communicate()

    def weights(self) -> str:
        """The sha256 of the published fp32 graph, which holds every weight."""
        registry = Registry(open_store(str(self.store)))
        assert registry.list_versions("tiny") == [1]
        return registry.load_manifest("tiny", 1).get_file("model.fp32.onnx").sha256


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)
