"""How much memory the evaluation of a language model takes, and how long beside torch's cross_entropy alone.

    python -m tests.benchmarks.evaluation_memory [TOKENS] [CLASSES] [WINDOW]

Each figure is of a process of its own: the peak of its resident memory, with torch and all else that it imports. The
model has random weights and answers random logits, so that the same evaluation is compared.
"""

import json
import resource
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

TOKENS, CLASSES, WINDOW, WIDTH = 100_000, 32_000, 500, 64


def main() -> None:
    """Print both, and what all logits would take."""
    sizes = sys.argv[1:] or [str(TOKENS), str(CLASSES), str(WINDOW)]
    tokens, classes = int(sizes[0]), int(sizes[1])
    write(f"{tokens:,} tokens x {classes:,} classes: all logits are {4 * tokens * classes / 1e6:,.0f} MB")
    for name in ("imports", "evaluation", "cross_entropy"):
        command = [sys.executable, "-m", "tests.benchmarks.evaluation_memory", name, *sizes]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        write(f"{name:>14}: peak {found['peak_mb']:,.0f} MB, {found['seconds']:.1f} s; loss {found['loss']:.7f}")


def write(line: str) -> None:
    """Write a line."""
    sys.stdout.write(f"{line}\n")


def measure(name: str, tokens: int, classes: int, window: int) -> dict[str, float]:
    """Measure one of them in this process."""
    import numpy as np
    import torch
    from torch import nn
    from torch.nn.functional import cross_entropy

    from functions.train.data.dataset import Dataset
    from functions.train.training.prediction import evaluate_network, run_network

    torch.set_num_threads(1)
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    inputs, targets = random.integers(0, classes, (2, tokens // window, window))
    model = nn.Sequential(nn.Embedding(classes, WIDTH), nn.Linear(WIDTH, classes, bias=False))
    started, loss = time.perf_counter(), 0.0
    if name == "evaluation":
        widths = SimpleNamespace(byte_lengths=np.ones(classes, np.int64))
        text: Any = SimpleNamespace(tokenizer=widths, tokens=inputs.ravel())  # all that an evaluation asks a text
        loss = evaluate_network(model, Dataset(inputs, targets, (), text=text)).loss
    elif name == "cross_entropy":  # torch alone, a window at a time
        for some, right in zip(inputs, targets, strict=True):
            outputs = run_network(model, some[None])[0]
            loss += float(cross_entropy(outputs, torch.from_numpy(right), reduction="sum")) / targets.size
    seconds = time.perf_counter() - started
    return {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, "seconds": seconds, "loss": loss}


if __name__ == "__main__":
    if sys.argv[1:2] and not sys.argv[1].isdecimal():
        write(json.dumps(measure(sys.argv[1], *map(int, sys.argv[2:]))))
    else:
        main()
