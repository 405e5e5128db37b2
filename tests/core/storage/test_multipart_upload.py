"""Large files become objects once, in parts, and never over what is there."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from pilotlight.errors import AlreadyExistsError, DeniedError, InvalidInputError, StoreError
from pilotlight.storage import multipart_upload, object_store
from pilotlight.storage.object_store import ObjectStore, open_store


class FakeS3:
    """S3's multipart calls; joins only under `If-None-Match: *`, as the bucket's policy asks."""

    def __init__(self, refusal: Exception | None = None) -> None:
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.refusal = refusal
        self._lock = threading.Lock()

    def create_multipart_upload(self, **named: str) -> dict[str, str]:
        self.uploads[named["Key"]] = {}
        return {"UploadId": named["Key"]}

    def upload_part(self, **named: Any) -> dict[str, str]:  # noqa: ANN401 - numbers and bytes
        if self.refusal is not None:
            raise self.refusal
        with self._lock:
            self.uploads[named["UploadId"]][named["PartNumber"]] = named["Body"]
        return {"ETag": f"part-{named['PartNumber']}"}

    def complete_multipart_upload(self, **named: Any) -> None:  # noqa: ANN401 - texts and parts
        assert named["IfNoneMatch"] == "*"
        if named["Key"] in self.objects:
            raise client_error("PreconditionFailed")
        parts = [part["PartNumber"] for part in named["MultipartUpload"]["Parts"]]
        assert parts == list(range(1, len(parts) + 1))
        stored = self.uploads.pop(named["UploadId"])
        self.objects[named["Key"]] = b"".join(stored[number] for number in parts)

    def abort_multipart_upload(self, **named: str) -> None:
        self.uploads.pop(named["UploadId"], None)


def client_error(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "PutObject")


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of seven parts, the last of them short."""
    monkeypatch.setattr(multipart_upload, "PART_BYTES", 1000)
    monkeypatch.setattr(object_store, "SINGLE_PUT_BYTES", 1000)
    (tmp_path / "large").write_bytes(bytes(range(256)) * 25)
    return tmp_path / "large"


@pytest.fixture
def larger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of two parts of the least size that S3, and moto, take."""
    monkeypatch.setattr(multipart_upload, "PART_BYTES", 5 << 20)
    monkeypatch.setattr(object_store, "SINGLE_PUT_BYTES", 1000)
    (tmp_path / "larger").write_bytes(bytes(range(256)) * 24_000)
    return tmp_path / "larger"


def test_the_parts_are_joined_in_their_order(large: Path) -> None:
    s3 = FakeS3()
    multipart_upload.create_object(s3, "bucket", "a/large", large)
    assert s3.objects == {"a/large": large.read_bytes()}


def test_what_is_there_stays_and_no_part_is_left(large: Path) -> None:
    s3 = FakeS3()
    s3.objects["a/large"] = b"first"
    with pytest.raises(AlreadyExistsError, match="s3://bucket/a/large already"):
        multipart_upload.create_object(s3, "bucket", "a/large", large)
    assert (s3.objects, s3.uploads) == ({"a/large": b"first"}, {})


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (client_error("AccessDenied"), DeniedError),
        (client_error("SlowDown"), StoreError),
        (client_error("NoSuchUpload"), AlreadyExistsError),
        (EndpointConnectionError(endpoint_url="http://x"), StoreError),
    ],
)
def test_a_failed_part_ends_the_upload(large: Path, refusal: Exception, error: type[Exception]) -> None:
    s3 = FakeS3(refusal)
    with pytest.raises(error):
        multipart_upload.create_object(s3, "bucket", "a/large", large)
    assert (s3.objects, s3.uploads) == ({}, {})


def test_no_file_has_more_parts_than_s3_takes() -> None:
    size = 5_000_000_000_000
    parts = list(multipart_upload.split_into_parts(size))
    assert len(parts) <= multipart_upload.MAX_PARTS
    assert sum(length for _, _, length in parts) == size
    assert list(multipart_upload.split_into_parts(0)) == []


def test_every_kind_of_store_creates_a_file_once(store: ObjectStore, larger: Path) -> None:
    """On S3 in parts, which moto joins as it does; that it would join over an object is told by the fake above."""
    store.create_from_file("a/large", larger)
    assert store.get("a/large").data == larger.read_bytes()
    small = larger.with_name("small")
    small.write_bytes(b"small")
    store.create_from_file("a/small", small)
    with pytest.raises(AlreadyExistsError, match="a/small already"):
        store.create_from_file("a/small", small)


def test_a_folder_takes_a_file_without_a_lock_beside_it(
    larger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container may write to the store that is mounted in it, and not beside that."""
    folder = tmp_path / "mounted" / "store"
    store, copy, seen = open_store(str(folder)), shutil.copyfile, []

    def look(source: Path, staged: Path) -> None:
        copy(source, staged)
        seen.append((staged.exists(), list(store.list_paths(""))))

    monkeypatch.setattr(shutil, "copyfile", look)
    store.create_from_file("a/large", larger)
    assert seen == [(True, [])]
    assert sorted(path.name for path in folder.parent.rglob("*")) == ["a", "large", "store"]


@pytest.mark.parametrize("path", ["/a", "a/", "/../a", "a/../../b", "a//b", "."])
def test_a_file_never_leaves_its_folder(tmp_path: Path, path: str) -> None:
    (tmp_path / "source").write_bytes(b"1")
    store = open_store(str(tmp_path / "store"))
    with suppress(InvalidInputError):
        store.create_from_file(path, tmp_path / "source")
        assert store.get(path).data == b"1"
    assert set(tmp_path.iterdir()) == {tmp_path / "source", tmp_path / "store"}
    assert not Path("/a").exists()


def test_one_of_many_creates_a_file_in_a_folder(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    sources = [tmp_path / str(number) for number in range(8)]
    for number, source in enumerate(sources):
        source.write_bytes(bytes([number]) * 1_000_000)

    def create(source: Path) -> bool:
        try:
            store.create_from_file("a/large", source)
        except AlreadyExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, sources))
    assert won.count(True) == 1
    assert store.get("a/large").data == sources[won.index(True)].read_bytes()
    assert [path.name for path in (tmp_path / "store" / "a").iterdir()] == ["large"]


def test_a_file_is_created_below_the_prefix_of_its_store(larger: Path, bucket_url: str) -> None:
    address, _, query = bucket_url.partition("?")
    below = open_store(f"{address}/below/it?{query}" if query else f"{address}/below/it")
    below.create_from_file("a", larger)
    assert open_store(bucket_url).get("below/it/a").data == larger.read_bytes()
