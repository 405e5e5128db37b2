"""Publishing is all or nothing, also when many publish at once or one dies half-way."""

import multiprocessing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pilotlight.contracts.alias import AliasDocument
from pilotlight.contracts.codec import decode_document
from pilotlight.contracts.manifest import Manifest
from pilotlight.contracts.names import ModelReference
from pilotlight.contracts.version_files import describe_file
from pilotlight.errors import (
    AlreadyExistsError,
    ChangedError,
    ConflictError,
    DeniedError,
    InvalidInputError,
    NotFoundError,
    StoreError,
)
from pilotlight.registry import retention
from pilotlight.registry.registry import Registry, alias_path, version_path
from pilotlight.storage.object_store import ObjectStore, StoredObject, open_store
from tests import fakes
from tests.load import moves

MOVERS, MOVING_SECONDS = 3, 2.0  # `python -m tests.load moves` takes 16, and a minute


@pytest.fixture
def any_registry(store: ObjectStore) -> Registry:
    return Registry(store)


def test_published_versions_are_there(any_registry: Registry) -> None:
    first = fakes.publish(any_registry)
    second = fakes.publish(any_registry, of="square")
    assert (first.version, second.version) == (1, 2)
    assert any_registry.list_models() == ["double"]
    assert any_registry.list_versions("double") == [1, 2]
    assert any_registry.load_manifest("double", 2) == second
    assert any_registry.store.get(version_path("double", 2, "model.onnx")).data == fakes.graph("square")


def test_first_is_champion_newest_is_candidate(any_registry: Registry) -> None:
    for _ in range(3):
        fakes.publish(any_registry)
    assert any_registry.resolve_reference(ModelReference.parse("double")) == 1
    assert any_registry.resolve_reference(ModelReference.parse("double@candidate")) == 3
    assert any_registry.resolve_reference(ModelReference.parse("double:2")) == 2
    assert sorted(any_registry.load_aliases("double").documents) == ["candidate", "champion"]


def test_moving_remembers_where_from(any_registry: Registry) -> None:
    fakes.publish(any_registry)
    fakes.publish(any_registry)
    moved = any_registry.move_alias("double", "champion", 2, actor="ann", reason="better")
    assert (moved.version, moved.previous, moved.by, moved.reason) == (2, 1, "ann", "better")
    assert any_registry.load_alias("double", "champion") == moved
    assert any_registry.move_alias("double", "canary", 1, actor="ann", reason="new alias").previous is None


def test_suspending_keeps_where_the_alias_points(any_registry: Registry) -> None:
    fakes.publish(any_registry)
    suspended = any_registry.suspend_alias("double", "champion", actor="ann", reason="drifts")
    assert suspended.suspended is not None
    assert (suspended.version, suspended.suspended.by, suspended.suspended.reason) == (1, "ann", "drifts")
    assert any_registry.suspend_alias("double", "champion", actor="bob", reason="later") == suspended
    assert any_registry.load_alias("double", "champion") == suspended
    resumed = any_registry.resume_alias("double", "champion", actor="ann", reason="mended")
    assert resumed.suspended is None
    assert (
        any_registry.resume_alias("double", "champion", actor="ann", reason="mended")
        == resumed
        == any_registry.load_alias("double", "champion")
    )


def test_moving_a_suspended_alias_does_not_resume_it(registry: Registry) -> None:
    fakes.publish(registry)
    fakes.publish(registry)
    suspended = registry.suspend_alias("double", "champion", actor="ann", reason="drifts").suspended
    assert registry.move_alias("double", "champion", 2, actor="gate", reason="better").suspended == suspended


@pytest.mark.parametrize(("name", "alias"), [("nothing", "champion"), ("double", "staging")])
def test_only_what_is_there_can_be_suspended(registry: Registry, name: str, alias: str) -> None:
    fakes.publish(registry)
    with pytest.raises(NotFoundError):
        registry.suspend_alias(name, alias, actor="ann", reason="typo")
    with pytest.raises(NotFoundError):
        registry.resume_alias(name, alias, actor="ann", reason="typo")


def test_an_alias_document_of_before_suspension_reads() -> None:
    old = b'{"version": 1, "previous": null, "by": "ann", "at": "2026-11-01T00:00:00Z", "reason": "first version"}'
    assert decode_document(old, AliasDocument, "alias").suspended is None


