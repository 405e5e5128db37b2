"""Who publishes judges nothing, and a document is believed in its own place alone."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs

from pilotlight.contracts.codec import encode_document
from pilotlight.errors import (
    AlreadyExistsError,
    BrokenDocumentError,
    ConflictError,
    InvalidInputError,
)
from pilotlight.gate.evaluation import QualityGate
from pilotlight.gate.verdict import open_verdict
from pilotlight.registry.approval import Approval, approval_path, blocking_reason, load_approval, record_decision
from pilotlight.registry.registry import (
    JUDGEMENT_FOLDERS,
    Registry,
    alias_path,
    history_path,
    judgement_path,
    version_path,
)
from pilotlight.registry.retention import delete_version
from pilotlight.storage.object_store import ObjectStore, open_store
from tests import fakes


@pytest.fixture
def two(registry: Registry) -> Registry:
    """Two versions of a model, and one of another."""
    for name in ("double", "double", "other"):
        fakes.publish(registry, name)
    return registry


def forge_approval(registry: Registry, state: str) -> None:
    """What a publisher could write beside a version, and what former releases believed."""
    document = {"state": state, "by": "ann", "at": "2026-11-01T00:00:00Z", "why": "good", "number": 1}
    registry.store.put(version_path("double", 2, "approval.json"), json.dumps(document).encode())


def test_an_approval_beside_the_version_approves_nothing(two: Registry) -> None:
    forge_approval(two, "approved")
    assert load_approval(two, "double", 2) == Approval("double", 2)
    assert blocking_reason(two, "double", 2, required=True) is not None
    assert not QualityGate(two, 1769, requires_approval=True).evaluate("double", 2, "champion", actor="ann").passed


def test_a_rejection_beside_the_version_holds_until_somebody_decides(two: Registry) -> None:
    forge_approval(two, "rejected")
    assert load_approval(two, "double", 2).state == "rejected"
    assert blocking_reason(two, "double", 2, required=False) is not None
    decided = record_decision(two, "double", 2, "approved", actor="bob", reason="mended")
    assert (decided.state, decided.number) == ("approved", 2)
    assert load_approval(two, "double", 2) == decided


def test_a_verdict_beside_the_version_says_nothing(two: Registry) -> None:
    verdict = QualityGate(two, 1769).evaluate("double", 1, "champion", actor="ann")
    two.store.put(version_path("double", 2, "verdict.json"), encode_document(structs.replace(verdict, version=2)))
    assert open_verdict(two.store, "double", 2).read_or_none() is None


def test_what_judges_goes_with_its_version(two: Registry) -> None:
    QualityGate(two, 1769).evaluate("double", 2, "champion", actor="ann")
    record_decision(two, "double", 2, "approved", actor="ann", reason="good")
    for _ in range(2):  # else the candidate would go back to version 2
        fakes.publish(two)
    delete_version(two, "double", 2)
    assert [path for folder in JUDGEMENT_FOLDERS for path in two.store.list_paths(folder)] == []


def manifest_path(name: str, version: int) -> str:
    return version_path(name, version, "manifest.json")


def judged(folder: str) -> Callable[[str, int], str]:
    return lambda name, version: judgement_path(folder, name, version)


@pytest.mark.parametrize(
    ("path", "read"),
    [
        (manifest_path, lambda registry, name, version: registry.load_manifest(name, version)),
        (approval_path, load_approval),
        (judged("verdicts"), lambda registry, name, version: open_verdict(registry.store, name, version).read()),
    ],
    ids=["manifest", "approval", "verdict"],
)
@pytest.mark.parametrize(("name", "version"), [("other", 2), ("double", 7)])
def test_a_document_is_read_from_its_own_place_alone(
    two: Registry,
    path: Callable[[str, int], str],
    read: Callable[[Registry, str, int], object],
    name: str,
    version: int,
) -> None:
    """Neither as another model's, nor as another version."""
    record_decision(two, "double", 2, "approved", actor="ann", reason="good")
    QualityGate(two, 1769).evaluate("double", 2, "champion", actor="ann")
    assert read(two, "double", 2) is not None
    two.store.put(path(name, version), two.store.get(path("double", 2)).data)
    with pytest.raises(BrokenDocumentError, match="is not of this place"):
        read(two, name, version)


def test_an_alias_of_another_model_is_refused_and_one_that_says_nothing_is_not(two: Registry) -> None:
    two.store.put(alias_path("other", "champion"), two.store.get(alias_path("double", "champion")).data)
    with pytest.raises(BrokenDocumentError, match=r"other/aliases/champion.json is not of this place: its model"):
        two.load_alias("other", "champion")
    earlier = structs.replace(two.load_alias("double", "champion"), model="", alias="")
    two.store.put(alias_path("double", "champion"), encode_document(earlier))
    assert two.load_alias("double", "champion").version == 1
    assert two.move_alias("double", "champion", 2, actor="ann", reason="better").model == "double"


def test_the_history_is_not_written_again(two: Registry) -> None:
    first = two.load_alias("double", "champion")
    two.move_alias("double", "champion", 2, actor="ann", reason="better")
    with pytest.raises(AlreadyExistsError):
        two.store.create(history_path("double", "champion", 1), b"{}")
    assert two.load_alias_history("double")[0] == first


class Writes(ObjectStore):
    """A store that counts what is written over."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner.url, inner._store)
        self.overwritten: list[str] = []

    def put(self, path: str, data: bytes | Path) -> None:
        self.overwritten.append(path)
        super().put(path, data)


def test_every_file_of_a_version_is_created_and_none_written_over(tmp_path: Path) -> None:
    store, graph = Writes(open_store("memory://")), tmp_path / "model.onnx"
    graph.write_bytes(fakes.graph("double"))
    described = structs.replace(fakes.draft(), golden="golden.json")
    Registry(store).publish_version(described, {"model.onnx": graph, "golden.json": b"{}"})
    Registry(store).move_alias("double", "champion", 1, actor="ann", reason="again")
    assert store.overwritten == []


def test_a_number_whose_files_a_stranger_has_written_is_given_up(registry: Registry) -> None:
    class Intruded(ObjectStore):
        def create(self, path: str, data: bytes) -> None:
            if path == version_path("double", 1, "model.onnx"):
                super().create(path, b"a stranger's")
            super().create(path, data)

    manifest = fakes.publish(Registry(Intruded("memory://", registry.store._store)))
    assert manifest.version == 2
    assert registry.list_versions("double") == [2]
    assert registry.store.get(version_path("double", 2, "model.onnx")).data == fakes.graph("double")


def test_an_alias_named_versions_would_put_its_history_where_publishers_write(two: Registry) -> None:
    with pytest.raises(InvalidInputError, match="'versions' cannot be the name of an alias"):
        two.move_alias("double", "versions", 1, actor="ann", reason="new")


def test_a_decision_that_was_overtaken_is_a_conflict(two: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    create = two.store.create

    def overtaken(path: str, data: bytes) -> None:
        create(path, data)
        create(path, data)

    monkeypatch.setattr(two.store, "create", overtaken)
    with pytest.raises(ConflictError):
        record_decision(two, "double", 1, "approved", actor="ann", reason="good")
