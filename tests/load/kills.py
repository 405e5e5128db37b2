"""One training that is killed over and over: what is left goes on, and publishes what the unbroken one publishes."""

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.functions.train.training_process import Process

EPOCHS = "epochs=12"  # of 17 steps, so that twenty lives find something to do
WAYS = (signal.SIGKILL, signal.SIGTERM)
PAUSED = 75  # the exit code after SIGTERM


def run(count: int, seed: int) -> dict[str, Any]:
    """Kill a run `count` times, by SIGKILL and SIGTERM in turn, each soon after a life's first checkpoint."""
    drawn = random.Random(seed)  # noqa: S311 - a repeatable run, not a secret
    with TemporaryDirectory() as unbroken, TemporaryDirectory() as broken:
        whole = end(job(Path(unbroken)))
        killed, steps, wrong = Counter[str](), list[int](), list[str]()
        torn = job(Path(broken))
        for number in range(count):
            way = WAYS[number % 2]
            code = kill(torn, way, drawn.random() / 20)
            if code not in (-way, PAUSED if way == signal.SIGTERM else -way):
                wrong.append(f"life {number + 1} ended with {code} on {way.name}")
            killed[way.name] += 1
            steps.append(newest(torn))
        last = end(torn)
    if last != whole:
        wrong.append(f"the model of the killed run is {last}, of the unbroken one {whole}")
    return {"kills": dict(killed), "steps": steps, "sha256": whole, "failures": wrong}


def job(folder: Path) -> Process:
    """A run with a checkpoint at every step."""
    made = Process(folder, steps=1)
    made.also("--set", EPOCHS)
    return made


def end(job: Process) -> str:
    """Let it run to its end; gives the sha256 of the published graph, which holds every weight."""
    process = job.start()
    out, err = process.communicate()
    if (process.returncode, out) != (os.EX_OK, "tiny:1\n"):
        raise RuntimeError(f"The run ended with {process.returncode}: {err}")
    return job.weights()


def kill(job: Process, way: signal.Signals, wait_s: float) -> int:
    """Start it, and kill it some moments after it has taken a step further; gives its exit code."""
    before, process = newest(job), job.start()
    job.reach(process, before + 1)
    time.sleep(wait_s)
    process.send_signal(way)
    process.communicate()
    return process.returncode


def newest(job: Process) -> int:
    """The step of its newest checkpoint."""
    return max(job.steps(), default=0)