def test_an_alias_never_points_to_nothing(registry: Registry) -> None:
    fakes.publish(registry)
    with pytest.raises(NotFoundError, match="has no version 7; it has 1, candidate, champion"):
        registry.move_alias("double", "champion", 7, actor="ann", reason="typo")
    assert registry.load_alias("double", "champion").version == 1


def test_a_late_publisher_does_not_move_the_candidate_back(registry: Registry) -> None:
    old = fakes.publish(registry)
    fakes.publish(registry)
    registry.assign_initial_aliases(old)
    assert registry.load_alias("double", "candidate").version == 2


def test_a_publisher_without_a_right_to_aliases_leaves_them_to_the_promoter(caplog: pytest.LogCaptureFixture) -> None:
    class Trainer(fakes.FaultyStore):
        """The trainer's rights: no alias, nor its history."""

        promotes = False

        def create(self, path: str, data: bytes) -> None:
            if ("/aliases/" in path or "/history/" in path) and not self.promotes:
                raise DeniedError("403")
            super().create(path, data)

    store = Trainer()
    published = fakes.publish(Registry(store))
    assert Registry(store).list_versions("double") == [1]
    assert Registry(store).load_aliases("double").documents == {}
    assert "double:1 is published; its aliases are the promoter's" in caplog.text
    store.promotes = True
    for _ in range(2):
        Registry(store).assign_initial_aliases(published)
    assert {name: alias.version for name, alias in Registry(store).load_aliases("double").documents.items()} == {
        "candidate": 1,
        "champion": 1,
    }


def test_a_publisher_overtaken_between_look_and_swap_does_not_move_the_candidate_back() -> None:
    class Overtaken(fakes.FaultyStore):
        """After the first look at the alias, a newer version's publisher is done with all of it."""

        waits = False

        def get(self, path: str) -> StoredObject:
            stored = super().get(path)
            if self.waits and path.endswith("candidate.json"):
                self.waits = False
                fakes.publish(Registry(self))
            return stored

    store = Overtaken()
    fakes.publish(Registry(store))
    store.waits = True
    late = fakes.publish(Registry(store))
    assert (late.version, Registry(store).load_alias("double", "candidate").version) == (2, 3)


@pytest.mark.parametrize(
    ("reference", "hint"),
    [
        ("nothing", "There is no model 'nothing'"),
        ("nothing@candidate", "There is no model 'nothing'"),
        ("double@staging", "no version or alias 'staging'; it has 1, candidate, champion"),
    ],
)
def test_what_is_not_there_says_what_is(registry: Registry, reference: str, hint: str) -> None:
    fakes.publish(registry)
    with pytest.raises(NotFoundError, match=hint):
        registry.resolve_reference(ModelReference.parse(reference))


def test_a_draft_that_names_a_missing_file_takes_no_number(registry: Registry) -> None:
    with pytest.raises(InvalidInputError, match="not among its files"):
        registry.publish_version(fakes.draft(), {"other.onnx": b""})
    assert list(registry.store.list_paths("models")) == []


class DyingStore(fakes.FaultyStore):
    """Writes up to a path that contains `last`, then fails at every write, as a killed publisher does."""

    def __init__(self, last: str) -> None:
        super().__init__()
        self._last = last

    def put(self, path: str, data: bytes | Path) -> None:
        self._die_at(path)
        super().put(path, data)

    def create(self, path: str, data: bytes) -> None:
        self._die_at(path)
        super().create(path, data)

    def _die_at(self, path: str) -> None:
        if self._last in path:
            raise StoreError(f"killed before {path}")


@pytest.mark.parametrize("last", ["claim.json", "model.onnx", "manifest.json"])
def test_a_publisher_that_dies_leaves_nothing_to_see(last: str) -> None:
    store = DyingStore(last)
    registry = Registry(store)
    with pytest.raises(StoreError):
        fakes.publish(registry)
    assert registry.list_models() == []
    store._last = "nowhere"
    survivor = fakes.publish(registry)
    assert registry.list_versions("double") == [survivor.version]
    assert registry.resolve_reference(ModelReference.parse("double")) == survivor.version


def test_a_lost_answer_to_the_commit_is_no_conflict() -> None:
    class Forgetful(fakes.FaultyStore):
        def create(self, path: str, data: bytes) -> None:
            super().create(path, data)
            if path.endswith("manifest.json"):
                super().create(path, data)  # the client library sends it again

    assert fakes.publish(Registry(Forgetful())).version == 1


