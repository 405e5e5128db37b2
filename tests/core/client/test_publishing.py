"""`Client.registry.publish` against the real gateway and functions, over a bucket that fails as networks do."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from pilotlight.client import Client, file_uploads
from pilotlight.client import registry as client_registry
from pilotlight.contracts.manifest import Manifest
from pilotlight.contracts.signed_upload import PresignedUpload
from pilotlight.errors import ConflictError, InvalidInputError, UnavailableError
from pilotlight.local.gateway import Gateway
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.faulty_s3 import FaultyS3, serving

ROOT = Path(__file__).parents[3]
GRAPH = fakes.graph("double")
FILES = {"model.onnx": GRAPH, "notes/card.md": b"# double\n", "empty.txt": b""}
MODEL = "versions/1/model.onnx"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """A bucket that keeps no hashes, so that the server reads what has arrived."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setattr(file_uploads, "FIRST_PAUSE_S", 0.01)
    with serving() as server:
        yield server


@pytest.fixture
def client(bucket: FaultyS3) -> Iterator[Client]:
    gateway = Gateway(
        ROOT / "template.yaml", port=0, workers=1, environment={"PILOTLIGHT_STORE": bucket.url} | fakes.QUIET
    )
    with gateway.serve_in_background() as url, Client(f"{url}/prod", headers={"authorization": "Bearer secret"}) as it:
        yield it


def stored(bucket: FaultyS3) -> Registry:
    return Registry(open_store(bucket.url))


def publish(client: Client) -> Manifest:
    return client.registry.publish(fakes.draft(), FILES)


def test_what_is_published_is_there(client: Client, bucket: FaultyS3, tmp_path: Path) -> None:
    """From memory and from disk; the bytes that `on_progress` was told are those of the files."""
    (tmp_path / "model.onnx").write_bytes(GRAPH)
    sent = dict.fromkeys(FILES, 0)

    def note(path: str, size: int) -> None:
        sent[path] += size

    manifest = client.registry.publish(fakes.draft(), {**FILES, "model.onnx": tmp_path / "model.onnx"}, note)
    assert stored(bucket).load_manifest("double", 1) == manifest
    assert {file.path: bucket.objects[f"models/double/versions/1/{file.path}"] for file in manifest.files} == FILES
    assert sent == {path: len(data) for path, data in FILES.items()}


@pytest.mark.parametrize("fault", ["slow_down", "500", "403", "expired", "truncated", "late"])
@pytest.mark.parametrize("count", [1, file_uploads.ATTEMPTS - 1])
def test_an_upload_that_fails_is_sent_again(client: Client, bucket: FaultyS3, fault: str, count: int) -> None:
    """Also where it has arrived and the answer was lost, and where its URL is not valid any more."""
    bucket.late_s = 0.01
    bucket.fail(fault, MODEL, count=count)
    sent = dict.fromkeys(FILES, 0)

    def note(path: str, size: int) -> None:
        sent[path] += size

    manifest = client.registry.publish(fakes.draft(), FILES, note)
    assert bucket.failures >= 1
    assert stored(bucket).load_manifest("double", 1) == manifest
    assert sent == {path: len(data) for path, data in FILES.items()}


def test_an_upload_that_never_arrives_leaves_nothing_visible(client: Client, bucket: FaultyS3) -> None:
    bucket.fail("slow_down", MODEL)
    with pytest.raises(UnavailableError, match=r"The store refused model\.onnx \(503\): .*SlowDown"):
        publish(client)
    assert bucket.failures == file_uploads.ATTEMPTS
    bucket.heal()
    assert stored(bucket).list_versions("double") == []
    with pytest.raises(ConflictError, match=r"double:1 is not complete: model\.onnx of its 3 files did not arrive"):
        client.registry.commit_version("double", 1)
    assert publish(client).version == 2


def test_one_file_that_fails_stops_the_others(client: Client, bucket: FaultyS3, tmp_path: Path) -> None:
    """A large one is not sent to its end in vain, and Ctrl-C need not wait for it."""
    large = tmp_path / "large.bin"
    large.write_bytes(bytes(64 << 20))
    files: dict[str, bytes | Path] = {"model.onnx": GRAPH, "large.bin": large}
    upload = client.registry.announce_version(fakes.draft(), files)
    sent = 0

    def note(path: str, size: int) -> None:
        nonlocal sent
        if path == "large.bin":
            sent += size
            assert uploads._is_stopped.wait(60)

    uploads = file_uploads.FileUploads({**files, "model.onnx": GRAPH + b"x"}, lambda: upload, note)
    with pytest.raises(InvalidInputError, match="was changed while it was uploaded"):
        uploads.run(upload)
    assert sent in (0, file_uploads.CHUNK_BYTES)  # nothing, or the first one, whose sender then waited
    assert "models/double/versions/1/large.bin" not in bucket.objects


