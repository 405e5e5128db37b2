"""What a training on a folder of images takes: its peak memory beside the size of its pixels.

    python -m tests.benchmarks.image_memory --images 1500 --side 64
    python -m tests.benchmarks.image_memory --images 10000 --side 224 --streaming

It writes a folder of PNG or JPEG files of noise and stripes in two classes, trains on it in a process of its own, and
prints the process's VmHWM after the import of torch and at the end.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
MODEL = "model={architecture: cnn, channels: [4, 8], hidden: 8, dropout: 0.0}"
CHILD = """
import sys, torch, onnxruntime, functions.train.pipeline
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
before = peak()
from functions.train.__main__ import main
code = main(sys.argv[1:])
print("PEAK", before, peak())
sys.exit(code)
"""


def write_images(folder: Path, count: int, side: int, suffix: str = ".png") -> None:
    """Write so many images of that side in two classes, which differ in the direction of their stripes."""
    random, ramp = np.random.default_rng(0), np.arange(side) // 4 % 2 * 60
    for number in range(count):
        noise = random.integers(0, 190, (side, side, 3), np.uint8)
        name, stripes = ("rows", ramp[:, None, None]) if number % 2 else ("columns", ramp[None, :, None])
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray((noise + stripes).astype(np.uint8)).save(folder / name / f"{number}{suffix}")


def train_and_measure(
    folder: Path, store: Path, epochs: int = 1, batch_size: int = 32, model: str = MODEL, *, streaming: bool = False
) -> tuple[int, int, str]:
    """Train in a process of its own; return its peak bytes after the imports and at the end, and what it said."""
    fractions = "{train: 0.7, validation: 0.15, test: 0.15}"
    data = f"data={{path: '{folder}', streaming: {str(streaming).lower()}, fractions: {fractions}, calibration: 64}}"
    words = [data, "name=pictures", f"epochs={epochs}", f"batch_size={batch_size}", model, "augmentation=null"]
    words += ["quantization={scheme: static, budget: 100}"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "layers/core")])}
    command = [sys.executable, "-c", CHILD, "digits", "--store", str(store), "--set", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=3600)
    if done.returncode:
        raise RuntimeError(done.stderr)
    line = next(line for line in done.stdout.splitlines() if line.startswith("PEAK"))
    _, before, peak = line.split()
    return int(before), int(peak), done.stderr


def main() -> None:
    """Measure as the arguments say."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--suffix", default=".png")
    parser.add_argument("--streaming", action="store_true")
    options = parser.parse_args()
    with TemporaryDirectory(prefix="pilotlight-images-") as folder:
        write_images(Path(folder, "images"), options.images, options.side, options.suffix)
        started = time.perf_counter()
        before, peak, said = train_and_measure(
            Path(folder, "images"), Path(folder, "store"), streaming=options.streaming
        )
    pixels = options.images * options.side**2 * 3
    result = {
        "pixels_mb": pixels / 1e6,
        "imports_mb": before / 1e6,
        "peak_mb": peak / 1e6,
        "above_imports_per_pixel_byte": round((peak - before) / pixels, 2),
        "seconds": round(time.perf_counter() - started, 1),
    }
    sys.stderr.write(said)
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
