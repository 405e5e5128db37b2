from pathlib import Path

import numpy as np

from pilotlight.gate.probe import ProbeRequest, run_probe
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests import fakes


def test_the_peak_is_the_probes_own(tmp_path: Path) -> None:
    """Linux counts what a process held before it became the probe, which is what its parent holds, in ru_maxrss."""
    registry = Registry(open_store((tmp_path / "store").as_uri()))
    fakes.publish_digits(registry)
    (tmp_path / "answers").mkdir()
    held = np.ones(100_000_000)  # 800 MB
    found = run_probe(ProbeRequest(registry.store.address, "digits", 1, 1769, None, str(tmp_path / "answers")))
    assert held.nbytes > 700e6
    assert found.error is None
    assert 30 < found.peak_mb < 400
