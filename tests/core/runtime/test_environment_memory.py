"""The floor under an environment: an allocation that is too large is an error, and the process goes on."""

import subprocess
import sys

import pytest

from pilotlight.native import child_process
from pilotlight.runtime import process_memory
from pilotlight.runtime.environment_memory import MIB, UNLIMITED_BYTES, DataLimit, EnvironmentMemory
from tests import fakes

# What a function does: numpy, onnxruntime, python's own objects and zlib ask for more than there is, then for little.
SCRIPT = """
import sys, zlib
import msgspec, numpy as np
from pilotlight.errors import OutOfMemoryError
from pilotlight.runtime.environment_memory import DATA_LIMIT, EnvironmentMemory
from pilotlight.runtime.session import open_session

session = open_session(sys.argv[1])
memory = EnvironmentMemory(256, enforced=True)
text = b"[" + b"[0]," * 3_000_000 + b"0]"
bomb = zlib.compress(bytes(1_000_000))
attempts = {
    "numpy": lambda: np.ones(10**9, np.uint8),
    "onnxruntime": lambda: session.run({"image": np.zeros((40_000, 1, 8, 8), np.float32)}),
    "json": lambda: msgspec.json.decode(text),
    "bytes": lambda: bytearray(300_000_000),
    "zlib": lambda: [zlib.decompress(bomb) for _ in range(400)],
}
for name, attempt in attempts.items():
    try:
        attempt()
    except (MemoryError, OutOfMemoryError):
        answer = session.run({"image": np.zeros((1, 1, 8, 8), np.float32)})["logits"]
        print(name, answer.shape, 0 < memory.free_bytes < 256 * 1024 * 1024)
held = np.ones(20_000_000, np.uint8)
print("usable", abs(DATA_LIMIT.count_usable_bytes() - memory.free_bytes) < 2_000_000)
del held
with DATA_LIMIT.suspend(), DATA_LIMIT.suspend():
    np.ones(300_000_000, np.uint8)
try:
    np.ones(300_000_000, np.uint8)
except MemoryError:
    print("it is back")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts what is allocated")
def test_allocations_fail_and_the_process_goes_on() -> None:
    graph = str(fakes.MODELS / "digits" / "model.int8.onnx")
    command = [sys.executable, "-c", SCRIPT, graph]
    environment = child_process.build_environment()  # python3.13's has no package installed but the layer's
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        [
            *(f"{name} (1, 10) True" for name in ("numpy", "onnxruntime", "json", "bytes", "zlib")),
            "usable True",
            "it is back",
        ],
    ), done.stderr


def test_what_is_resident_is_not_free() -> None:
    memory, before = EnvironmentMemory(100_000), process_memory.measure_own_memory()[0]
    assert abs(memory.free_bytes - (90_000 * MIB - before)) < 64 * MIB
    held = b"\x01" * (200 * MIB)
    assert memory.free_bytes < 90_000 * MIB - before - 150 * MIB
    assert len(held)
    assert EnvironmentMemory(1).free_bytes == 0
    assert EnvironmentMemory().free_bytes == UNLIMITED_BYTES


def test_what_a_process_of_ones_own_may_take_is_what_is_left() -> None:
    limit = DataLimit()
    assert limit.count_free_bytes() == UNLIMITED_BYTES
    limit.allowed_bytes = process_memory.measure_own_memory()[0] + 500 * MIB
    assert 400 * MIB < limit.count_free_bytes() < 600 * MIB
    limit.allowed_bytes = 1
    assert limit.count_free_bytes() == 0
