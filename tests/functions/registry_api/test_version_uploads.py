"""Publishing over HTTP: what is announced, what is uploaded, and what becomes visible by it."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.contracts.manifest import ManifestFile
from pilotlight.contracts.version_files import RESERVED_FILENAMES
from pilotlight.errors import AlreadyExistsError, InvalidInputError, UnsupportedError
from pilotlight.registry import retention, version_upload
from pilotlight.registry.registry import Registry, version_path
from pilotlight.registry.version_upload import VersionUploads
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.functions.registry_api.conftest import Server

VERSIONS = "/registry/models/double/versions"
GRAPH = fakes.graph("double")
CARD = b"# double\n"
FILES = {"model.onnx": GRAPH, "notes/card.md": CARD}
NOBODY: dict[str, Any] = {"identity": {"sourceIp": "192.0.2.7"}}


def describe(files: dict[str, bytes]) -> list[dict[str, Any]]:
    return [
        {"path": path, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for path, data in files.items()
    ]


def announcement(files: dict[str, bytes] | None = None, **more: object) -> dict[str, Any]:
    """What a publisher announces of the kept graph."""
    draft = msgspec.to_builtins(fakes.draft()) | more
    return {"manifest": draft, "files": describe(files or FILES)}


def announce(server: Server, files: dict[str, bytes] | None = None) -> dict[str, Any]:
    status, upload = server.ask("POST", VERSIONS, announcement(files))
    assert status == 202, upload
    return dict(upload)


def upload_all(server: Server, upload: dict[str, Any], files: dict[str, bytes] | None = None) -> None:
    for file in upload["files"]:
        assert server.upload(file["presigned"], (files or FILES)[file["path"]]) == 200


def test_what_is_announced_and_uploaded_is_published(server: Server) -> None:
    upload = announce(server)
    assert (upload["model"], upload["version"], upload["by"]) == ("double", "1", "ann")
    assert [file["path"] for file in upload["files"]] == ["model.onnx", "notes/card.md"]
    assert server.visible() == []
    upload_all(server, upload)
    assert server.visible() == []
    assert server.ask("GET", f"{VERSIONS}/1")[0] == 404
    status, manifest = server.ask("POST", f"{VERSIONS}/1/commit")
    assert (status, manifest["version"], manifest["by"]) == (200, 1, "ann")
    assert server.ask("GET", f"{VERSIONS}/1/manifest")[1] == manifest
    assert server.ask("GET", "/registry/models/double/aliases/champion")[1]["version"] == 1
    left = {path.rpartition("versions/1/")[2] for path in server.store.list_paths("models/double/versions")}
    assert left == {"claim.json", "manifest.json", *FILES}


def test_it_is_the_same_as_published_with_rights_in_the_store(server: Server) -> None:
    """The manifests differ in their number, time and nonce; readers find the same files and aliases."""
    server.context = NOBODY
    direct = server.registry.publish_version(msgspec.structs.replace(fakes.draft(), by="ann"), FILES)
    status, upload = server.ask("POST", VERSIONS, announcement(by="ann"))
    assert status == 202
    upload_all(server, upload)
    server.ask("POST", f"{VERSIONS}/2/commit")
    other = server.registry.load_manifest("double", 2)
    assert other == msgspec.structs.replace(direct, version=2, created=other.created, nonce=other.nonce)
    assert server.registry.load_alias("double", "candidate").version == 2


def test_the_gateway_says_who_publishes(server: Server) -> None:
    """A caller that it has authenticated cannot publish in another's name; others are believed, as on a laptop."""
    assert server.ask("POST", VERSIONS, announcement(by="somebody else"))[1]["by"] == "ann"
    server.context = NOBODY
    assert server.ask("POST", VERSIONS, announcement(by="me"))[1]["by"] == "me"
    assert server.ask("POST", VERSIONS, announcement())[1]["by"] == "192.0.2.7"


