"""A share of the callers meets another version, and nobody is failed for it."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from pilotlight.contracts.alias import AliasDocument, Canary, TrafficShare
from pilotlight.contracts.names import ModelReference
from pilotlight.errors import InvalidInputError
from pilotlight.registry import alias_updates
from pilotlight.registry.registry import Registry
from pilotlight.runtime.model_cache import LoadedModel, ModelCache
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.runtime.traffic import InferenceResult, TrafficRouter, describe_differences
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
        self.experiments = TrafficRouter(self.catalog)

    def change(self, of: Callable[[AliasDocument], AliasDocument]) -> None:
        """Change the alias, and let this environment see it and open what it names."""
        self.registry.update_alias("double", "champion", of)
        for caller in range(40):
            self.call(str(caller))
            self.catalog.wait_for_background()

    def call(self, caller: str) -> int:
        """The version that answers."""

        def own() -> LoadedModel:
            return self.catalog.get_model(CHAMPION)

        return self.experiments.route_request(CHAMPION, caller, own, self.ask, self.ask).body

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
        told = rig.experiments.route_request(
            CHAMPION, str(caller), lambda: rig.catalog.get_model(CHAMPION), missing, missing
        )
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
            rig.experiments.route_request(CHAMPION, str(caller), lambda: rig.catalog.get_model(CHAMPION), wrong, wrong)
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
