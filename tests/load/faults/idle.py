"""An environment that is idle for 10,000 s while the store closes its connections, then gets a burst."""

import os
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import patch

from pilotlight.contracts.names import ModelReference
from pilotlight.registry.registry import Registry
from pilotlight.runtime.model_cache import ModelCache
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.load.faults.row import Row, judge
from tests.load.faults.slow_store import CREDENTIALS, open_server

IDLE_S = 10_000.0
BURST = 50


def run(times: int) -> list[Row]:
    """Idle, then burst, so many times."""
    with patch.dict(os.environ, CREDENTIALS):
        return [burst_after_idle(times)]


def burst_after_idle(times: int) -> Row:
    """Jump the environment's clock, close every connection to the store, move the alias, and ask from many threads."""
    wrong, answers = list[str](), 0
    with open_server() as (server, registry):
        clock = fakes.Clock()
        manager = ModelManager(
            Registry(open_store(server.url)), ModelCache(1 << 30), memory_mb=1769, alias_seconds=10, clock=clock
        )
        reference = ModelReference("double")
        manager.get_model(reference)
        for number in range(times):
            wanted = 1 + (number + 1) % 2
            registry.move_alias("double", "champion", wanted, actor="a", reason="while it is idle")
            server.close_connections()
            clock.tick(IDLE_S)
            first = manager.get_model(reference).manifest.version  # of many, as an environment has one at a time
            with ThreadPoolExecutor(BURST) as pool:
                rest = pool.map(lambda _: manager.get_model(reference).manifest.version, range(BURST))
                versions = [first, *rest]
            answers += len(versions)
            wrong += [f"{versions.count(other)} old answers" for other in set(versions) - {wanted}]
            manager.wait_for_background()
    promised = "the first requests succeed, by the version of now"
    seen = f"{answers} answers over {times} bursts"
    return judge(f"{IDLE_S:,.0f} s idle, then {BURST} at once", promised, seen, wrong)
