"""One broken document costs the thing that it describes and nothing else: all is listed, mended, listed again."""

import json
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from functions.batch_api.handler import build_batch_api
from functions.drift.nightly_report import NightlyReporter
from functions.promote.events import ScheduleTick
from functions.promote.policy import PromotionPolicy
from functions.promote.promoter import Promoter
from functions.registry_api.model_repository import RepositoryEndpoints
from pilotlight.api.powertools_router import ResolverRouter
from pilotlight.api_keys.key_store import KeyStore
from pilotlight.cli import app
from pilotlight.contracts.alias import AliasDocument, Canary
from pilotlight.contracts.batch import BatchCancellation
from pilotlight.contracts.codec import decode_document, encode_document
from pilotlight.contracts.names import ModelReference
from pilotlight.contracts.promotion import PromotionRequest
from pilotlight.contracts.run import EpochRecord, PublishedVersion, RunStatus
from pilotlight.contracts.upload import Upload
from pilotlight.doctor.broken_documents import KINDS, find_broken_documents, find_kind, repair_document
from pilotlight.drift.report import DriftReport, save_report
from pilotlight.errors import BrokenDocumentError, ConflictError, PilotlightError
from pilotlight.gate.evaluation import QualityGate
from pilotlight.gate.promotion import GateOverride, promote_version
from pilotlight.gate.verdict import Verdict
from pilotlight.registry import alias_updates, retention
from pilotlight.registry.approval import approval_path, load_approval, record_decision
from pilotlight.registry.registry import Registry, alias_path, history_path, signature_path, version_path
from pilotlight.runtime.model_cache import ModelCache
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.settings import Settings
from pilotlight.storage.documents import Document
from pilotlight.storage.object_store import ObjectStore, open_store
from pilotlight.training_runs.jobs import JobOutcome, TrainingJob
from tests import fakes
from tests.functions.batch_api.conftest import FORM, Caller, Place, Word, form
from tests.functions.registry_api.test_registry import Api
from tests.functions.training_api.conftest import Api as Trainings

AT = "2026-11-29T12:00:00+00:00"
WAYS: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda data: data[: len(data) // 2],
    "empty": lambda _: b"",
    "not JSON": lambda _: b"<Error>SlowDown</Error>",
    "another form": lambda _: b'["of another release"]',
    "wrong types": lambda data: data.replace(b'": ', b'": [[], ').replace(b",\n", b"],\n"),
    "not UTF-8": lambda data: b"\xff\xfe" + data,
    "deep": lambda _: b'{"x": ' + b"[" * 100_000,
}


def build_store(url: str) -> ObjectStore:
    """A store with a document of every kind, of two models, two runs, two files and two batches."""
    store = open_store(url)
    registry, place = Registry(store), Place(store)
    for name in ("double", "double", "other", "other", "other"):
        fakes.publish(registry, name)
    for name in ("double", "other"):
        registry.move_alias(name, "champion", 2, actor="ann", reason="better")
        record_decision(registry, name, 2, "approved", actor="ann", reason="seen")
    promote_version(QualityGate(registry, 1769), "double", 2, "live", actor="ann", override=GateOverride("ann", "try"))
    signature = {"key": "k", "sha256": "0", "signature": "", "by": "ann", "at": AT}
    store.put(signature_path("double", 2), json.dumps(signature).encode())
    KeyStore(store).create_key("ann", ("infer",), actor="ann")
    request = PromotionRequest("0a1b", "double", 2, "champion", "ann", AT)
    store.put("models/double/promotions/0a1b.json", encode_document(request))
    for run in ("monday", "tuesday"):
        files = {
            "recipe.yaml": b"name: double\nepochs: 3\n",
            "status.json": encode_document(RunStatus(state="failed", started=AT, at=AT)),
            "metrics.jsonl": b'{"number": 1, "train_loss": 1, "validation_loss": 1, "validation_accuracy": 1}',
            "published.json": encode_document(PublishedVersion("double:2")),
            "job.json": encode_document(
                TrainingJob(launcher="batch", id="1", by="ann", asked=AT, end=JobOutcome("failed", "x", AT))
            ),
        }
        for file, data in files.items():
            store.put(f"runs/{run}/{file}", data)
    for key in ("1", "2"):
        batch = place.batch_of(place.upload(b'{"custom_id": "a"}\n'), {"idempotency-key": key})
        place.work()
        store.put(f"batches/{batch['id'][6:]}/cancel.json", encode_document(BatchCancellation(1)))
    place.ask("POST", "/v1/uploads", {"filename": "a", "bytes": 3, "purpose": "batch"})
    save_report(
        store,
        DriftReport(model="double", version=1, since=AT, until=AT, requests=1, examples=1, trained=1),
    )
    return store


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    store = build_store((tmp_path_factory.mktemp("whole") / "store").as_uri())
    return {path: store.get(path).data for path in store.list_paths("")}


