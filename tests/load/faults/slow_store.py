"""An S3 that says SlowDown, answers late, in part, or with what was there before: right answers or a clean 503."""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from unittest.mock import patch

from functions.predict.handler import build_predict_handler
from pilotlight.errors import ConflictError, StoreError, UnavailableError
from pilotlight.registry.registry import Registry, alias_path
from pilotlight.settings import Settings
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.faulty_s3 import FaultyS3, serving
from tests.functions.predict.test_handler import ROW, event, infer
from tests.functions.predict.test_overload import Context
from tests.load.faults.kills import find_half_versions, find_wrong_history
from tests.load.faults.row import Row, attempt, judge

REQUEST = event("POST", "/v2/models/double/infer", json.dumps(infer(ROW)).encode())
RIGHT = {"1": [2, 4, 6], "2": [1, 4, 9]}  # by version
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
LIMIT_S = 28.0  # that a request may take behind the gateway
ALIAS_S = 0.05


def run(times: int) -> list[Row]:
    """Try each kind of fault."""
    with patch.dict(os.environ, CREDENTIALS):
        return [
            start_cold(times, "slow_down", 0.3, "SlowDown for 3 of 10 requests, cold"),
            start_cold(2, "slow_down", 1.0, "SlowDown for all requests, cold"),
            start_cold(1, "late", 1.0, "5 s late for all requests, cold"),
            start_cold(times, "truncated", 0.3, "3 of 10 answers in part, cold"),
            *(stay_warm(fault) for fault in ("slow_down", "late", "truncated")),
            read_stale(),
            *(write(times, fault) for fault in ("slow_down", "truncated")),
            back_off(),
        ]


@contextmanager
def open_server() -> Iterator[tuple[FaultyS3, Registry]]:
    """A server with two versions, the first is champion; and a registry over it."""
    with serving() as server:
        registry = Registry(open_store(server.url))
        fakes.publish(registry)
        fakes.publish(registry, of="square")
        yield server, registry


class Caller:
    """A function in one environment, and what it answers."""

    def __init__(self, server: FaultyS3) -> None:
        self._handle = build_predict_handler(Settings(store=server.url, alias_seconds=ALIAS_S))
        self.seen: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.longest_s = 0.0

    def ask(self) -> str:
        """The version that answered, or the status."""
        began = time.monotonic()
        answer = self._handle(REQUEST, Context(LIMIT_S))
        self.longest_s = max(self.longest_s, time.monotonic() - began)
        body, status = json.loads(answer["body"]), answer["statusCode"]
        if status == 200:
            version = str(body["model_version"])
            if body["outputs"][0]["data"] != RIGHT[version]:
                self.wrong.append(f"a wrong answer by version {version}")
            self.seen["200"] += 1
            return version
        if status != 503 or not body.get("error"):
            self.wrong.append(f"{status} {body}")
        elif "retry-after" not in answer["headers"] and "is refused" not in body["error"]:
            self.wrong.append(f"503 without Retry-After: {body['error']}")
        self.seen[str(status)] += 1
        return str(status)


def start_cold(times: int, fault: str, share: float, name: str) -> Row:
    """Start environments while the store has the fault, then heal it."""
    with open_server() as (server, _):
        server.late_s, seen, wrong, longest = 5.0, Counter[str](), list[str](), 0.0
        for _ in range(times):
            server.fail(fault, "models/", share)
            caller = Caller(server)
            caller.ask()
            server.heal()
            ends = time.monotonic() + 30
            while caller.ask() == "503" and time.monotonic() < ends:  # a load that failed is not tried at once again
                time.sleep(0.2)
            if caller.ask() != "1":
                wrong.append("no answer after it is healed")
            seen[first(caller)] += 1
            wrong += caller.wrong
            longest = max(longest, caller.longest_s)
        text = f"first answers {dict(seen)}, the longest took {longest:.1f} s"
    return judge(name, "answered, or 503 with Retry-After within 29 s; never a wrong answer", text, wrong)