def test_a_store_that_is_gone_is_named(client: Client, bucket: FaultyS3) -> None:
    upload = client.registry.announce_version(fakes.draft(), FILES)
    nowhere = PresignedUpload(url="http://127.0.0.1:9/x", headers={}, expires_at=0)
    lost = replace(upload, files=[replace(file, presigned=nowhere) for file in upload.files])
    with pytest.raises(UnavailableError, match=r"could not be uploaded: .*refused"):
        file_uploads.FileUploads(FILES, lambda: lost, lambda path, sent: None).run(lost)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (GRAPH + b"x", "was changed while it was uploaded"),
        (GRAPH[:-1], "was changed while it was uploaded"),
        (GRAPH[:-1] + b"!", "model.onnx has the sha256"),
    ],
)
def test_a_file_that_changes_meanwhile_is_not_published(
    client: Client, bucket: FaultyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: bytes, why: str
) -> None:
    """The client notices another size; other bytes of the same size are the server's to notice."""
    path = tmp_path / "model.onnx"
    path.write_bytes(GRAPH)
    announce = client_registry.RemoteRegistry.announce_version

    def announce_and_change(*given: object) -> object:
        upload = announce(*given)  # type: ignore[arg-type]  # as they came
        path.write_bytes(changed)
        return upload

    monkeypatch.setattr(client_registry.RemoteRegistry, "announce_version", announce_and_change)
    with pytest.raises(InvalidInputError, match=why):
        client.registry.publish(fakes.draft(), {"model.onnx": path})
    assert stored(bucket).list_versions("double") == []


def test_files_that_have_arrived_are_not_sent_again(client: Client, bucket: FaultyS3) -> None:
    """Who goes on with an upload asks what is missing, from another process too."""
    upload = client.registry.announce_version(fakes.draft(), FILES)
    bucket.fail("slow_down", MODEL)
    with pytest.raises(UnavailableError):
        file_uploads.FileUploads(FILES, lambda: upload, lambda path, sent: None).run(upload)
    bucket.heal()
    renewed = client.registry.get_upload("double", 1)
    assert [file.path for file in renewed.missing] == ["model.onnx"]
    file_uploads.FileUploads({"model.onnx": GRAPH}, lambda: renewed, lambda path, sent: None).run(renewed)
    assert client.registry.commit_version("double", 1).version == 1


def test_a_lost_answer_to_a_commit_is_asked_for_again(
    client: Client, bucket: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_registry, "COMMIT_PAUSE_S", 0.01)
    commit, lost = client_registry.RemoteRegistry.commit_version, threading.Event()

    def lose_first(self: client_registry.RemoteRegistry, name: str, version: int) -> Manifest:
        manifest = commit(self, name, version)
        if not lost.is_set():
            lost.set()
            raise UnavailableError("Nothing answers.")
        return manifest

    monkeypatch.setattr(client_registry.RemoteRegistry, "commit_version", lose_first)
    assert publish(client).version == 1
    assert stored(bucket).list_versions("double") == [1]


def test_a_version_is_published_though_its_announcement_cannot_be_removed(client: Client, bucket: FaultyS3) -> None:
    bucket.fail("403", "delete")
    manifest = publish(client)
    assert bucket.failures >= 1
    bucket.heal()
    assert stored(bucket).load_manifest("double", 1) == manifest
    assert client.registry.commit_version("double", 1) == manifest
    assert "models/double/versions/1/upload.json" not in bucket.objects


def test_nothing_of_the_servers_credentials_goes_to_the_bucket(
    client: Client, bucket: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 refuses a request that is signed and has an authorization too."""
    seen: list[dict[str, str]] = []
    handler = bucket.RequestHandlerClass
    do_put = handler.do_PUT  # type: ignore[attr-defined]  # which the fake bucket adds

    def note(self: object) -> None:
        seen.append({name.lower(): value for name, value in self.headers.items()})  # type: ignore[attr-defined]  # its own
        do_put(self)

    monkeypatch.setattr(handler, "do_PUT", note)
    publish(client)
    uploads = [headers for headers in seen if "x-amz-checksum-sha256" in headers]
    assert len(uploads) == len(FILES)
    for headers in uploads:
        assert not {"authorization", "transfer-encoding", "x-api-key"} & set(headers)
        assert headers["if-none-match"] == "*"