@pytest.fixture
def whole(contents: dict[str, bytes]) -> ObjectStore:
    store = open_store("memory://")
    for path, data in contents.items():
        store.put(path, data)
    return store


def pick_paths(store: ObjectStore) -> list[str]:
    """The last path of each kind of document."""
    found = {kind.pattern: path for path in sorted(store.list_paths("")) if (kind := find_kind(path)) is not None}
    assert found.keys() == {kind.pattern for kind in KINDS}
    return list(found.values())


def list_everything(store: ObjectStore) -> dict[str, Any]:
    """Every list, over HTTP and beneath the command; each must be answered."""
    registry, found = Registry(store), dict[str, Any]()
    api, trainings = Api(store), Trainings(store)
    found["models"] = api("GET", "/registry/models")
    for name in ("double", "other"):
        found[f"model {name}"] = api("GET", f"/registry/models/{name}")
        found[f"aliases {name}"] = api("GET", f"/registry/models/{name}/aliases")
        found[f"history {name}"] = api("GET", f"/registry/models/{name}/aliases/champion/history")
        found[f"prune {name}"] = api("POST", f"/registry/models/{name}/prune", {"keep": 1})
    index = ResolverRouter(RepositoryEndpoints(registry).routes())
    answer = index(fakes.event(index._routes, "POST", "/v2/repository/index", b"{}"), None)
    found["index"] = answer["statusCode"], json.loads(answer["body"])
    found["trainings"] = trainings("GET", "/v1/trainings")
    return found | list_files_and_batches(store)


def list_files_and_batches(store: ObjectStore) -> dict[str, Any]:
    handle = build_batch_api(Settings(store=store.url), store, Word())
    found = {}
    for path in ("/v1/files", "/v1/batches"):
        answer = handle(fakes.event(handle._routes, "GET", path), None)
        found[path] = answer["statusCode"], json.loads(answer["body"])
    return found


@pytest.mark.parametrize("turn", range(2))
def test_each_kind_of_document_is_broken_listed_mended_and_listed_again(
    whole: ObjectStore, contents: dict[str, bytes], turn: int
) -> None:
    before = {name: answer[0] for name, answer in list_everything(whole).items()}
    assert set(before.values()) == {200}
    assert find_broken_documents(whole) == []
    for place, path in enumerate(pick_paths(whole)):
        way = [*WAYS][(place + 3 * turn) % len(WAYS)]
        broken = b"name: [" if path.endswith(".yaml") else WAYS[way](contents[path])
        if way == "empty" and path.endswith((".yaml", ".jsonl")):
            broken = b"\xff"  # an empty one is none
        whole.put(path, broken)
        assert [one.path for one in find_broken_documents(whole)] == [path], (path, broken[:60])
        listed = list_everything(whole)
        assert {name: answer[0] for name, answer in listed.items()} == before, path
        mended = find_broken_documents(whole)[0].is_mendable
        try:
            assert repair_document(whole, path)
        except PilotlightError:
            assert not mended, path
        assert (find_broken_documents(whole) == []) is mended, path
        assert {name: answer[0] for name, answer in list_everything(whole).items()} == before, path
        for changed in set(whole.list_paths("")) - contents.keys():
            whole.delete(changed)
        for kept, data in contents.items():
            whole.put(kept, data)


def test_a_row_says_what_is_broken_and_the_others_are_whole(whole: ObjectStore) -> None:
    whole.put(alias_path("double", "champion"), b"{")
    whole.put(version_path("other", 3, "manifest.json"), b"{")
    said = "models/double/aliases/champion.json is not a AliasDocument: Input data was truncated. "
    said += "`pilotlight promote double:VERSION --force` replaces it."
    listed = list_everything(whole)
    assert listed["models"][1]["models"] == [
        {"name": "double", "versions": ["1", "2", "3"], "champion": None, "error": said},
        {"name": "other", "versions": ["1", "2", "3"], "champion": "2"},
    ]
    assert listed["model double"][1]["errors"] == {"champion": said}
    assert list(listed["model double"][1]["aliases"]) == ["candidate", "live"]
    assert listed["aliases double"][1]["champion"] == {"error": said}
    assert {(row["name"], row["state"], row["reason"]) for row in listed["index"][1]} == {
        ("double", "UNAVAILABLE", said),
        ("other", "READY", ""),
    }
    assert [(row["number"], row.get("error")) for row in listed["history double"][1]] == [(1, None), (2, said)]
    broken, *rest = listed["model other"][1]["versions"]
    assert "models/other/versions/3/manifest.json is not a Manifest" in broken["error"]
    assert [row.get("error") for row in rest] == [None, None]


