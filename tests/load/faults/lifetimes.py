"""Environments that start and end: 5,000 in one process, whose memory must stay flat, and real ones."""

import gc
import http.client
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import psutil

from pilotlight.contracts.names import ModelReference
from pilotlight.local.gateway import Gateway
from pilotlight.local.template import GatewayLimits
from pilotlight.registry.registry import Registry
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.settings import Settings
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.load.faults.row import Row, judge

ENVIRONMENTS_PER_TIME = 250  # 5,000 for 20 times
PROCESSES_PER_TIME = 5
GROWTH = 1.10  # of memory, from the first tenth on
STACK = Path(__file__).parents[2] / "core" / "local" / "stack" / "template.yaml"


def run(times: int) -> list[Row]:
    """Start and end them."""
    return [start_in_process(times * ENVIRONMENTS_PER_TIME), start_processes(times * PROCESSES_PER_TIME)]


def measure() -> tuple[float, int, int]:
    """Memory in MB, open files, threads."""
    gc.collect()
    process = psutil.Process()
    return process.memory_info().rss / 1e6, process.num_fds(), threading.active_count()


def start_in_process(count: int) -> Row:
    """Open the runtime over a store, answer once, and let it go."""
    with TemporaryDirectory() as folder:
        url = Path(folder, "store").as_uri()
        fakes.publish(Registry(open_store(url)))
        seen = []
        for number in range(count):
            manager = ModelManager.from_settings(Settings(store=url), open_store(url))
            manager.get_model(ModelReference("double"))
            if number % (count // 10) == count // 10 - 1:
                manager.wait_for_background()
                del manager
                seen.append(measure())
    (first_mb, first_files, first_threads), (last_mb, last_files, last_threads) = seen[0], seen[-1]
    wrong = [] if last_mb <= GROWTH * first_mb else ["memory grows"]
    wrong += [] if last_files <= first_files + 2 else ["open files grow"]
    wrong += [] if last_threads <= first_threads + 2 else ["threads grow"]
    text = f"{first_mb:.0f} to {last_mb:.0f} MB, {first_files} to {last_files} files, "
    text += f"{first_threads} to {last_threads} threads"
    return judge(f"{count:,} environments started and ended", "memory, open files and threads stay flat", text, wrong)


def start_processes(count: int) -> Row:
    """Have the local gateway start processes that die in the middle of a request, one after the other."""
    gateway = Gateway(STACK, port=0, workers=4, limits=GatewayLimits(init_s=10.0, integration_s=20.0))
    statuses, others = dict[int, int](), len(psutil.Process().children(recursive=True))  # of other kinds of fault
    with gateway.serve_in_background() as url:
        address = urlsplit(url)
        before = psutil.Process().num_fds()
        for _ in range(count):
            connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
            connection.request("GET", "/act/exit")
            status = connection.getresponse().status
            statuses[status] = statuses.get(status, 0) + 1
            connection.close()
        after, children = psutil.Process().num_fds(), len(psutil.Process().children(recursive=True)) - others
    left = len(psutil.Process().children(recursive=True)) - others
    wrong = [] if set(statuses) == {502} else [f"statuses {statuses}"]
    wrong += [] if after <= before + 8 else [f"{before} to {after} open files"]
    wrong += [] if not left else [f"{left} processes are left"]
    text = f"each 502, {before} to {after} open files, {children} processes alive, {left} after the gateway's end"
    return judge(f"{count} processes that die in a request", "only their request fails; nothing piles up", text, wrong)
