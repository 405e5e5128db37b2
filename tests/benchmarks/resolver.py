"""R1: what Powertools' resolver with validation would add to the start of each function of the control plane.

CPU seconds from exec to the first answer, ours against tests/benchmarks/resolver_handler.py, in turn. Lambda gives a
function one vCPU per 1,769 MB, so that CPU seconds over this share are what a caller would wait.
Source: docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html.
"""

import json
from statistics import median
from tempfile import TemporaryDirectory

from tests import fakes
from tests.benchmarks.goal import Measure
from tests.benchmarks.starts import Started, start

ROUNDS = 7
MB_PER_VCPU = 1769
LIMIT_S = 1.0
EVENTS = fakes.MODELS.parent / "events"
# By API: the handler that stands, a recorded event, and the function's memory in MB (template.yaml).
FUNCTIONS = {
    "registry": ("functions.registry_api.handler.handle", "models-list.json", 512),
    "batch": ("functions.batch_api.handler.handle", "batches-list.json", 1024),
    "training": ("functions.training_api.handler.handle", "trainings-start.json", 1024),
}


def measure() -> list[Measure]:
    """Measure all three functions."""
    return [measure_function(api, *parts) for api, parts in FUNCTIONS.items()]


def measure_function(api: str, handler: str, file: str, memory_mb: int) -> Measure:
    """Measure one function; the resolver's side answers a GET of the same path."""
    event = json.loads((EVENTS / file).read_text())
    share = memory_mb / MB_PER_VCPU
    with TemporaryDirectory() as store:
        variables = {"PILOTLIGHT_STORE": store, "API": api}
        sides = {handler: event, "tests.benchmarks.resolver_handler.handle": event | {"httpMethod": "GET"}}
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(ROUNDS):
            for name, request in sides.items():
                seconds[name].append(check_status(start(name, request, variables)).cpu_seconds / share)
    ours, theirs = (median(times) for times in seconds.values())
    what = f"{api}_api at {memory_mb} MB: resolver {theirs:.2f} s, ours {ours:.2f} s; it adds"
    return Measure("R1", what, theirs - ours, LIMIT_S, "s")


def check_status(started: Started) -> Started:
    """Give the start back if the handler answered as it should; one that fails is fast.

    503 is the right answer to a training that is asked for where torch is not installed; the recipe is read by then.
    """
    if started.answer.get("statusCode") not in (200, 503):
        raise RuntimeError(f"The handler answered {started.answer}")
    return started
