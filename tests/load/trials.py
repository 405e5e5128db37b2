"""Trials in simulation: good and bad canaries, honest and hostile callers, on the router and the monitor themselves.

Time and answers are drawn; everything that decides is the code that serves. Numbers of one environment.
"""

import contextlib
import io
import json
import logging
import random
import statistics
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from pilotlight.contracts.alias import TOTAL_WEIGHT, AliasDocument, Canary, TrafficShare
from pilotlight.contracts.names import ModelReference
from pilotlight.runtime.model_cache import LoadedModel
from pilotlight.runtime.traffic import InferenceResult, RoutedRequest, TrafficRouter
from pilotlight.runtime.trial_callers import TrialCaller

if TYPE_CHECKING:
    from pilotlight.runtime.model_manager import ModelManager

GOOD_REQUESTS, BAD_REQUESTS, SLOWLY_FOUND_REQUESTS = 600, 1_500, 8_000  # honest ones of a trial in one environment
SHARE = 0.5  # of the requests that are the canary's
CALLERS = 50  # addresses
HOSTILE_RATE = 3  # times as many requests as an honest caller
MS, FIXED_MS, SPREAD = 1.0, 8.0, 0.3  # ms per row and per request, and the standard deviation of the logarithm
TAIL, TAIL_FACTOR = 0.02, 20.0  # share of requests that take much longer, and how much longer
CLASSES = 3
REFERENCE = ModelReference("simulated")
CANARY = Canary(2, "2100-01-01T00:00:00+00:00")
Trick = Callable[["Request", random.Random, "Simulation"], "Request"]


class Request(Struct, frozen=True):
    """A request, as far as it matters: who sends it, how long it is, and what becomes of it."""

    caller: TrialCaller
    rows: int = 1
    ms_factor: float = 1.0  # by content: a long text takes longer than a short one
    is_nan: bool = False
    is_poison: bool = False  # an input on which the canary fails, where there is one
    is_easy: bool = False  # an input that both versions treat alike


@dataclass(frozen=True)
class Version:
    """How the canary differs from the champion."""

    slowdown: float = 1.0
    failure_rate: float = 0.0
    drift: float = 0.0  # total variation distance
    poison_fails: bool = False


class Simulation:
    """One trial in one environment, with a clock that only moves while a version computes."""

    def __init__(self, canary: Version, seed: int, settings: Canary = CANARY) -> None:
        self.now = 0.0
        self.latest_ms = 0.0
        self.latest_version = 0  # as the answer's header tells the caller
        self._canary, self._random = canary, random.Random(seed)  # noqa: S311 - a simulation
        self._outputs = [{"y": np.eye(CLASSES, dtype=np.float32)[[one]]} for one in range(CLASSES)]
        self._nan = {"y": np.full((1, CLASSES), np.nan, np.float32)}
        share = TrafficShare(2, int(SHARE * TOTAL_WEIGHT))
        self.document = AliasDocument(1, None, "load", "", "", shares=(share,), canary=settings)
        draw = partial(self._draw_slot, self._random.random)
        self.router = TrafficRouter(cast("ModelManager", self), lambda: self.now, draw)

    def get_alias_document(self, reference: ModelReference) -> AliasDocument:
        """As `ModelManager` does."""
        return self.document

    def load_beside(self, key: tuple[str, int], active: tuple[str, int]) -> LoadedModel:
        """As `ModelManager` does; a version stands for its model."""
        return cast("LoadedModel", key[1])

    def send(self, request: Request) -> None:
        """Send a request through the router."""
        infer = partial(self._infer, request)
        champion = cast("LoadedModel", 1)
        self.router.route_request(
            RoutedRequest(REFERENCE, lambda: request.caller, lambda: champion, infer, infer, infer)
        )

    def is_stopped(self) -> bool:
        """Whether the router has stopped the canary."""
        return any(monitor.is_stopped for _, monitor in self.router._monitors.values())

    @staticmethod
    def _draw_slot(draw: Callable[[], float]) -> int:
        return int(draw() * TOTAL_WEIGHT)

    def _infer(self, request: Request, model: LoadedModel) -> InferenceResult[int]:
        version, draw = cast("int", model), self._random.random
        canary = self._canary if version == 2 else Version()
        self.latest_version = version
        self.latest_ms = self._draw_ms(request) * (1.0 if request.is_easy else canary.slowdown)
        self.now += self.latest_ms / 1000
        if (not request.is_easy and draw() < canary.failure_rate) or (request.is_poison and canary.poison_fails):
            raise RuntimeError("it failed")
        if request.is_nan:
            return InferenceResult(version, self._nan, request.rows)
        predicted = 0 if request.is_easy else int(draw() * CLASSES)
        if not request.is_easy and draw() < canary.drift * CLASSES / (CLASSES - 1):
            predicted = 0
        return InferenceResult(version, self._outputs[predicted], request.rows)

    def _draw_ms(self, request: Request) -> float:
        ms = (FIXED_MS + MS * request.rows) * request.ms_factor * self._random.lognormvariate(0, SPREAD)
        return ms * TAIL_FACTOR if self._random.random() < TAIL else ms


def send_honestly(request: Request, draw: random.Random, trial: Simulation) -> Request:
    """Send one row, or now and then a batch."""
    return replace(request, rows=draw.choice((1, 1, 1, 1, 4, 4, 30)))