def test_nothing_is_pruned_while_an_alias_cannot_be_read(whole: ObjectStore) -> None:
    registry = Registry(whole)
    whole.put(alias_path("double", "live"), b"{")
    registry.move_alias("double", "champion", 3, actor="ann", reason="better")
    assert retention.plan_pruning(registry, "double", 1).versions == ()
    with pytest.raises(ConflictError, match=r"needs is not known, models/double/aliases/live\.json is not"):
        retention.delete_version(registry, "double", 1)
    whole.put(version_path("other", 1, "manifest.json"), b"{")
    registry.move_alias("other", "champion", 3, actor="ann", reason="better")
    retention.delete_version(registry, "other", 1)  # one that cannot be read can be deleted
    assert registry.list_versions("other") == [2, 3]


def test_files_that_are_no_aliases_are_passed_over(whole: ObjectStore) -> None:
    for path in ("models/double/aliases/note.txt", "models/double/aliases/old/champion.json"):
        whole.put(path, b"x")
    assert list(Registry(whole).load_aliases("double").documents) == ["candidate", "champion", "live"]


def test_a_broken_alias_is_replaced_by_force_and_goes_on_from_its_history(whole: ObjectStore) -> None:
    registry = Registry(whole)
    registry.suspend_alias("double", "champion", actor="ann", reason="holiday")
    whole.put(alias_path("double", "champion"), b'{"version": ')
    gate = QualityGate(registry, 1769)
    with pytest.raises(BrokenDocumentError, match="--force` replaces it"):
        promote_version(gate, "double", 3, actor="ann")
    mended = registry.replace_broken_alias("double", "champion", 3, actor="ann", reason="mended")
    assert (mended.number, mended.version, mended.previous, mended.by) == (4, 3, 2, "ann")
    assert whole.get(history_path("double", "champion", 3, "broken")).data == b'{"version": '
    with pytest.raises(ConflictError, match="is not broken"):
        registry.replace_broken_alias("double", "champion", 1, actor="ann", reason="again")
    history = registry.load_alias_history("double")
    assert [row.number for row in history] == [1, 2, 3, 4]
    assert registry.rollback_alias("double", actor="ann", reason="back").version == 2


def test_a_missing_history_is_one_row(whole: ObjectStore) -> None:
    registry = Registry(whole)
    for version in (1, 2, 3):
        registry.move_alias("double", "champion", version, actor="ann", reason="")
    for number in (2, 3):
        whole.delete(history_path("double", "champion", number))
    rows = registry.load_alias_history("double")
    assert [(row.number, getattr(row, "error", "")) for row in rows] == [
        (1, ""),
        (2, "What was number 2 to 3 are missing from the store."),
        (4, ""),
        (5, ""),
    ]


def test_a_broken_candidate_is_replaced_by_the_next_version(whole: ObjectStore) -> None:
    registry = Registry(whole)
    whole.put(alias_path("double", "candidate"), b"")
    assert fakes.publish(registry).version == 4
    assert registry.load_alias("double", "candidate").version == 4
    whole.put(alias_path("double", "champion"), b"")
    assert fakes.publish(registry).version == 5  # a version costs nothing because of an alias
    assert whole.get(alias_path("double", "champion")).data == b""


