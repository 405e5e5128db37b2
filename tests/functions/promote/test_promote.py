"""What follows an event: a published version is judged, a failing canary taken back, one that held becomes champion."""

import base64
import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from functions.promote.events import CanaryFailed, ScheduleTick, VersionPublished, parse_events
from functions.promote.policy import PromotionPolicy
from functions.promote.promoter import Promoter
from pilotlight.contracts.alias import Canary
from pilotlight.errors import InvalidInputError
from pilotlight.gate.evaluation import QualityGate
from pilotlight.gate.verdict import verdict_path
from pilotlight.registry import alias_updates
from pilotlight.registry.registry import Registry, alias_path, signature_path, version_path
from pilotlight.storage.object_store import ObjectStore, open_store
from tests import fakes

PAST, FUTURE = ((datetime.now(UTC) + timedelta(hours=hours)).isoformat() for hours in (-1, 1))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    found = Registry(open_store((tmp_path / "store").as_uri()))
    for _ in range(2):
        fakes.publish(found)
    return found


def duties(registry: Registry, policy: str = "off") -> Promoter:
    return Promoter(QualityGate(registry, 1769), PromotionPolicy.parse(policy))


def created(key: str) -> dict[str, Any]:
    return {"detail-type": "Object Created", "source": "aws.s3", "detail": {"object": {"key": key}}}


def logs(*lines: dict[str, Any]) -> dict[str, Any]:
    batch = {"messageType": "DATA_MESSAGE", "logEvents": [{"message": json.dumps(line)} for line in lines]}
    return {"awslogs": {"data": base64.b64encode(gzip.compress(json.dumps(batch).encode())).decode()}}


def trying(registry: Registry, until: str) -> None:
    registry.update_alias(
        "double", "champion", lambda old: alias_updates.start_canary(old, Canary(2, until), 1000, "ann", "try")
    )


def test_a_manifest_below_any_prefix_is_a_published_version() -> None:
    assert list(parse_events(created("some/prefix/models/digits/versions/12/manifest.json"))) == [
        VersionPublished("digits", 12)
    ]
    assert list(parse_events(created("models/digits/versions/12/model.onnx"))) == []


def test_lines_of_the_log_and_the_clock_are_understood() -> None:
    line = {
        "model": "digits",
        "alias": "champion",
        "version": 2,
        "why": "3 of 60 failed",
        "CanaryStopped": 1,
        "kind": "failures",
        "e_value": 400_000.0,
        "_aws": {},
    }
    assert list(parse_events(logs(line, line))) == [CanaryFailed("digits", "champion", 2, "3 of 60 failed")] * 2
    assert list(parse_events({"detail-type": "Scheduled Event"})) == [ScheduleTick()]


def test_an_event_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"'EC2 Instance' is none of Object Created"):
        list(parse_events({"detail-type": "EC2 Instance"}))


@pytest.mark.parametrize("text", ["on", "canary:10", "canary:100:1h", "canary:10:soon", "canary:0:1h"])
def test_a_wrong_policy_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        PromotionPolicy.parse(text)


def test_by_default_a_passed_version_waits_for_a_person(registry: Registry) -> None:
    assert list(duties(registry).handle(VersionPublished("double", 2))) == ["double:2 passed the gate."]
    assert registry.load_alias("double", "champion").version == 1
    assert json.loads(registry.store.get(verdict_path("double", 2)).data)["passed"] is True


def test_aliases_that_the_trainer_could_not_write_are_the_promoters(registry: Registry) -> None:
    for alias in ("candidate", "champion"):
        registry.store.delete(alias_path("double", alias))
    (said,) = duties(registry).handle(VersionPublished("double", 1))
    assert said == "double:1 is the first version, and champion already."
    assert registry.load_alias("double", "champion").version == registry.load_alias("double", "candidate").version == 1


def test_a_policy_makes_it_champion(registry: Registry) -> None:
    assert list(duties(registry, "champion").handle(VersionPublished("double", 2))) == ["double:2 is champion now."]
    assert registry.load_alias("double", "champion").version == 2


def test_a_policy_tries_it_first(registry: Registry) -> None:
    list(duties(registry, "canary:10:1h").handle(VersionPublished("double", 2)))
    document = registry.load_alias("double", "champion")
    assert (document.version, document.shares[0].version, document.shares[0].weight) == (1, 2, 1000)