def test_a_taken_manifest_is_a_conflict(registry: Registry) -> None:
    mine = fakes.publish(registry)
    with pytest.raises(AlreadyExistsError):
        registry.commit_manifest(
            decode_document(registry_bytes(registry, mine).replace(mine.nonce.encode(), b"0" * 32), Manifest, "x")
        )


def registry_bytes(registry: Registry, manifest: Manifest) -> bytes:
    return registry.store.get(version_path(manifest.name, manifest.version, "manifest.json")).data


def test_a_move_that_was_overtaken_is_refused(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        fakes.publish(registry)
    stale = registry.load_alias_with_e_tag("double", "champion")
    registry.move_alias("double", "champion", 2, actor="ann", reason="first")
    monkeypatch.setattr(registry, "load_alias_with_e_tag", lambda *_: stale)
    with pytest.raises(ChangedError):
        registry.move_alias("double", "champion", 1, actor="bob", reason="late")
    assert registry.store.get(alias_path("double", "champion")).data.count(b'"ann"') == 1


def test_files_are_described_alike_from_memory_and_disk(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"content")
    assert describe_file("x", tmp_path / "x") == describe_file("x", b"content")


def publish_often(url: str, worker: int, times: int, found: "multiprocessing.Queue[int]") -> None:
    registry = Registry(open_store(url))
    for turn in range(times):
        content = f"{worker}/{turn}".encode() * 1000
        found.put(registry.publish_version(fakes.draft(), {"model.onnx": content}).version)


SLOW_KINDS = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("bucket_url", "weak_bucket_url")]


@pytest.mark.parametrize("kind", ["disk", *SLOW_KINDS])
def test_eight_processes_publish_at_once(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = str(tmp_path / "store") if kind == "disk" else str(request.getfixturevalue(kind))
    context = multiprocessing.get_context("spawn")
    found: multiprocessing.Queue[int] = context.Queue()
    workers = [context.Process(target=publish_often, args=(url, number, 2, found)) for number in range(8)]
    for worker in workers:
        worker.start()
    versions = sorted(found.get(timeout=60) for _ in range(16))
    for worker in workers:
        worker.join()
    registry = Registry(open_store(url))
    assert versions == list(range(1, 17)) == registry.list_versions("double")
    if kind != "weak_bucket_url":  # there, the swap that loses may win
        assert registry.resolve_reference(ModelReference.parse("double@candidate")) == 16
    for manifest in (registry.load_manifest("double", version) for version in versions):
        stored = registry.store.get(version_path("double", manifest.version, "model.onnx")).data
        assert describe_file("model.onnx", stored) == manifest.graph_file


def test_a_rollback_is_one_swap_and_is_in_the_history(any_registry: Registry) -> None:
    fakes.publish(any_registry)
    fakes.publish(any_registry)
    any_registry.move_alias("double", "champion", 2, actor="ann", reason="better")
    any_registry.rollback_alias("double", actor="bob", reason="worse after all")
    past = any_registry.load_alias_history("double")
    documents = [row for row in past if isinstance(row, AliasDocument)]
    assert [(document.number, document.version, document.by) for document in documents] == [
        (1, 1, ""),
        (2, 2, "ann"),
        (3, 1, "bob"),
    ]
    assert past[-1] == any_registry.load_alias("double", "champion")


@pytest.mark.parametrize("kind", ["disk", "s3"])
def test_many_movers_leave_a_linear_history_in_which_no_change_is_lost(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = str(request.getfixturevalue("bucket_url")) if kind == "s3" else (tmp_path / "store").as_uri()
    found = moves.judge(url, MOVERS, MOVING_SECONDS)
    assert found["failures"] == []
    assert found["moves"] > 0


def test_an_upload_that_is_pruned_by_a_wrong_clock_is_not_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(open_store("memory://"))
    fakes.publish(registry)
    commit = registry.commit_manifest

    def prune_first(manifest: Manifest) -> None:
        tomorrow = datetime.now(UTC) + timedelta(days=1, seconds=1)
        retention.prune(registry, retention.plan_pruning(registry, "double", 1, tomorrow))
        commit(manifest)

    monkeypatch.setattr(registry, "commit_manifest", prune_first)
    with pytest.raises(ConflictError, match=r"double:2 is not published: model\.onnx was removed"):
        fakes.publish(registry)
    assert registry.list_versions("double") == [1]
