"""Models that can be served pass; each way in which they cannot is found."""

from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs

from pilotlight.contracts.manifest import ManifestDraft, OptimizedGraph, Variant
from pilotlight.doctor.finding import CheckResult, run_check
from pilotlight.doctor.models import ModelChecks
from pilotlight.registry import alias_updates
from pilotlight.registry.registry import Registry, alias_path, version_path
from pilotlight.runtime.model_files import RUNTIME
from tests import fakes


def examined(registry: Registry, *, deep: bool = False) -> tuple[dict[str, CheckResult], list[str]]:
    progress: list[str] = []
    found = {one.check: one for one in map(run_check, ModelChecks(registry, progress.append, deep=deep).list_checks())}
    return found, progress


def prepared(runtime: str) -> ManifestDraft:
    """A version with a graph that was optimised ahead, by some build."""
    variant = Variant("model.onnx", prepared=OptimizedGraph(runtime, "model.prepared.onnx", ()))
    return structs.replace(fakes.draft("ready"), variants={"fp32": variant})


def publish_prepared(registry: Registry, runtime: str) -> None:
    graph = fakes.graph("double")
    registry.publish_version(prepared(runtime), {"model.onnx": graph, "model.prepared.onnx": graph})


def test_healthy_models_pass(registry: Registry) -> None:
    fakes.publish_digits(registry)
    publish_prepared(registry, RUNTIME)
    found, progress = examined(registry, deep=True)
    assert {one.state for one in found.values()} == {"passes"}, found
    assert "by size and sha256" in found["files"].said
    assert found["prepared graphs"].said == "1 of 2 served graphs are prepared, all for this onnxruntime."
    assert progress == ["digits:1, 3 files", "ready:1, 2 files"]


def test_no_models_are_nothing_to_check(registry: Registry) -> None:
    found, _ = examined(registry)
    assert {one.state for one in found.values()} == {"not checked"}
    assert "pilotlight train digits" in found["champions"].said


def no_champion(registry: Registry) -> None:
    registry.store.delete(alias_path("double", "champion"))


def dangling(registry: Registry) -> None:
    registry.update_alias("double", "champion", lambda document: alias_updates.point_to(document, 7, "test", "test"))


def lost(registry: Registry) -> None:
    registry.store.delete(version_path("double", 1, "model.onnx"))


def shorter(registry: Registry) -> None:
    registry.store.put(version_path("double", 1, "model.onnx"), b"short")


def bent(registry: Registry) -> None:
    path = version_path("double", 1, "model.onnx")
    registry.store.put(path, registry.store.get(path).data[::-1])


def outdated(registry: Registry) -> None:
    publish_prepared(registry, "onnxruntime 1.2.3 x86_64")


@pytest.mark.parametrize(
    ("spoil", "check", "words"),
    [
        (no_champion, "champions", "double have no champion; `pilotlight promote double`"),
        (dangling, "aliases", "There is no double:7, and the alias 'champion' points to it"),
        (lost, "files", "1 of 1 files are not as published: models/double/versions/1/model.onnx: There is nothing"),
        (shorter, "files", "has 5 bytes, not"),
        (bent, "files", "with sha256"),
        (outdated, "prepared graphs", "ready:1 for onnxruntime 1.2.3 x86_64"),
    ],
)
def test_what_is_wrong_is_found(registry: Registry, spoil: Callable[[Registry], None], check: str, words: str) -> None:
    fakes.publish(registry)
    spoil(registry)
    found, _ = examined(registry, deep=True)
    assert {name for name, one in found.items() if one.state == "fails"} == {check}
    assert words in found[check].said


def test_only_a_deep_look_hashes(registry: Registry) -> None:
    fakes.publish(registry)
    bent(registry)
    found, _ = examined(registry)
    assert (found["files"].state, "--deep" in found["files"].said) == ("passes", True)


def test_a_champion_out_of_service_is_told(registry: Registry) -> None:
    fakes.publish(registry)
    registry.suspend_alias("double", "champion", actor="test", reason="test")
    assert examined(registry)[0]["champions"].said == "All 1 models have one. Out of service on purpose: double."


def test_a_graph_prepared_for_another_machine_is_not_outdated(registry: Registry, tmp_path: Path) -> None:
    publish_prepared(registry, RUNTIME.rsplit(" ", 1)[0] + " vax")
    assert examined(registry)[0]["prepared graphs"].state == "passes"
