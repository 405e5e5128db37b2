"""What a policy removes is what nobody needs, all of it, and nothing else."""

from datetime import UTC, datetime, timedelta

import pytest

from pilotlight.contracts.alias import TrafficShare
from pilotlight.contracts.names import ModelReference
from pilotlight.errors import ConflictError, InvalidInputError, NotFoundError
from pilotlight.registry import alias_updates, retention
from pilotlight.registry.registry import Registry, version_path
from pilotlight.storage.object_store import ObjectStore
from tests import fakes

LATER = datetime.now(UTC) + timedelta(days=2)


@pytest.fixture
def seven(store: ObjectStore) -> Registry:
    """Seven versions: 2 is champion, 1 was, 3 has a share, 4 a shadow, 7 is the candidate."""
    registry = Registry(store)
    for _ in range(7):
        fakes.publish(registry)
    registry.move_alias("double", "champion", 2, actor="ann", reason="better")
    registry.update_alias(
        "double", "champion", lambda old: alias_updates.set_traffic_split(old, (TrafficShare(3, 100),), "ann", "try")
    )
    registry.update_alias(
        "double", "champion", lambda old: alias_updates.set_shadow(old, TrafficShare(4, 100), "ann", "look")
    )
    return registry


def test_what_aliases_need_and_the_newest_stay(seven: Registry) -> None:
    plan = retention.plan_pruning(seven, "double", keep_latest=1)
    assert plan.versions == (5,)
    assert plan.kept_reasons == {
        1: "a rollback of the alias 'champion' would go back to it",
        2: "the alias 'champion' points to it",
        3: "the alias 'champion' sends it a part of its requests",
        4: "the alias 'champion' sends it a part of its requests",
        6: "a rollback of the alias 'candidate' would go back to it",
        7: "the alias 'candidate' points to it",
    }


def test_a_plan_changes_nothing_and_carrying_it_out_removes_what_it_names(seven: Registry) -> None:
    plan = retention.plan_pruning(seven, "double", keep_latest=1)
    assert seven.list_versions("double") == [1, 2, 3, 4, 5, 6, 7]
    retention.prune(seven, plan)
    assert seven.list_versions("double") == [1, 2, 3, 4, 6, 7]
    assert list(seven.store.list_paths("models/double/versions/5")) == ["models/double/versions/5/claim.json"]
    assert fakes.publish(seven).version == 8


def test_numbers_are_never_used_again(registry: Registry) -> None:
    for _ in range(3):
        fakes.publish(registry)
    registry.move_alias("double", "candidate", 1, actor="ann", reason="back")
    registry.move_alias("double", "candidate", 1, actor="ann", reason="and once more, so that 3 is not the one before")
    retention.delete_version(registry, "double", 3)
    assert fakes.publish(registry).version == 4


@pytest.mark.parametrize("version", [1, 2, 3, 4, 7])
def test_a_version_that_an_alias_needs_is_not_deleted(seven: Registry, version: int) -> None:
    with pytest.raises(ConflictError, match=f"double:{version} cannot be deleted: .*alias"):
        retention.delete_version(seven, "double", version)
    assert seven.load_manifest("double", version).version == version


def test_what_is_not_there_cannot_be_deleted(seven: Registry) -> None:
    with pytest.raises(NotFoundError, match="has no version 9"):
        retention.delete_version(seven, "double", 9)


def test_an_alias_that_is_moved_in_that_moment_wins(seven: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    deleted = seven.store.delete

    def move_then_delete(path: str) -> None:
        monkeypatch.undo()
        seven.move_alias("double", "champion", 5, actor="bob", reason="just now")
        deleted(path)

    monkeypatch.setattr(seven.store, "delete", move_then_delete)
    with pytest.raises(ConflictError, match="points to it"):
        retention.delete_version(seven, "double", 5)
    assert seven.load_manifest("double", seven.resolve_reference(ModelReference("double"))).version == 5


def test_files_of_uploads_that_died_go_after_a_day(seven: Registry) -> None:
    seven.store.put(version_path("double", 8, "claim.json"), b"{}")
    seven.store.put(version_path("double", 8, "model.onnx"), b"half of it")
    assert retention.plan_pruning(seven, "double", keep_latest=7).orphan_paths == ()
    plan = retention.plan_pruning(seven, "double", keep_latest=7, now=LATER)
    assert plan.orphan_paths == ("models/double/versions/8/model.onnx",)
    retention.prune(seven, plan)
    assert list(seven.store.list_paths("models/double/versions/8")) == ["models/double/versions/8/claim.json"]


def test_a_policy_that_keeps_nothing_is_refused(registry: Registry) -> None:
    with pytest.raises(InvalidInputError, match="would leave none to go back to"):
        retention.plan_pruning(registry, "double", keep_latest=0)
