"""P5: the most memory that a cold start and the answers after it hold, against the model's file and an empty process.

Measured as the kernel counts it, from exec until the packed session has taken the first one's place; the files of
tests/benchmarks/cold.py.
"""

from tests.benchmarks.cold import event, scene
from tests.benchmarks.goal import Measure
from tests.benchmarks.objects import serve_objects
from tests.benchmarks.starts import start

ANSWERS = 20  # more than RUNS_BEFORE_CHANGE of pilotlight.runtime.deferred_prepacking


def measure() -> list[Measure]:
    """One start of each is enough: sizes do not vary as times do."""
    with scene() as here, serve_objects(here.folder) as variables:
        ours = here.ours(variables, answers=ANSWERS)
        empty = start("tests.benchmarks.empty.handle", event(), {})
        file = here.file.stat().st_size
    found = ours.peak_bytes / (file + empty.peak_bytes)
    parts = f"{ours.peak_bytes / 1e6:.0f} MB / ({file / 1e6:.0f} + {empty.peak_bytes / 1e6:.0f} MB)"
    return [Measure("P5", f"peak resident memory, {parts}", found, 1.15)]