def test_one_broken_alias_and_one_broken_canary_stop_no_other_canary(
    whole: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    registry, past = Registry(whole), (datetime.now(UTC) - timedelta(hours=1)).isoformat()

    def canary(version: int) -> Callable[[AliasDocument], AliasDocument]:
        return lambda old: alias_updates.start_canary(old, Canary(version, past), 1000, "ann", "try")

    registry.update_alias("double", "live", canary(1))
    registry.update_alias("other", "champion", canary(3))
    whole.put(alias_path("double", "champion"), b"{")
    whole.put(version_path("double", 1, "manifest.json"), b"{")
    promoter = Promoter(Gate(registry, 1769), PromotionPolicy.parse("off"))
    with caplog.at_level(logging.ERROR):
        said = list(promoter.handle(ScheduleTick()))
    assert said[0].startswith("double@champion is left as it is: models/double/aliases/champion.json is not")
    assert said[1].startswith("The canary double:1 is not settled: models/double/versions/1/manifest.json is not")
    assert said[2].startswith("The canary other:3 is not settled: evaluated")
    assert sum(record.thread == threading.get_ident() for record in caplog.records) == 3


class Gate(QualityGate):
    """A gate that reads the version, and is then overtaken."""

    def evaluate(self, name: str, version: int, *_: object, **__: object) -> Verdict:
        self.registry.load_manifest(name, version)
        raise ConflictError("evaluated")


def test_a_warm_environment_keeps_its_version_and_other_models_are_untouched(whole: ObjectStore) -> None:
    clock = fakes.Clock()
    manager = ModelManager(Registry(whole), ModelCache(1 << 30), memory_mb=1769, alias_seconds=10, clock=clock)
    double, other = ModelReference("double"), ModelReference("other")
    assert manager.get_model(double).manifest.version == 2
    whole.put(alias_path("double", "champion"), b"{")
    whole.put(version_path("other", 2, "manifest.json"), b"{")
    clock.tick(11)
    assert manager.get_model(double).manifest.version == 2
    manager.wait_for_background()
    assert manager.get_model(double).manifest.version == 2
    cold = ModelManager(Registry(whole), ModelCache(1 << 30), memory_mb=1769, alias_seconds=10)
    with pytest.raises(BrokenDocumentError, match=r"models/double/aliases/champion\.json is not a AliasDocument"):
        cold.get_model(double)
    assert cold.get_model(ModelReference("double", 3)).manifest.version == 3
    assert cold.get_model(other).manifest.version == 1  # the one before, since the champion's manifest is broken


def test_a_night_of_drift_passes_over_what_is_no_report(whole: ObjectStore) -> None:
    whole.put("captures/double/1/2026-11-29/10/env-1.jsonl.gz", b"no gzip")
    whole.put("drift/double/1/notes.json", b"x")
    night = NightlyReporter(Registry(whole), lambda: datetime(2026, 11, 30, 2, tzinfo=UTC))
    (said,) = night.report_versions(float("inf"))
    assert said.startswith("double:1 has no profile")


def test_a_file_or_batch_that_cannot_be_read_is_a_row_with_an_error(whole: ObjectStore) -> None:
    first, last = sorted(path for path in whole.list_paths("uploads") if path.endswith("file.json"))
    order = min(path for path in whole.list_paths("batches") if path.endswith("order.json"))
    progress = max(path for path in whole.list_paths("outbox") if path.endswith("progress.json"))
    for path in (first, order, progress):
        whole.put(path, b"{")
    listed = list_files_and_batches(whole)
    assert [(row["status"], row["status_details"]) for row in listed["/v1/files"][1]["data"]] == [
        ("processed", None),
        ("error", f"{first} is not a Upload: Input data was truncated."),
    ]
    assert last.split("/")[1] in listed["/v1/files"][1]["data"][0]["id"]
    assert [row["errors"]["data"][0]["message"] for row in listed["/v1/batches"][1]["data"]] == [
        f"{progress} is not a FileProgress: Input data was truncated.",
        f"{order} is not a BatchRequest: Input data was truncated.",
    ]


def test_a_broken_progress_is_begun_again_without_a_lost_or_doubled_line() -> None:
    place = Place(open_store("memory://"))
    tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
    lines = [
        {"custom_id": str(number), "method": "POST", "url": "/v2/models/double/infer", "body": {"inputs": [tensor]}}
        for number in range(9)
    ]
    batch = place.order(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    place.store.put(f"outbox/batches/{batch['id'][6:]}/progress.json", b'{"input": "up')
    place.work()
    done = place.show(batch["id"])
    assert (done["status"], done["request_counts"]) == ("completed", {"total": 9, "completed": 9, "failed": 0})
    output = place.store.get(f"outbox/batches/{batch['id'][6:]}/output.jsonl").data.splitlines()
    assert [json.loads(line)["custom_id"] for line in output] == [str(number) for number in range(9)]


def test_a_broken_file_of_a_tenant_is_mended_in_his_folder() -> None:
    place = Place(open_store("memory://"))
    file = Caller(place, "acme").make("/v1/files", form(b"{}\n"), headers=FORM)["id"]
    path = f"uploads/tenant=acme/{file[5:]}/file.json"
    before = place.store.get(path).data
    place.store.put(path, before[:40])
    (broken,) = find_broken_documents(place.store)
    assert broken.path == path
    announced = path.replace("file.json", "upload.json")
    place.store.put(announced, encode_document(decode_document(before, Upload, path)))
    repair_document(place.store, path)
    assert json.loads(place.store.get(path).data) == json.loads(before)
    assert Caller(place, "acme").ask("GET", f"/v1/files/{file}")[0] == 200


def test_a_broken_file_can_be_deleted(whole: ObjectStore) -> None:
    place = Place(open_store("memory://"))
    status, said = place.ask("POST", "/v1/files", form(b"{}\n"), FORM)
    place.store.put(f"uploads/{said['id'][5:]}/file.json", b"")
    assert place.ask("GET", f"/v1/files/{said['id']}")[0] == 503
    assert place.ask("DELETE", f"/v1/files/{said['id']}")[0] == 200
    assert list(place.store.list_paths("uploads")) == []
    assert (status, place.ask("DELETE", f"/v1/files/{said['id']}")[0]) == (200, 404)


def test_a_repaired_approval_lets_nobody_serve(whole: ObjectStore) -> None:
    path = approval_path("double", 2)
    whole.put(path, b'{"state": "approved"')
    repair_document(whole, path)
    decision = load_approval(Registry(whole), "double", 2)
    assert (decision.state, decision.by) == ("rejected", "pilotlight doctor")
    assert whole.get(decision.why.split(" are in ")[0] and path).data


def test_the_command_lists_and_mends(
    tmp_path: Path, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    store = open_store((tmp_path / "store").as_uri())
    for path, data in contents.items():
        store.put(path, data)
    store.put(alias_path("double", "champion"), b"{")
    store.put("runs/monday/status.json", b"{")
    store.put(version_path("other", 3, "manifest.json"), b"{")

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["pilotlight", *words, "--store", store.url])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            app()
        return int(ended.value.code or 0), *capfd.readouterr()

    code, out, err = run("models")
    assert code == 0
    assert "champion.json is not a AliasDocument" in err
    assert "broken" in out
    assert "runs/monday/status.json is not a RunStatus" in run("runs", "list")[2]
    assert "unreadable" in run("history", "double")[1]
    plan = json.loads(run("doctor", "--repair", "--json")[1])
    assert ([one["path"] for one in plan["broken"]], plan["mended"]) == (
        [alias_path("double", "champion"), version_path("other", 3, "manifest.json"), "runs/monday/status.json"],
        [],
    )
    code, out, _ = run("doctor", "--repair", "--yes", "--json")
    assert code == 1  # the manifest is a person's
    assert json.loads(out)["mended"] == [alias_path("double", "champion"), "runs/monday/status.json"]
    assert Registry(store).load_alias("double", "champion").version == 1
    store.put(alias_path("other", "champion"), b"{")
    assert run("promote", "other:2", "--json")[0] == 1
    code, out, _ = run("promote", "other:2", "--force", "--why", "it was broken", "--json")
    assert (code, json.loads(out)["moved"]["number"]) == (0, 3)


def test_what_is_huge_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store((tmp_path / "store").as_uri())
    monkeypatch.setattr("pilotlight.storage.object_store.MAX_WHOLE_BYTES", 1000)
    store.put("runs/x/status.json", b" " * 1001)
    error = Document(store, "runs/x/status.json", RunStatus, "Mend it.").read_or_error()
    assert str(error) == "runs/x/status.json has 1,001 bytes; what is read whole has at most 1,000. Mend it."


@pytest.mark.parametrize("time", ["tomorrow", "2026-13-01T00:00:00+00:00", "2026-11-29T12:00:00"])
def test_a_time_that_is_none_is_a_broken_document(time: str) -> None:
    store = open_store("memory://")
    status = RunStatus(state="running", started=AT, at=AT)
    store.put("x", encode_document(status).replace(AT.encode(), time.encode()))
    assert "not a time such as" in str(Document(store, "x", RunStatus).read_or_error())
    with pytest.raises(ValueError, match="not a time"):
        EpochRecord(number=1, train_loss=1, validation_loss=1, validation_accuracy=1, at=time)
