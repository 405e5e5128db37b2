"""Clocks that jump a day ahead or back: nothing is lost, and what depends on the time goes on once it is right."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric import rsa

from functions.authorize import bearer
from functions.promote import promoter as promoter_module
from functions.promote.events import ScheduleTick
from functions.promote.policy import PromotionPolicy
from functions.promote.promoter import Promoter
from pilotlight.contracts import codec, durations
from pilotlight.contracts.alias import AliasDocument, Canary
from pilotlight.gate.evaluation import QualityGate
from pilotlight.registry import alias_updates, retention
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.functions.batch_api.conftest import Place
from tests.load.faults.kills import find_half_versions, find_wrong_history
from tests.load.faults.row import Row, judge

DAY_S = 86_400.0
REAL_TIME = time.time


@contextmanager
def shift_clock(seconds: float) -> Iterator[None]:
    """Let the wall clock be wrong by so many seconds; the monotonic one is right, as after a step by NTP."""

    shifted = make_datetime(seconds)
    with (
        patch("time.time", lambda: REAL_TIME() + seconds),
        patch.object(codec, "datetime", shifted),
        patch.object(durations, "datetime", shifted),
        patch.object(retention, "datetime", shifted),
        patch.object(promoter_module, "datetime", shifted),
    ):
        yield


def run(times: int) -> list[Row]:
    """Jump both ways."""
    del times
    jumps = ((DAY_S, "a day ahead"), (-DAY_S, "a day back"))
    return [kind(seconds, way) for seconds, way in jumps for kind in (move, bake, prune, batch, sign_in)]


@contextmanager
def open_registry() -> Iterator[Registry]:
    """A registry on disk, with three versions."""
    with TemporaryDirectory() as folder:
        registry = Registry(open_store(Path(folder, "store").as_uri()))
        for _ in range(3):
            fakes.publish(registry)
        yield registry


def move(seconds: float, way: str) -> Row:
    """Move an alias before, during and after the jump."""
    with open_registry() as registry:
        for shift, version in ((0.0, 2), (seconds, 3), (0.0, 1)):
            with shift_clock(shift):
                registry.move_alias("double", "champion", version, actor="clock", reason="move")
        rows = [row for row in registry.load_alias_history("double") if isinstance(row, AliasDocument)]
        wrong = find_wrong_history(registry)
        seen = f"versions {[row.version for row in rows]} by numbers {[row.number for row in rows]}"
        if [row.version for row in rows] != [1, 2, 3, 1]:
            wrong.append("another order")
    return judge(f"clock {way}, alias history", "the history's order is by number, whatever the times say", seen, wrong)


class OpenGate(QualityGate):
    """A gate through which everything goes, so that the clock alone decides."""

    def evaluate(self, name: str, version: int, alias: str, **options: Any) -> Any:  # noqa: ANN401 - the gate's
        verdict = super().evaluate(name, version, alias, **options)
        return msgspec.structs.replace(verdict, passed=True)


def bake(seconds: float, way: str) -> Row:
    """A canary of an hour: it ends by the wall clock, ahead too early and back not before the clock is right."""
    with open_registry() as registry:
        canary = Canary(2, alias_updates.compute_bake_end("1h"))
        registry.update_alias("double", "champion", lambda old: alias_updates.start_canary(old, canary, 500, "a", "b"))
        promoter = Promoter(OpenGate(registry, 1769), PromotionPolicy.parse("off"))
        with shift_clock(seconds), redirect_stdout(sys.stderr):  # where its metrics go
            list(promoter.handle(ScheduleTick()))
        during = registry.load_alias("double", "champion").version
        with shift_clock(3601), redirect_stdout(sys.stderr):
            list(promoter.handle(ScheduleTick()))
        after = registry.load_alias("double", "champion").version
        wrong = find_wrong_history(registry) + ([] if after == 2 else [f"version {after} serves after the hour"])
        if during != (2 if seconds > 0 else 1):
            wrong.append(f"version {during} serves while the clock is wrong")
    promised = "ahead, it ends at once by the gate; back, it ends when its time has come; never by itself unmeasured"
    return judge(f"clock {way}, canary", promised, f"version {during} while the clock is wrong, {after} after", wrong)


def prune(seconds: float, way: str) -> Row:
    """A pruning beside an upload."""
    with open_registry() as registry:
        commit, said = registry.commit_manifest, ""

        def prune_first(manifest: Any) -> None:  # noqa: ANN401 - a manifest
            with shift_clock(seconds + (1 if seconds > 0 else 0)):
                retention.prune(registry, retention.plan_pruning(registry, "double", 1))
            commit(manifest)

        with patch.object(registry, "commit_manifest", prune_first):
            said = said_by(lambda: fakes.publish(registry))
        wrong = find_half_versions(registry, "double")
        wrong += [] if bool(said) == (seconds > 0) else [f"the publisher is told {said!r}"]
        fakes.publish(registry)
        wrong += find_half_versions(registry, "double")
    seen = "the upload was taken for an old one; its publisher is told so" if said else "the upload goes through"
    return judge(f"clock {way}, prune beside an upload", "no version without its files is ever seen", seen, wrong)


def said_by(action: Callable[[], object]) -> str:
    """What an action fails with."""
    try:
        action()
    except Exception as exc:  # noqa: BLE001 - whatever it is, it is shown
        return str(exc)
    return ""


def batch(seconds: float, way: str) -> Row:
    """A batch of 24 hours that is requested, and answered under the wrong clock."""
    place, wrong = Place(open_store("memory://")), list[str]()
    tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
    line = {"custom_id": "a", "method": "POST", "url": "/v2/models/double/infer", "body": {"inputs": [tensor]}}
    asked = place.order(json.dumps(line).encode() + b"\n")
    with shift_clock(seconds + (1 if seconds > 0 else 0)):
        place.work()
    state = place.show(asked["id"])["status"]
    with shift_clock(seconds):
        late = place.order(json.dumps(line).encode() + b"\n")
    place.work()
    later = place.show(late["id"])["status"]
    ids = [row["id"] for row in place.ask("GET", "/v1/batches")[1]["data"]]
    if (state, later) != (("expired", "completed") if seconds > 0 else ("completed", "expired")):
        wrong.append(f"{state}, {later}")
    if sorted(ids) != sorted([asked["id"], late["id"]]):
        wrong.append("a batch is not listed")
    promised = "it expires by the wall clock, says so, and is listed; nothing is answered twice"
    return judge(f"clock {way}, batch of 24 h", promised, f"asked before the jump {state}, asked in it {later}", wrong)


def sign_in(seconds: float, way: str) -> Row:
    """A token of an hour at the authorizer, whose clock is wrong."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    now = int(REAL_TIME())
    claims = {"exp": now + 3600, "iat": now, "iss": "https://i", "aud": "a", "sub": "ann"}
    token, wrong = jwt.encode(claims, key, "RS256"), list[str]()
    answers = []
    for shift in (0.0, seconds, 0.0):
        with shift_clock(shift), patch("jwt.api_jwt.datetime", make_datetime(shift)):
            answers.append(said_by(lambda: decode(token, key.public_key())))
    if answers[0] or answers[2] or not answers[1]:
        wrong.append(str(answers))
    promised = "refused while the clock is wrong, taken again after it"
    return judge(f"clock {way}, JWT", promised, answers[1] or "taken", wrong)


def decode(token: str, key: rsa.RSAPublicKey) -> object:
    """Decode a token as the authorizer does."""
    options = bearer.JWT_OPTIONS
    return jwt.decode(token, key, ["RS256"], options, audience="a", issuer="https://i", leeway=bearer.LEEWAY_S)


def make_datetime(seconds: float) -> type[datetime]:
    """A datetime whose `now` is wrong."""

    class ShiftedDatetime(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]  # as `datetime.now` gives one
            return datetime.now(tz) + timedelta(seconds=seconds)

    return ShiftedDatetime
