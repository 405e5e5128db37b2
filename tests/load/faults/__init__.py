"""Faults, each with what is promised and what was seen: `python -m tests.load faults [--kind K] [--times N]`.

A kind is a module here with a `run(times)` that returns rows. A row is a failure when what was seen is not what is
promised; what a machine cannot do (mount a small disk) is skipped with the reason.
"""

from dataclasses import asdict
from importlib import import_module
from typing import Any

KINDS = ("kills", "disk", "clock", "slow_store", "idle", "lifetimes", "memory")


def run(only: str, times: int) -> dict[str, Any]:
    """Run one kind, or all; with the table."""
    names = KINDS if only == "all" else (only,)
    rows = [row for name in names for row in import_module(f"tests.load.faults.{name}").run(times)]
    return {
        "rows": [asdict(row) for row in rows],
        "table": [f"| {row.fault} | {row.promised} | {row.seen} |" for row in rows],
        "failures": [f"{row.fault}: {row.seen}" for row in rows if row.is_broken],
    }