def test_a_publisher_does_not_approve_his_own_version(server: Server) -> None:
    upload_all(server, announce(server))
    server.ask("POST", f"{VERSIONS}/1/commit")
    approve = {"state": "approved", "why": "it is mine"}
    status, said = server.ask("PUT", f"{VERSIONS}/1/approval", approve)
    assert (status, "published by ann" in said["error"]) == (409, True)
    assert server.ask("PUT", f"{VERSIONS}/1/approval", approve | {"state": "rejected"})[0] == 200
    server.context = {"authorizer": {"principalId": "plk_2", "key": "bob"}}
    assert server.ask("PUT", f"{VERSIONS}/1/approval", approve)[1]["by"] == "bob"


def test_a_commit_may_be_repeated(server: Server) -> None:
    upload_all(server, announce(server))
    first = server.ask("POST", f"{VERSIONS}/1/commit")
    assert first[0] == 200
    assert server.ask("POST", f"{VERSIONS}/1/commit") == first
    assert server.ask("POST", f"{VERSIONS}/1/commit", b"{}") == first


def test_racing_commits_are_one(server: Server) -> None:
    upload_all(server, announce(server))
    uploads = VersionUploads(server.registry)
    with ThreadPoolExecutor(8) as threads:
        manifests = list(threads.map(lambda _: uploads.commit("double", 1), range(8)))
    assert {manifest.nonce for manifest in manifests} == {server.registry.load_manifest("double", 1).nonce}
    assert server.registry.load_alias("double", "champion").number == 1


def test_a_commit_that_died_behind_the_manifest_is_ended_by_the_next(server: Server) -> None:
    upload = announce(server)
    upload_all(server, upload)
    server.registry.commit_manifest(VersionUploads(server.registry).load("double", 1))
    assert server.visible() == [1]
    assert server.ask("POST", f"{VERSIONS}/1/commit")[0] == 200
    assert server.registry.load_alias("double", "champion").version == 1
    assert server.ask("GET", f"{VERSIONS}/1/upload")[0] == 404


def test_what_did_not_arrive_is_named_and_may_follow(server: Server) -> None:
    upload = announce(server)
    graph, card = upload["files"]
    assert server.upload(graph["presigned"], GRAPH) == 200
    status, said = server.ask("POST", f"{VERSIONS}/1/commit")
    assert (status, "notes/card.md of its 2 files did not arrive" in said["error"]) == (409, True)
    assert server.visible() == []
    status, now = server.ask("GET", f"{VERSIONS}/1/upload")
    assert [(file["uploaded"], file["presigned"] is None) for file in now["files"]] == [(True, True), (False, False)]
    assert server.upload(now["files"][1]["presigned"], CARD) == 200
    assert server.ask("POST", f"{VERSIONS}/1/commit")[0] == 200
    assert card["presigned"]["headers"]["content-length"] == str(len(CARD))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (GRAPH + b"x", f"has {len(GRAPH) + 1:,} bytes, but {len(GRAPH):,} were announced"),
        (GRAPH[:-1], f"has {len(GRAPH) - 1:,} bytes, but {len(GRAPH):,} were announced"),
        (
            GRAPH[:-1] + b"!",
            f"has the sha256 {hashlib.sha256(GRAPH[:-1] + b'!').hexdigest()}, but {hashlib.sha256(GRAPH).hexdigest()}",
        ),
    ],
)
def test_other_bytes_are_never_published(server: Server, data: bytes, why: str) -> None:
    """Whoever can write into the store itself gets past the URL, and not past the commit."""
    upload = announce(server)
    server.store.create(version_path("double", 1, "model.onnx"), data)
    server.upload(upload["files"][1]["presigned"], CARD)
    status, said = server.ask("POST", f"{VERSIONS}/1/commit")
    assert (status, "double:1 is not published: model.onnx" in said["error"], why in said["error"]) == (400, True, True)
    assert server.visible() == []
    assert announce(server)["version"] == "2"