def test_a_refused_version_is_moved_by_no_policy(registry: Registry) -> None:
    registry.store.put(version_path("double", 2, "model.onnx"), b"no graph")
    (said,) = duties(registry, "champion").handle(VersionPublished("double", 2))
    assert said.startswith("double:2 is refused. It does not open:")
    assert registry.load_alias("double", "champion").version == 1


def test_a_stopped_canary_is_rolled_back_once(registry: Registry) -> None:
    trying(registry, FUTURE)
    stopped = CanaryFailed("double", "champion", 2, "3 of 60 requests failed")
    said = [sentence for _ in range(2) for sentence in duties(registry).handle(stopped)]
    assert said[0] == "The canary double:2 was rolled back: 3 of 60 requests failed"
    assert said[1].startswith("The canary double:2 was left as it is")
    document = registry.load_alias("double", "champion")
    assert (document.version, document.shares, document.number) == (1, (), 3)
    assert document.reason == "canary 2 failed: 3 of 60 requests failed"


def test_a_late_line_about_an_earlier_trial_does_not_end_the_next_one(registry: Registry) -> None:
    trying(registry, FUTURE)
    late = CanaryFailed("double", "champion", 2, "3 of 60 requests failed", until=PAST)
    (said,) = duties(registry).handle(late)
    assert said.startswith("The canary double:2 was left as it is")
    assert registry.load_alias("double", "champion").canary is not None
    (said,) = duties(registry).handle(replace(late, until=FUTURE))
    assert said == "The canary double:2 was rolled back: 3 of 60 requests failed"


def test_a_canary_becomes_champion_when_its_time_is_over_and_not_before(registry: Registry) -> None:
    trying(registry, FUTURE)
    assert list(duties(registry).handle(ScheduleTick())) == []
    trying(registry, PAST)
    (said,) = duties(registry).handle(ScheduleTick())
    assert said.startswith("double@champion is version 2: its canary held until")
    document = registry.load_alias("double", "champion")
    assert (document.version, document.previous, document.canary) == (2, 1, None)


class ListedStore(ObjectStore):
    """A store that remembers what was listed; S3 charges a listing as a write, twelve times a read."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner.url, inner._store)
        self.listed: list[str] = []

    def list_paths(self, prefix: str) -> Iterator[str]:
        self.listed.append(prefix)
        return super().list_paths(prefix)

    def list_folders(self, prefix: str) -> list[str]:
        self.listed.append(prefix)
        return super().list_folders(prefix)


def test_the_clock_lists_the_store_once_however_many_models_there_are(registry: Registry) -> None:
    """The schedule ticks 8,760 times a month, so each listing of a tick costs 4 cents."""
    for name in ("one", "two", "three"):
        fakes.publish(registry, name=name)
    store = ListedStore(registry.store)
    trying(registry, FUTURE)
    assert list(duties(Registry(store)).handle(ScheduleTick())) == []
    assert store.listed == ["models"]


def test_a_canary_that_the_gate_refuses_in_the_end_is_ended(registry: Registry) -> None:
    trying(registry, PAST)
    registry.store.put(version_path("double", 2, "model.onnx"), b"no graph")
    (said,) = duties(registry).handle(ScheduleTick())
    assert said.startswith("double@champion stays: canary 2 held, but the gate refuses it: It does not open")
    assert registry.load_alias("double", "champion").shares == ()


def test_an_errand_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="The event is no errand"):
        list(parse_events({"errand": {"model": "digits"}}))


class Notary:
    """Signs, and remembers how often."""

    key = "alias/notary"

    def __init__(self) -> None:
        self.signed = 0

    def sign(self, message: bytes) -> bytes:
        self.signed += 1
        return b"signature"


@pytest.mark.parametrize(("version", "policy"), [(1, "off"), (2, "off"), (2, "champion")])
def test_what_passes_is_signed_once_the_first_version_too(registry: Registry, version: int, policy: str) -> None:
    notary = Notary()
    found = Promoter(QualityGate(registry, 1769), PromotionPolicy.parse(policy), notary)
    list(found.handle(VersionPublished("double", version)))
    assert notary.signed == 1
    assert registry.store.get(signature_path("double", version)).data


def test_what_does_not_pass_is_not_signed(registry: Registry) -> None:
    notary = Notary()
    registry.store.put(version_path("double", 1, "model.onnx"), b"no graph")
    (said,) = Promoter(QualityGate(registry, 1769), PromotionPolicy.parse("off"), notary).handle(
        VersionPublished("double", 1)
    )
    assert "It is not signed, so not served: It does not open" in said
    assert notary.signed == 0
