"""P6: CPU seconds per GB fetched, ours, with the sha256 that the handler checks, against boto3's `download_file`.

Each fetch is a process of its own (tests/benchmarks/fetcher.py) that reports the CPU of the fetch alone.
"""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from tests.benchmarks.fetcher import BUCKET, KEY, SIDES, SIZE
from tests.benchmarks.goal import Measure
from tests.benchmarks.objects import serve_objects
from tests.benchmarks.starts import ROOT, python

ROUNDS = 7


def measure() -> list[Measure]:
    """All of them in turn, from the same server."""
    with TemporaryDirectory() as folder:
        (Path(folder) / BUCKET).mkdir()
        (Path(folder) / BUCKET / KEY).write_bytes(os.urandom(SIZE))
        with serve_objects(Path(folder)) as variables:
            seconds: dict[str, list[float]] = {side: [] for side in SIDES}
            for _ in range(ROUNDS):
                for side, found in seconds.items():
                    found.append(cpu_seconds(side, variables) / SIZE * 1e9)
    ours, bare, boto3 = (median(seconds[side]) for side in ("ours", "bare", "boto3"))
    return [
        Measure("P6", f"CPU s per GB, ours with sha256 {ours:.2f} / boto3 {boto3:.2f}", ours / boto3, 0.40),
        Measure("P6", f"the same without the hash, {bare:.2f} / {boto3:.2f}", bare / boto3, 0.40),
    ]


def cpu_seconds(side: str, server: Mapping[str, str]) -> float:
    """Of one fetch, user and system, all threads."""
    with TemporaryDirectory() as folder:
        command = [python(), "-m", "tests.benchmarks.fetcher", side, str(Path(folder) / "target")]
        variables = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join((str(ROOT / "layers/core"), str(ROOT))),
            **server,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        found = subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, check=True)
    return float(found.stdout)