def first(caller: Caller) -> str:
    """The status of the first answer: of those before the store was healed."""
    return next(iter(caller.seen))


def stay_warm(fault: str) -> Row:
    """Ask a warm environment for a while as the alias goes stale, with the fault on everything."""
    with open_server() as (server, registry):
        caller, server.late_s = Caller(server), 5.0
        caller.ask()
        server.fail(fault, "models/")
        for _ in range(50):
            caller.ask()
            time.sleep(0.01)
        answers = dict(caller.seen)
        server.heal()
        registry.move_alias("double", "champion", 2, actor="a", reason="b")
        ends = time.monotonic() + 40
        while caller.ask() != "2" and time.monotonic() < ends:
            time.sleep(0.05)
        wrong = caller.wrong + ([] if caller.ask() == "2" else ["it does not follow the alias after it is healed"])
        wrong += [] if set(answers) == {"200"} else [str(answers)]
    return judge(
        f"{fault} for all requests, warm", "every request answered by the version at hand", str(answers), wrong
    )


def read_stale() -> Row:
    """Serve version 2, then read the alias as it was before; and write from a stale read."""
    with open_server() as (server, registry):
        server.fail("stale", alias_path("double", "champion"))
        registry.move_alias("double", "champion", 2, actor="a", reason="b")
        server.heal()
        caller = Caller(server)
        before = server.before
        versions = [caller.ask()]
        server.fail("stale", alias_path("double", "champion"))
        server.before = before
        for _ in range(30):
            time.sleep(0.01)
            versions.append(caller.ask())
        said = attempt(
            lambda: registry.move_alias("double", "champion", 1, actor="late", reason="from a stale read"),
            ConflictError,
        )
        server.heal()
        wrong = caller.wrong + find_wrong_history(registry) + ([] if said else ["a stale write went through"])
        wrong += [] if set(versions) == {"2"} else [f"versions {versions}"]
    seen = f"{len(versions)} answers, all by version 2; the write: {said.rsplit('/', 1)[-1]}"
    return judge(
        "stale reads of the alias", "no step back to the version before; a stale write is a conflict", seen, wrong
    )


def write(times: int, fault: str) -> Row:
    """Publish and move through a store that fails three of ten requests."""
    with open_server() as (server, registry):
        outcomes: Counter[str] = Counter()
        server.fail(fault, "models/", 0.3)
        for number in range(times):
            for action in (
                lambda: fakes.publish(registry),
                lambda number=number: registry.move_alias("double", "champion", 1 + number % 2, actor="a", reason="b"),
            ):
                try:
                    action()
                    outcomes["done"] += 1
                except (ConflictError, StoreError, UnavailableError) as exc:
                    outcomes[type(exc).__name__] += 1
        failures = server.failures
        server.heal()
        wrong = find_half_versions(registry, "double") + find_wrong_history(registry)
        registry.move_alias("double", "champion", 2, actor="after", reason="it still moves")
    name = {"slow_down": "SlowDown for 3 of 10", "truncated": "3 of 10 answers lost or in part"}[fault]
    promised = "done, or an error; no half version, the history whole"
    return judge(f"{name}, publish and promote", promised, f"{failures} faults, {dict(outcomes)}", wrong)


def back_off() -> Row:
    """The pauses between the attempts at one read that always fails."""
    with open_server() as (server, registry):
        pauses = []
        for _ in range(3):
            server.fail("slow_down", "aliases/")
            server.asked_at.clear()
            attempt(lambda: registry.load_alias("double", "champion"), StoreError)
            pauses.append([round(after - before, 2) for before, after in pairwise(server.asked_at)])
    wrong = [] if len({tuple(each) for each in pauses}) == len(pauses) else ["the pauses are equal each time"]
    wrong += [] if all(each[-1] > each[0] for each in pauses) else ["the pauses do not grow"]
    return judge("retries", "they back off, with jitter", f"pauses in s: {pauses}", wrong)
