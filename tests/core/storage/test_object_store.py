"""The same promises from every kind of store."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.errors import (
    AlreadyExistsError,
    ChangedError,
    DeniedError,
    InvalidInputError,
    NotFoundError,
    StoreError,
)
from pilotlight.storage import object_store
from pilotlight.storage.object_store import ObjectStore, open_store
from tests import faulty_s3


def test_reads_what_was_put(store: ObjectStore) -> None:
    store.put("a/b.bin", b"\x00\xff")
    assert store.get("a/b.bin").data == b"\x00\xff"
    assert b"".join(store.stream("a/b.bin")) == b"\x00\xff"


def test_puts_a_file_in_parts(store: ObjectStore, tmp_path: Path) -> None:
    content = bytes(range(256)) * 50_000  # 12.8 MB: more than one part
    (tmp_path / "big").write_bytes(content)
    store.put("a/big", tmp_path / "big")
    assert b"".join(store.stream("a/big", 1 << 20)) == content


def test_put_replaces(store: ObjectStore) -> None:
    store.put("a", b"1")
    store.put("a", b"2")
    assert store.get("a").data == b"2"


def test_delete_leaves_nothing_and_needs_nothing(store: ObjectStore) -> None:
    store.put("a/b", b"1")
    for _ in range(2):
        store.delete("a/b")
    with pytest.raises(NotFoundError):
        store.get("a/b")
    assert list(store.list_paths("a")) == []


def test_create_is_exclusive(store: ObjectStore) -> None:
    store.create("a/b", b"first")
    with pytest.raises(AlreadyExistsError, match="a/b already"):
        store.create("a/b", b"second")
    assert store.get("a/b").data == b"first"


def test_replace_compares_and_swaps(store: ObjectStore) -> None:
    store.put("a/b", b"1")
    seen = store.get("a/b")
    store.replace("a/b", b"2", seen.e_tag)
    with pytest.raises(ChangedError, match="changed by somebody else"):
        store.replace("a/b", b"3", seen.e_tag)
    assert store.get("a/b").data == b"2"


def test_replace_of_nothing_is_a_lost_comparison(store: ObjectStore) -> None:
    with pytest.raises(ChangedError):
        store.replace("a/b", b"1", '"0"')
    with pytest.raises(NotFoundError):
        store.get("a/b")


def test_one_of_many_swaps_wins(store: ObjectStore) -> None:
    store.put("counter", b"0")

    def increment(_: int) -> None:
        while True:
            seen = store.get("counter")
            try:
                return store.replace("counter", b"%d" % (int(seen.data) + 1), seen.e_tag)
            except ChangedError:
                continue

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(increment, range(40)))
    assert store.get("counter").data == b"40"


def test_missing_objects_are_not_found(store: ObjectStore) -> None:
    with pytest.raises(NotFoundError, match=r"nothing at .*a/b"):
        store.get("a/b")
    with pytest.raises(NotFoundError):
        list(store.stream("a/b"))


def test_lists_paths_and_folders(store: ObjectStore) -> None:
    for path in ("models/b/versions/1/x", "models/a/versions/2/x", "models/ab/y"):
        store.put(path, b"")
    assert sorted(store.list_paths("models/a")) == ["models/a/versions/2/x"]
    assert store.list_folders("models") == ["a", "ab", "b"]
    assert list(store.list_paths("nothing")) == []
    assert store.list_folders("nothing") == []


@pytest.mark.parametrize("path", ["../secret", "a/../../secret", "a/./b"])
def test_no_path_leaves_the_store(store: ObjectStore, path: str) -> None:
    for act in (store.get, store.delete):
        with pytest.raises(InvalidInputError, match="not a path in a store"):
            act(path)


@pytest.mark.parametrize("url", ["", "http://host/x", "s3:/bucket", "s3://", "file://host/x", "gs://bucket"])
def test_unknown_urls_say_what_is_known(url: str) -> None:
    with pytest.raises(InvalidInputError, match="use s3://bucket/prefix"):
        open_store(url)


def test_the_url_may_name_the_server(moto_url: str, bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    store = open_store(f"{bucket_url}?endpoint={moto_url}")
    store.create("a", b"1")
    assert store.get("a").data == b"1"
    assert store.url == bucket_url


def test_another_process_opens_the_same_store(bucket_url: str, moto_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate's probe is one; without the server's address it asked AWS."""
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    store = open_store(f"{bucket_url}?endpoint={moto_url}")
    store.put("a", b"1")
    assert open_store(store.address).get("a").data == b"1"


