"""A share of the callers meets another version, and nobody is failed for it."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random

import numpy as np
import pytest
from msgspec.structs import replace

from pilotlight.contracts.alias import TOTAL_WEIGHT, AliasDocument, Canary, TrafficShare
from pilotlight.contracts.names import ModelReference
from pilotlight.errors import InvalidInputError, NotFoundError, StoreError
from pilotlight.registry import alias_updates
from pilotlight.registry.registry import Registry
from pilotlight.runtime.model_cache import LoadedModel, ModelCache
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.runtime.traffic import InferenceResult, RoutedRequest, TrafficRouter, describe_differences, draw_slot
from pilotlight.runtime.trial_callers import TrialCaller
from pilotlight.storage.object_store import open_store
from tests import fakes

CHAMPION = ModelReference("double")
CANARY = Canary(2, "2100-01-01T00:00:00+00:00")
ROW = {"x": np.array([[1, 2, 3]], np.float32)}


@dataclass
class Rig:
    """Two versions, of which the second can be made to fail."""

    registry: Registry = field(default_factory=lambda: Registry(open_store("memory://")))
    broken: bool = False
    nan: bool = False

    def __post_init__(self) -> None:
        fakes.publish(self.registry, of="double")
        fakes.publish(self.registry, of="square")
        self.catalog = ModelManager(self.registry, ModelCache(10**6), memory_mb=1769, alias_seconds=0)
        draw = partial(Random(7).randrange, TOTAL_WEIGHT)  # noqa: S311 - the same slots in each run
        self.experiments = TrafficRouter(self.catalog, draw=draw)

    def change(self, of: Callable[[AliasDocument], AliasDocument]) -> None:
        """Change the alias, and let this environment see it and open what it names."""
        self.registry.update_alias("double", "champion", lambda old: fakes.with_fixed_salt(of(old)))
        for caller in range(40):
            self.call(str(caller))
            self.catalog.wait_for_background()

    def call(self, caller: str | TrialCaller) -> int:
        """The version that answers; a name stands for an authenticated caller of the stack's own and his user."""
        return self.run(caller, self.ask).body

    def run(
        self, caller: str | TrialCaller, ask: Callable[[LoadedModel], InferenceResult[int]]
    ) -> InferenceResult[int]:
        """What the router answers."""
        who = TrialCaller(identity="backend", user=caller) if isinstance(caller, str) else caller
        own = partial(self.catalog.get_model, CHAMPION)
        return self.experiments.route_request(RoutedRequest(CHAMPION, lambda: who, own, ask, ask, ask))

    def ask(self, model: LoadedModel) -> InferenceResult[int]:
        version = model.manifest.version
        if version == 2 and self.broken:
            raise RuntimeError("no more")
        outputs = model.session.run(ROW)
        if version == 2 and self.nan:
            outputs = {"y": np.full((1, 3), np.nan, np.float32)}
        return InferenceResult(version, outputs)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def stopped(printed: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    return [line for line in lines if "CanaryStopped" in line]


def test_without_shares_everybody_meets_the_champion(rig: Rig) -> None:
    assert {rig.call(str(caller)) for caller in range(50)} == {1}


def test_shares_are_kept_and_callers_stay_where_they_are(rig: Rig) -> None:
    rig.change(lambda old: alias_updates.set_traffic_split(old, (TrafficShare(2, 2500),), "ann", "try"))
    met = {str(caller): rig.call(str(caller)) for caller in range(2000)}
    assert 420 < Counter(met.values())[2] < 580
    assert all(rig.call(caller) == version for caller, version in list(met.items())[:200])


@pytest.mark.parametrize(
    "change",
    [
        lambda old: alias_updates.start_canary(old, CANARY, 3000, "ann", "try"),
        lambda old: alias_updates.set_traffic_split(old, (TrafficShare(2, 3000),), "ann", "try"),
    ],
)
def test_a_header_of_somebody_unknown_chooses_no_side(
    rig: Rig, change: Callable[[AliasDocument], AliasDocument]
) -> None:
    """Chi-square with one degree of freedom: 10.83 is exceeded by one series of draws in a thousand."""
    rig.change(change)
    met = Counter(rig.call(TrialCaller(address="192.0.2.1", user="the same")) for _ in range(1000))
    assert (met[2] - 300) ** 2 / 300 + (met[1] - 700) ** 2 / 700 < 10.83


def test_slots_are_drawn_evenly() -> None:
    """Chi-square with nine degrees of freedom: 60 is exceeded by chance once in 700 million times."""
    drawn = Counter(draw_slot() * 10 // TOTAL_WEIGHT for _ in range(10_000))
    assert sum((drawn[tenth] - 1000) ** 2 / 1000 for tenth in range(10)) < 60


def test_nobody_is_kept_on_a_side_of_a_canary(rig: Rig) -> None:
    """Who knew his side could send it what takes long, and one backend would be all or nothing."""
    rig.change(lambda old: alias_updates.start_canary(old, CANARY, 5000, "ann", "try"))
    assert {rig.call("the same") for _ in range(100)} == {1, 2}


def test_an_authenticated_caller_is_kept_in_a_split_only_by_naming_a_user(rig: Rig) -> None:
    rig.change(lambda old: alias_updates.set_traffic_split(old, (TrafficShare(2, 5000),), "ann", "try"))
    assert {rig.call(TrialCaller(identity="backend")) for _ in range(100)} == {1, 2}
    assert {len({rig.call(TrialCaller(identity=one, user="u")) for _ in range(20)}) for one in "abcdefgh"} == {1}


def test_a_split_of_before_salts_keeps_nobody_and_keeps_its_shares(rig: Rig) -> None:
    rig.change(
        lambda old: replace(alias_updates.set_traffic_split(old, (TrafficShare(2, 5000),), "ann", "try"), split_salt="")
    )
    assert {rig.call("the same") for _ in range(100)} == {1, 2}


def test_few_unknown_callers_raise_a_suspicion_and_more_of_them_stop_it(
    rig: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    rig.change(lambda old: alias_updates.start_canary(old, CANARY, 5000, "ann", "try"))
    rig.broken = True
    assert {rig.call(TrialCaller(address=f"192.0.2.{number % 3}")) for number in range(300)} == {1}
    printed = capsys.readouterr().out
    assert stopped(printed) == []
    (line,) = [json.loads(line) for line in printed.splitlines() if "CanarySuspected" in line]
    assert (line["kind"], line["callers"], line["version"]) == ("failures", 4, 2)  # with him who had it opened
    assert {rig.call(TrialCaller(address=f"192.0.2.{number % 10}")) for number in range(300)} == {1}
    (line,) = stopped(capsys.readouterr().out)
    assert (line["kind"], line["alpha"]) == ("failures", 1e-5)
    assert float(str(line["e_value"])) >= 3e5


@pytest.mark.parametrize("error", [StoreError("SlowDown"), NotFoundError("no such upload")])
def test_what_the_store_lacked_for_a_moment_is_no_failure_of_the_canary(
    rig: Rig, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    rig.change(lambda old: alias_updates.start_canary(old, CANARY, 5000, "ann", "try"))

    def ask(model: LoadedModel) -> InferenceResult[int]:
        if model.manifest.version == 2:
            raise error
        return rig.ask(model)

    assert {rig.run("backend", ask).body for _ in range(300)} == {1}
    assert "Canary" not in capsys.readouterr().out
    assert 2 in {rig.call("backend") for _ in range(100)}


def test_a_canary_that_breaks_fails_nobody_and_is_stopped_once(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    rig.change(lambda old: alias_updates.start_canary(old, CANARY, 5000, "ann", "try"))
    assert {rig.call(str(caller)) for caller in range(100)} == {1, 2}
    rig.broken = True
    assert {rig.call(str(caller)) for caller in range(100)} == {1}
    (line,) = stopped(capsys.readouterr().out)
    assert (line["model"], line["alias"], line["version"]) == ("double", "champion", 2)
    assert str(line["why"]).endswith("are let through: RuntimeError: no more")
    rig.broken = False
    assert {rig.call(str(caller)) for caller in range(100)} == {1}, "stopped is stopped"


def test_answers_that_are_no_numbers_go_to_nobody(rig: Rig) -> None:
    rig.change(lambda old: alias_updates.start_canary(old, CANARY, 5000, "ann", "try"))
    rig.nan = True
    assert {rig.call(str(caller)) for caller in range(100)} == {1}


def test_a_caller_whose_numbers_are_none_stops_no_canary(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    """NaN in, NaN out: of the champion too, so that it says nothing of the canary."""
    rig.change(lambda old: alias_updates.start_canary(old, CANARY, 5000, "ann", "try"))

    def missing(model: LoadedModel) -> InferenceResult[int]:
        return InferenceResult(model.manifest.version, model.session.run({"x": np.array([[np.nan, 2, 3]], np.float32)}))

    for caller in range(50):
        told = rig.run(str(caller), missing)
        assert np.isnan(told.outputs["y"][0, 0])
    assert stopped(capsys.readouterr().out) == []
    assert 2 in {rig.call(str(caller)) for caller in range(100)}


def test_another_trial_begins_anew(rig: Rig) -> None:
    rig.change(lambda old: alias_updates.start_canary(old, CANARY, 5000, "ann", "try"))
    rig.broken = True
    assert {rig.call(str(caller)) for caller in range(100)} == {1}
    rig.broken = False
    rig.change(lambda old: alias_updates.start_canary(old, CANARY, 5000, "ann", "once more"))
    assert 2 in {rig.call(str(caller)) for caller in range(100)}


def test_a_canary_that_cannot_be_opened_is_stopped(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    rig.registry.store.put("models/double/versions/2/model.onnx", b"no graph")
    rig.change(lambda old: alias_updates.start_canary(old, CANARY, 5000, "ann", "try"))
    assert {rig.call(str(caller)) for caller in range(100)} == {1}
    (line,) = stopped(capsys.readouterr().out)
    assert "double:2 is refused" in str(line["why"])


def test_the_callers_own_fault_is_no_failure_of_the_canary(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    rig.change(lambda old: alias_updates.start_canary(old, CANARY, 5000, "ann", "try"))

    def wrong(model: LoadedModel) -> InferenceResult[int]:
        raise InvalidInputError("it is no request")

    for caller in range(50):
        with pytest.raises(InvalidInputError):
            rig.run(str(caller), wrong)
    assert stopped(capsys.readouterr().out) == []
    assert 2 in {rig.call(str(caller)) for caller in range(100)}


def test_a_shadow_answers_nobody_and_its_differences_are_noted(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    rig.change(lambda old: alias_updates.set_shadow(old, TrafficShare(2, 9999), "ann", "look"))
    rig.experiments._shadow.wait_until_idle()
    capsys.readouterr()
    assert {rig.call(str(caller)) for caller in range(5)} == {1}
    rig.experiments._shadow.wait_until_idle()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [line["differences"] for line in lines if "ShadowDiffered" in line] == [{"y": "up to 3 apart"}] * 5


def test_a_shadow_that_fails_harms_nobody(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    rig.broken = True
    rig.change(lambda old: alias_updates.set_shadow(old, TrafficShare(2, 9999), "ann", "look"))
    assert rig.call("somebody") == 1
    rig.experiments._shadow.wait_until_idle()
    assert "RuntimeError: no more" in capsys.readouterr().out


def test_differences_are_told_by_output() -> None:
    one, two = np.array([1.0, 2.0]), np.array([1.0, 2.00001])
    labels = np.array([b"cat", b"dog"], object)
    assert describe_differences({"y": one}, {"y": two}) == {}
    assert describe_differences({"y": one}, {}) == {"y": "missing"}
    assert describe_differences({"y": one}, {"y": one[:1]}) == {"y": "shape [1], not [2]"}
    assert describe_differences({"y": labels}, {"y": labels[::-1]}) == {"y": "2 of 2 values differ"}
