"""How long a checkpoint stops the training, and how long it takes until it is stored; the peak of the memory.

    python -m tests.benchmarks.checkpoint_pause [MILLION_WEIGHTS]

The state is that of Adam, with the best weights: 16 bytes a weight. Each figure is of a process of its own. `file` is
what former releases did: a file in /tmp, hashed and then sent, while the training waits.
"""

import hashlib
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

WEIGHTS_M = 50


def main() -> None:
    """Print both ways."""
    millions = sys.argv[1] if sys.argv[1:] else str(WEIGHTS_M)
    for name in ("nothing", "file", "background"):
        command = [sys.executable, "-m", "tests.benchmarks.checkpoint_pause", name, millions]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        sys.stdout.write(
            f"{name:>10}: training stops for {found['pause_s']:.2f} s, then {found['again_s']:.2f} s; stored "
            f"after {found['total_s']:.2f} s; peak {found['peak_mb']:,.0f} MB\n"
        )


def measure(name: str, millions: int) -> dict[str, float]:
    """Measure one way in this process."""
    import torch
    from safetensors.torch import save_file

    from functions.train.training.checkpoint import CheckpointStore
    from functions.train.training.checkpoint_writer import CheckpointWriter
    from functions.train.training.state import TrainerState, TrainingPosition
    from pilotlight.storage.object_store import open_store

    torch.set_num_threads(1)
    live = {part: torch.randn(millions * 1_000_000) for part in ("model/w", "optimiser/0/m", "optimiser/0/v", "best/w")}
    pauses, total, memory = [0.0, 0.0], 0.0, dict[str, torch.Tensor]()
    with TemporaryDirectory() as folder:
        store = open_store(folder)
        writer = CheckpointWriter(CheckpointStore(store, "runs/r/checkpoints", ""), lambda _: None)
        for number in range(2 if name != "nothing" else 0):
            started = time.perf_counter()
            if name == "file":
                copied = {part: value.to("cpu", copy=True) for part, value in live.items()}
                path = Path(folder, "tensors")
                save_file(copied, path)
                store.put(f"old/{number}", path)
                hashlib.file_digest(path.open("rb"), "sha256")
                pauses[number] = total = time.perf_counter() - started
                continue
            copied = {
                part: value if part.startswith("best/") else memory[part].copy_(value) if memory else value.clone()
                for part, value in live.items()
            }
            memory = copied
            writer.start(TrainerState(TrainingPosition(step=number + 1, batches=0, seconds=0, epochs=()), copied))
            pauses[number] = time.perf_counter() - started
            writer.wait()
            total = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {"pause_s": pauses[0], "again_s": pauses[1], "total_s": total, "peak_mb": peak}


if __name__ == "__main__":
    if sys.argv[2:]:
        sys.stdout.write(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
    else:
        main()
