"""What a caller sees of a store that fails: every fault, cold, warm, and while the next version comes in.

Never a wrong answer, and right answers again once the store is well. `pytest -s` shows the table.
"""

import json
import re
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest

from functions.predict.handler import build_predict_handler
from pilotlight.contracts.alias import AliasDocument
from pilotlight.contracts.codec import encode_document, format_utc_now
from pilotlight.registry.registry import Registry, alias_path
from pilotlight.runtime import model_loader
from pilotlight.settings import Settings
from pilotlight.storage import object_store
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.faulty_s3 import FaultyS3, serving
from tests.functions.predict.test_handler import ROW, event, infer
from tests.functions.predict.test_overload import Context

REQUEST = event("POST", "/v2/models/double/infer", json.dumps(infer(ROW)).encode())
RIGHT = {"1": [2, 4, 6], "2": [1, 4, 9]}  # by version
WAIT_S = 15.0  # an upper bound for what should take a moment
ALIAS_S = 0.02
GRAPH, EVERYTHING = "model.onnx", ""
OLD = "1 answers"

# What the caller sees: who answers, or the status and the sentence.
CELLS = {
    (
        "timeout",
        "cold",
    ): r"503 The store (has not said yet what double@champion is; try again\.|failed at .*)",
    ("500", "cold"): r"503 The store failed at .*: .*500.*",
    ("403", "cold"): r"503 The store failed at .*: .*403.*",
    ("truncated", "cold"): r"503 The store failed at .*model\.onnx: .*",
    ("flipped", "cold"): r"503 double:1 is refused: model\.onnx holds 86 bytes with sha256 .*, not the manifest's .*",
    ("drip", "cold"): r"503 double:1 is being opened, for \d+ s so far; try again in \d+ s\.",
    ("missing", "cold"): r"404 Model 'double' has no version 9; it has 1, 2, champion\.",
    **{(fault, "warm"): "1 answers" for fault in ("timeout", "500", "403", "truncated", "flipped", "drip", "missing")},
    **{(fault, "swap"): "1 answers" for fault in ("timeout", "500", "403", "truncated", "flipped", "drip", "missing")},
}
WHERE = {"truncated": GRAPH, "flipped": GRAPH, "drip": GRAPH}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setattr(object_store, "TIMEOUTS", {"read_timeout": timedelta(seconds=0.3)})
    monkeypatch.setattr(object_store, "RETRIES", {"max_retries": 1, "retry_timeout": timedelta(seconds=1)})
    monkeypatch.setattr(model_loader, "REFUSED_SECONDS", 0.1)
    with serving() as server:
        yield server


class Caller:
    """A function over the server, and what its answers are to whoever calls it."""

    def __init__(self, server: FaultyS3) -> None:
        self.handle = build_predict_handler(Settings(store=server.url, alias_seconds=ALIAS_S))

    def sees(self) -> str:
        """The answer in words; a wrong one ends the test."""
        answer = self.handle(REQUEST, Context(1.6))
        body = json.loads(answer["body"])
        if answer["statusCode"] != 200:
            return f"{answer['statusCode']} {body['error']}"
        version = body["model_version"]
        assert body["outputs"][0]["data"] == RIGHT[version]
        assert answer["headers"]["x-pilotlight-version"] == version
        return f"{version} answers"

    def comes_to(self, wanted: str) -> None:
        """Ask until that is the answer."""
        ends = time.monotonic() + WAIT_S
        while self.sees() != wanted:
            assert time.monotonic() < ends, f"still not {wanted!r} after {WAIT_S} s"
            time.sleep(0.02)


def published(server: FaultyS3) -> Registry:
    """Two versions, of which the first is champion."""
    registry = Registry(open_store("memory://"))
    fakes.publish(registry)
    fakes.publish(registry, of="square")
    registry.store.delete(alias_path("double", "candidate"))
    server.copy(registry.store)
    return registry


def point(server: FaultyS3, version: int) -> None:
    """Move the alias."""
    server.objects[alias_path("double", "champion")] = encode_document(
        AliasDocument(version, None, "test", format_utc_now(), "test")
    )


@pytest.mark.parametrize(("fault", "phase"), CELLS)
def test_faults_of_the_store(server: FaultyS3, fault: str, phase: str) -> None:
    published(server)
    caller = Caller(server)
    if phase != "cold":
        assert caller.sees() == OLD
    seen = begin(server, caller, fault, phase)
    time.sleep(2 * ALIAS_S)
    seen += [caller.sees() for _ in range(3)]
    print(f"\n{fault:10s} {phase:5s} {seen[-1]}")  # noqa: T201 - the table
    assert all(re.fullmatch(CELLS[fault, phase], each) for each in seen), seen
    server.heal()
    point(server, 2)
    caller.comes_to("2 answers")


def begin(server: FaultyS3, caller: Caller, fault: str, phase: str) -> list[str]:
    """Bring the fault about; gives what was answered until it was there."""
    seen: list[str] = []
    if phase == "swap":  # an alias that goes nowhere comes while the version before is still on its way
        server.fail("drip" if fault == "missing" else fault, "versions/2/")
        point(server, 2)
        ends = time.monotonic() + WAIT_S
        while not server.failures:
            assert time.monotonic() < ends, "the swap has not begun"
            seen.append(caller.sees())
            time.sleep(0.01)
    elif fault != "missing":
        server.fail(fault, WHERE.get(fault, EVERYTHING) if phase == "cold" else EVERYTHING)
    if fault == "missing":
        point(server, 9)
    return seen