def spray_headers(request: Request, draw: random.Random, trial: Simulation) -> Request:
    """Name another user each time, and send a batch whenever the last name met the canary (finding A7)."""
    caller = replace(request.caller, user=str(draw.random()))
    return replace(request, caller=caller, rows=4000 if trial.latest_version == 2 else 1)


def send_slow_rows(request: Request, draw: random.Random, trial: Simulation) -> Request:
    """Send contents that take long, once the last answer was the champion's and quick."""
    is_slow = trial.latest_version == 1 and trial.latest_ms < 3 * (FIXED_MS + MS)
    return replace(request, ms_factor=200.0 if is_slow else 1.0)


def send_nan(request: Request, draw: random.Random, trial: Simulation) -> Request:
    """Send what has no finite answer."""
    return replace(request, is_nan=True)


def send_poison(request: Request, draw: random.Random, trial: Simulation) -> Request:
    """Send an input on which the canary alone fails."""
    return replace(request, is_poison=True)


def send_easy(request: Request, draw: random.Random, trial: Simulation) -> Request:
    """Send only what both versions treat alike, so that the canary looks better than it is."""
    return replace(request, is_easy=True)


@dataclass(frozen=True)
class Scenario:
    """A canary, its callers, and whether it must be stopped."""

    name: str
    canary: Version
    trick: Trick | None = None
    hostile: int = 0  # addresses of CALLERS
    is_bad: bool = False
    honest_requests: int = GOOD_REQUESTS


def list_scenarios() -> list[Scenario]:
    """List what is simulated."""
    good, rare = Version(), Version(poison_fails=True)
    scenarios = [Scenario("identical", good)]
    for trick in (spray_headers, send_slow_rows, send_nan):
        scenarios += [Scenario("identical", good, trick, hostile) for hostile in (1, 5, 20)]
    scenarios += [Scenario("fails on one rare input", rare, send_poison, hostile) for hostile in (1, 4)]
    scenarios += [Scenario("1.5 times as long, 2 allowed", Version(slowdown=1.5))]
    scenarios += [Scenario("fails 2 %, 1 % allowed", Version(failure_rate=0.02), None, 0, True, SLOWLY_FOUND_REQUESTS)]
    bad = {
        "2.6 times as long, 2 allowed": Version(slowdown=2.6),
        "4 times as long, 2 allowed": Version(slowdown=4.0),
        "fails 5 %, 1 % allowed": Version(failure_rate=0.05),
        "fails 20 %, 1 % allowed": Version(failure_rate=0.20),
        "drifts by 0.45, 0.25 allowed": Version(drift=0.45),
    }
    for name, version in bad.items():
        for count in (0, 5, 20):
            scenarios.append(Scenario(name, version, send_easy if count else None, count, True, BAD_REQUESTS))
    return scenarios


def simulate(scenario: Scenario, seed: int) -> int | None:
    """Run one trial; return after how many honest requests the canary was stopped, None if it was kept."""
    trial, draw = Simulation(scenario.canary, seed), random.Random(-seed - 1)  # noqa: S311
    callers = [TrialCaller(address=f"192.0.2.{one}") for one in range(CALLERS)]
    weights = [HOSTILE_RATE if one < scenario.hostile else 1 for one in range(CALLERS)]
    honest_share = (CALLERS - scenario.hostile) / sum(weights)
    honest = 0
    for sender in draw.choices(range(CALLERS), weights, k=round(scenario.honest_requests / honest_share)):
        is_honest = scenario.trick is None or sender >= scenario.hostile
        honest += is_honest
        trick = send_honestly if scenario.trick is None or is_honest else scenario.trick
        trial.send(trick(Request(callers[sender]), draw, trial))
        if trial.is_stopped():
            return honest
    return None


def run_scenario(scenario: Scenario, trials: int) -> dict[str, Any]:
    """Run all trials of a scenario, and count."""
    with contextlib.redirect_stdout(io.StringIO()):  # the lines of the log
        ends = [simulate(scenario, seed) for seed in range(trials)]
    stops = [end for end in ends if end is not None]
    return {
        "canary": scenario.name,
        "honest_requests": scenario.honest_requests,
        "hostile": f"{scenario.hostile} of {CALLERS}, {scenario.trick.__name__}" if scenario.trick else "none",
        "trials": trials,
        "stopped": len(stops),
        "wrong": trials - len(stops) if scenario.is_bad else len(stops),
        "median_requests": int(statistics.median(stops)) if stops else None,
    }


def run(count: int, processes: int = 1) -> dict[str, Any]:
    """Simulate `count` trials of each scenario."""
    scenarios = list_scenarios()
    with ProcessPoolExecutor(processes, initializer=logging.disable) as pool:
        rows = []
        for row in pool.map(run_scenario, scenarios, [count] * len(scenarios)):
            rows.append(row)
            sys.stderr.write(format_row(row) + "\n")
    false_stops = [
        json.dumps(row) for row, scenario in zip(rows, scenarios, strict=True) if row["wrong"] and not scenario.is_bad
    ]
    return {"share": SHARE, "scenarios": rows, "failures": false_stops}


def format_row(row: dict[str, Any]) -> str:
    """Format a row of the table in Markdown."""
    median = "" if row["median_requests"] is None else f"{row['median_requests']:,}"
    return f"| {row['canary']} | {row['hostile']} | {row['stopped']:,} of {row['trials']:,} | {median} |"