def test_s3_itself_refuses_other_bytes_and_a_second_write(bucket: Server) -> None:
    signed = announce(bucket)["files"][0]["presigned"]
    headers = parse_qs(urlsplit(signed["url"]).query)["X-Amz-SignedHeaders"][0].split(";")
    assert {"content-length", "if-none-match", "x-amz-checksum-sha256"} <= set(headers)
    assert bucket.upload(signed, GRAPH[:-1] + b"!") == 400
    assert bucket.upload(signed, GRAPH) == 200
    assert bucket.upload(signed, GRAPH) == 412


def test_a_bucket_that_has_checked_the_hashes_is_believed(bucket: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the function reads no weights: it has 28 seconds."""
    upload_all(bucket, announce(bucket))
    monkeypatch.setattr(version_upload, "hash_chunks", None)
    assert bucket.ask("POST", f"{VERSIONS}/1/commit")[0] == 200


def test_what_a_bucket_keeps_no_hash_of_is_read_up_to_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent:
        def read_sha256(self, path: str) -> None:
            return None

    registry = Registry(open_store("memory://"))
    uploads = VersionUploads(registry, Silent())
    announced = uploads.announce(fakes.draft(), [ManifestFile(**file) for file in describe({"model.onnx": GRAPH})])
    registry.store.create(version_path("double", 1, "model.onnx"), GRAPH)
    monkeypatch.setattr(version_upload, "MAX_HASHED_BYTES", len(GRAPH) - 1)
    with pytest.raises(UnsupportedError, match=r"keeps no sha256 of model\.onnx"):
        uploads.commit("double", 1)
    assert registry.list_versions("double") == []
    monkeypatch.setattr(version_upload, "MAX_HASHED_BYTES", len(GRAPH))
    assert uploads.commit("double", 1) == announced


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        ({}, 400, "$.manifest: Field required"),
        (announcement() | {"files": []}, 400, "$.files"),
        (announcement(name="other"), 400, "$.manifest.name is 'other', but the path names the model 'double'"),
        (announcement(version=7), 400, "$.manifest.version is the server's to set"),
        (announcement(nonce="0", created=""), 400, "leave out created, nonce"),
        (announcement(serve="int8"), 400, "serves 'int8', but its variants are ['fp32']"),
        (announcement(serve="fp64"), 400, "$.serve"),
        (announcement(outputs=[]), 400, "outputs"),
        (announcement({"other.onnx": GRAPH}), 400, "names ['model.onnx'], which are not among its files"),
        (announcement({"model.onnx": GRAPH, "a": b"", "a/b": b""}), 400, "'a' cannot be a file and the folder of"),
        (announcement({"model.onnx": GRAPH, "manifest.json": b""}), 400, "the registry's own documents"),
        (announcement({"model.onnx": GRAPH, "x/verdict.json": b""}), 400, "the registry's own documents"),
        (announcement({"model.onnx": GRAPH, "../../../keys/a.json": b""}), 400, "is not the path of a file"),
        (announcement({"model.onnx": GRAPH, "a" * 201: b""}), 400, "is too long"),
        (announcement() | {"files": describe(FILES) * 2}, 400, "'model.onnx' is named twice"),
        (announcement() | {"files": [describe(FILES)[0] | {"sha256": "A" * 64}]}, 400, "$.files[0].sha256"),
        (announcement() | {"files": [describe(FILES)[0] | {"bytes": -1}]}, 400, "$.files[0].bytes"),
        (announcement() | {"files": [describe(FILES)[0] | {"bytes": 5_000_000_001}]}, 413, "at most 5,000,000,000"),
        (announcement() | {"files": describe(FILES) * 251}, 400, "$.files"),
        ([], 400, "not a JSON object"),
    ],
)
def test_what_is_no_version_takes_no_number(server: Server, body: object, status: int, why: str) -> None:
    answered, said = server.ask("POST", VERSIONS, body)
    assert (answered, why in said["error"]) == (status, True), said
    assert list(server.store.list_paths("models")) == []


@given(st.text(max_size=30) | st.from_regex(r"[a-z./\\-]{1,12}", fullmatch=True))
def test_no_name_of_a_file_leaves_its_version(name: str) -> None:
    """Whatever a file is called, it is refused, or its path is one below the version and of no other meaning."""
    uploads = VersionUploads(Registry(open_store("memory://")))
    sha256 = hashlib.sha256(b"").hexdigest()
    try:
        uploads.announce(fakes.draft(), [ManifestFile("model.onnx", 0, sha256), ManifestFile(name, 0, sha256)])
    except InvalidInputError:
        return
    parts = name.split("/")
    assert all(part and not part.startswith((".", "-")) and part.isascii() and part.isprintable() for part in parts)
    assert "\\" not in name
    assert parts[-1] not in RESERVED_FILENAMES


def test_two_publishers_get_two_numbers(server: Server) -> None:
    """The later number may be visible first, and stays the candidate."""
    first, second = announce(server), announce(server)
    assert (first["version"], second["version"]) == ("1", "2")
    upload_all(server, second)
    assert server.ask("POST", f"{VERSIONS}/2/commit")[0] == 200
    upload_all(server, first)
    assert server.ask("POST", f"{VERSIONS}/1/commit")[0] == 200
    assert server.visible() == [1, 2]
    assert server.registry.load_alias("double", "candidate").version == 2


def test_an_upload_that_was_forgotten_is_pruned_and_its_number_is_not_used_again(server: Server) -> None:
    upload = announce(server)
    server.upload(upload["files"][0]["presigned"], GRAPH)
    tomorrow = datetime.now(UTC) + timedelta(days=1, seconds=1)
    retention.prune(server.registry, retention.plan_pruning(server.registry, "double", 1, tomorrow))
    left = [path.rpartition("/")[2] for path in server.store.list_paths("models/double")]
    assert left == ["claim.json"]
    status, said = server.ask("POST", f"{VERSIONS}/1/commit")
    assert (status, "double:1 is not being uploaded" in said["error"]) == (404, True)
    assert announce(server)["version"] == "2"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"{VERSIONS}/9/upload", 404),
        ("POST", f"{VERSIONS}/9/commit", 404),
        ("POST", f"{VERSIONS}/candidate/commit", 400),
        ("POST", "/registry/models/a..%20b/versions", 400),
        ("DELETE", f"{VERSIONS}/1", 404),
    ],
)
def test_what_was_not_announced_is_not_there(server: Server, method: str, path: str, status: int) -> None:
    announce(server)
    assert server.ask(method, path, announcement() if path.endswith("versions") else None)[0] == status


def test_what_another_publisher_has_begun_is_not_committed_for_him(server: Server) -> None:
    """A number that was claimed in the store itself has no upload."""
    server.registry.claim_version(VersionUploads(server.registry).announce(fakes.draft(), files_of(FILES)))
    assert server.ask("POST", f"{VERSIONS}/2/commit")[0] == 404


def files_of(files: dict[str, bytes]) -> list[ManifestFile]:
    return [ManifestFile(**file) for file in describe(files)]


def test_an_announcement_whose_answer_was_lost_is_not_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's client repeats a write, and finds its own."""
    registry = Registry(open_store("memory://"))
    create = registry.store.create

    def create_twice(path: str, data: bytes) -> None:
        create(path, data)
        if path.endswith("upload.json"):
            raise AlreadyExistsError(path)

    monkeypatch.setattr(registry.store, "create", create_twice)
    assert VersionUploads(registry).announce(fakes.draft(), files_of(FILES)).version == 1


def test_a_store_that_takes_no_uploads_says_so() -> None:
    server = Server("memory://")
    status, said = server.ask("POST", VERSIONS, announcement())
    assert (status, "Publish with --store" in said["error"]) == (501, True)


def test_a_publisher_cannot_bring_the_registrys_own_documents() -> None:
    """By no way: with rights in the store, a file `claim.json` would be taken for another publisher's for ever."""
    registry = Registry(open_store("memory://"))
    with pytest.raises(InvalidInputError, match=r"'claim\.json' is a name of the registry's own documents"):
        registry.publish_version(fakes.draft(), {"model.onnx": GRAPH, "claim.json": b"{}"})