@pytest.mark.parametrize("endpoint", ["http://", "host:9000", "ftp://host"])
def test_a_server_that_is_no_url_is_refused(endpoint: str) -> None:
    with pytest.raises(InvalidInputError, match="is not an endpoint for s3://bucket"):
        open_store(f"s3://bucket?endpoint={endpoint}")


def test_other_options_of_the_url_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"takes no region; .* endpoint=http"):
        open_store("s3://bucket?region=moon")


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (str(tmp_path / "file" / "store"), "/proc/store"):
        with pytest.raises(InvalidInputError, match=f"'{folder}' cannot be a store"):
            open_store(folder)


@pytest.mark.usefixtures("aws_environment")
def test_a_bucket_that_is_not_there_is_named_in_s3s_own_words() -> None:
    with pytest.raises(StoreError, match=r"s3://nowhere/models: NoSuchBucket: The specified bucket does not exist$"):
        open_store("s3://nowhere").list_folders("models")


@pytest.mark.parametrize("profile", ["", "nobody"])
def test_missing_credentials_say_where_they_come_from(
    profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    if profile:
        monkeypatch.setenv("AWS_PROFILE", profile)
    with pytest.raises(InvalidInputError, match=r"No AWS credentials: .*AWS_PROFILE, or run `aws configure`"):
        open_store("s3://bucket")


def test_store_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with pytest.raises(StoreError, match="s3://bucket/x"):
        open_store("s3://bucket").get("x")


@given(data=st.binary(max_size=4096), chunk=st.integers(1, 5000))
def test_streams_any_bytes_in_any_chunks(data: bytes, chunk: int) -> None:
    memory = open_store("memory://")
    memory.put("x", data)
    assert b"".join(memory.stream("x", chunk)) == data


def test_a_span_is_the_bytes_between(store: ObjectStore) -> None:
    store.put("a", b"0123456789")
    assert b"".join(store.stream_range("a", 2, 9)) == b"2345678"
    assert b"".join(store.stream_range("a", 8, 20)) == b"89"
    with pytest.raises(NotFoundError):
        list(store.stream_range("b", 0, 1))


def increment_often(url: str, times: int) -> None:
    store = open_store(url)
    for _ in range(times):
        while True:
            seen = store.get("counter")
            try:
                store.replace("counter", b"%d" % (int(seen.data) + 1), seen.e_tag)
                break
            except ChangedError:
                continue


def test_disk_swaps_across_processes(tmp_path: Path) -> None:
    url = str(tmp_path / "store")
    open_store(url).put("counter", b"0")
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=increment_often, args=(url, 25)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    assert open_store(url).get("counter").data == b"100"


def test_blocks_are_the_bytes_between_and_of_one_object_only(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pilotlight.storage.object_store.PART_BYTES", 3)
    store.put("a", b"0123456789")
    size, e_tag = store.get_size_and_e_tag("a")
    assert size == 10
    assert list(store.iterate_blocks("a", 2, size, e_tag)) == [b"234", b"567", b"89"]
    assert list(store.iterate_blocks("a", 10, size, e_tag)) == []
    rest = store.iterate_blocks("a", 0, size, e_tag)
    next(rest)
    store.put("a", b"9876543210!")
    with pytest.raises(ChangedError):
        next(rest)


def test_what_is_written_bit_by_bit_is_seen_whole_or_not_at_all(store: ObjectStore) -> None:
    def broken() -> Iterator[bytes]:
        yield b"x" * 6_000_000
        raise StoreError("in the middle")

    with pytest.raises(StoreError, match="in the middle"):
        store.put_chunks("a", broken())
    assert list(store.list_paths("")) == []
    store.put_chunks("a", (bytes([number]) * 1_000_000 for number in range(12)))
    assert store.get("a").data == b"".join(bytes([number]) * 1_000_000 for number in range(12))
    store.put_chunks("b", iter(()))
    assert store.get("b").data == b""


def test_a_store_that_denies_is_told_from_one_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with faulty_s3.serving() as server:
        server.objects["a"] = b"x"
        server.fail("403", "a")
        with pytest.raises(DeniedError, match="403"):
            open_store(server.url).get("a")


def test_a_caller_may_have_less_patience_than_the_default() -> None:
    """The authorizer must answer within its function's time, whatever the store does."""
    waits = object_store._limit_wait(object_store.TIMEOUTS, 3.0)
    assert waits == {"connect_timeout": timedelta(seconds=1.5), "read_timeout": timedelta(seconds=1.5)}
    assert object_store._limit_wait(object_store.RETRIES, 3.0) == {
        "max_retries": 4, "retry_timeout": timedelta(seconds=1.5),
    }  # fmt: skip
    assert object_store._limit_wait(object_store.RETRIES, None) == object_store.RETRIES
