"""Object storage: one interface over S3 (and servers with its API), the disk, and memory.

The only module that imports obstore. It moves bytes, whatever they mean; paths are keys below the store's URL.
The registry needs two conditional writes: `create` (only where there is no object) and `replace` (only if unchanged).
"""

import fcntl
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError as ObstoreExistsError
from obstore.exceptions import BaseError, PermissionDeniedError, PreconditionError
from obstore.store import LocalStore, MemoryStore, S3Store

from pilotlight.contracts.home_folder import expand_home
from pilotlight.errors import (
    AlreadyExistsError,
    BrokenDocumentError,
    ChangedError,
    DeniedError,
    InvalidInputError,
    NotFoundError,
    StoreError,
)
from pilotlight.native.calls import NativeCalls

# By one of these obstore finds credentials itself, as in every Lambda and container of AWS.
CREDENTIAL_VARIABLES = {"AWS_ACCESS_KEY_ID", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_WEB_IDENTITY_TOKEN_FILE"}
# Bounds the wait for an unreachable store: the handler answers 503 well within the gateway's 29 s.
TIMEOUTS: Any = {"connect_timeout": timedelta(seconds=3), "read_timeout": timedelta(seconds=10)}
PART_BYTES = 8 << 20  # of a large object, in one request (AWS, S3: Use byte-range fetches)
SINGLE_PUT_BYTES = 16 << 20  # up to which a file is created by one request, from memory
MAX_WHOLE_BYTES = 64 << 20  # of an object that is read whole; one document must not take an environment's memory
CHUNK_BYTES = 1 << 20  # bytes written at once; larger chunks take fresh memory, smaller ones more turns of the lock
RETRIES: Any = {"max_retries": 4, "retry_timeout": timedelta(seconds=10)}


@dataclass(frozen=True)
class StoredObject:
    """An object as read: its bytes, and the e_tag that `replace` compares."""

    data: bytes
    e_tag: str


class PrefetchedFiles(Protocol):
    """Files that were fetched before they were asked for."""

    @property
    def path(self) -> str:
        """Where the first of them can be opened."""

    @property
    def close(self) -> Callable[[], None]:
        """Free what they take; none of them can be opened after it."""


class ObjectStore:
    """Keys and bytes. Every method raises `StoreError` when the store fails."""

    def __init__(self, url: str, store: LocalStore | MemoryStore | S3Store, address: str = "") -> None:
        self.url = url  # before the paths of objects
        self.address = address or url  # by which another process opens the same store
        self._store = store

    def __repr__(self) -> str:
        return f"open_store({self.url!r})"

    def get(self, path: str) -> StoredObject:
        """Read the whole object; raise `NotFoundError` when there is none, `BrokenDocumentError` for a huge one."""
        with self._translate_errors(path):
            result = obstore.get(self._store, path)
            if (size := result.meta["size"]) > MAX_WHOLE_BYTES:
                raise BrokenDocumentError(
                    f"{path} has {size:,} bytes; what is read whole has at most {MAX_WHOLE_BYTES:,}."
                )
            return StoredObject(bytes(result.bytes()), result.meta["e_tag"] or "")

    def take_prefetched_files(self, name: str, version: int) -> PrefetchedFiles | None:
        """Return the files of a model's version where this store has fetched them already; this one fetches none."""
        return None

    def stream(self, path: str, chunk_bytes: int = 8 << 20) -> Iterator[memoryview]:
        """Read the object in chunks of about `chunk_bytes` bytes; raise `NotFoundError` when there is none."""
        with self._translate_errors(path):
            for chunk in obstore.get(self._store, path).stream(min_chunk_size=chunk_bytes):
                yield memoryview(chunk)

    def iterate_blocks(self, path: str, start: int, end: int, e_tag: str) -> Iterator[bytes]:
        """Read the bytes from `start` to before `end`, some MB at a time; raise `ChangedError` for another e_tag.

        Each block is a request of its own, so that its reader may take hours; a stream ends after 30 s.
        """
        while start < end:
            options: Any = {"if_match": e_tag, "range": (start, min(end, start + PART_BYTES))}
            with self._translate_errors(path):
                block = bytes(obstore.get(self._store, path, options=options).bytes())
            yield block
            start += len(block)

    def copy_range(self, path: str, fd: int, start: int, end: int) -> int:
        """Copy the bytes from `start` to before `end` to the same place in an open file; return the object's size.

        An object that ends earlier gives fewer bytes; one that does not exist raises `NotFoundError`.
        """
        with self._translate_errors(path):
            result = obstore.get(self._store, path, options={"range": (start, end)})
            for chunk in result.stream(min_chunk_size=CHUNK_BYTES):
                start += os.pwrite(fd, chunk, start)
            return result.meta["size"]

    def stream_range(self, path: str, start: int, end: int) -> Iterator[memoryview]:
        """Read the bytes from `start` to before `end` in chunks; raise `NotFoundError` when there is no object."""
        with self._translate_errors(path):
            result = obstore.get(self._store, path, options={"range": (start, end)})
            for chunk in result.stream(min_chunk_size=CHUNK_BYTES):
                yield memoryview(chunk)

    def get_size(self, path: str) -> int:
        """Return the object's size in bytes without reading it; raise `NotFoundError` when there is none."""
        with self._translate_errors(path):
            return obstore.head(self._store, path)["size"]

    def get_size_and_e_tag(self, path: str) -> tuple[int, str]:
        """Return the object's size in bytes and its e_tag without reading it; `NotFoundError` if there is none."""
        with self._translate_errors(path):
            meta = obstore.head(self._store, path)
            return meta["size"], meta["e_tag"] or ""

    def list_paths(self, prefix: str) -> Iterator[str]:
        """List the paths below the folder `prefix`, in no particular order."""
        with self._translate_errors(prefix):
            for chunk in obstore.list(self._store, prefix):
                yield from (meta["path"] for meta in chunk)

    def list_sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """List the paths below the folder `prefix`, each with its size in bytes, in no particular order."""
        with self._translate_errors(prefix):
            for chunk in obstore.list(self._store, prefix):
                yield from ((meta["path"], meta["size"]) for meta in chunk)

    def list_modification_times(self, prefix: str) -> Iterator[tuple[str, datetime]]:
        """List the paths below the folder `prefix`, each with the time of its last write, in no particular order."""
        with self._translate_errors(prefix):
            for chunk in obstore.list(self._store, prefix):
                yield from ((meta["path"], meta["last_modified"]) for meta in chunk)

    def list_folders(self, prefix: str) -> list[str]:
        """List the names of the folders directly below the folder `prefix`, sorted."""
        with self._translate_errors(prefix):
            prefixes = obstore.list_with_delimiter(self._store, prefix)["common_prefixes"]
            return sorted(folder.rstrip("/").rsplit("/", 1)[-1] for folder in prefixes)

    def put(self, path: str, data: bytes | Path) -> None:
        """Write the object, over an existing one; a `Path` is uploaded in parts. Readers see all of it or nothing."""
        with self._translate_errors(path):
            obstore.put(self._store, path, data)

    def put_chunks(self, path: str, chunks: Iterable[bytes | memoryview]) -> None:
        """Write the object as `put` does, from chunks that need not fit into memory together."""
        with self._translate_errors(path):
            writer = obstore.open_writer(self._store, path)
            for chunk in chunks:  # if a chunk fails the writer stays open, and nothing is written
                writer.write(chunk)
            writer.close()

    def create(self, path: str, data: bytes) -> None:
        """Write the object only if there is none; raise `AlreadyExistsError` otherwise."""
        with self._translate_errors(path):
            obstore.put(self._store, path, data, mode="create")

    def create_from_file(self, path: str, source: Path) -> None:
        """Write a file's bytes as an object only if there is none; raise `AlreadyExistsError` otherwise."""
        self.create(path, source.read_bytes())

    def replace(self, path: str, data: bytes, e_tag: str) -> None:
        """Write the object only if its e_tag is still `e_tag`; raise `ChangedError` otherwise."""
        with self._translate_errors(path):
            obstore.put(self._store, path, data, mode={"e_tag": e_tag})

    def delete(self, path: str) -> None:
        """Remove the object; do nothing if there is none."""
        try:
            with self._translate_errors(path):
                obstore.delete(self._store, path)
        except NotFoundError:
            return
        except TypeError as exc:  # obstore raises it only here, for a path with `..` or control characters
            raise InvalidInputError(f"{path!r} is not a path in a store.") from exc

    def _translate_errors(self, path: str) -> AbstractContextManager[None]:
        return translate_errors(self.url, path)


class DiskStore(ObjectStore):
    """A folder. obstore writes atomically and creates exclusively there; this class adds the compare-and-swap."""

    def __init__(self, url: str, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            super().__init__(url, LocalStore(folder))
        except (BaseError, OSError) as exc:
            raise InvalidInputError(f"{url!r} cannot be a store: {format_store_error(exc)}") from exc
        self._folder = folder

    def create_from_file(self, path: str, source: Path) -> None:
        """Copy a file of any size beside its place, and link it into that, which fails where something is."""
        if self._current_e_tag(path) is not None:
            raise AlreadyExistsError(f"There is something at {self.url}/{path} already.")
        target = self._folder / path.strip("/")  # as obstore has it; all else that leaves the folder was refused above
        staged = target.with_name(f"{target.name}#{secrets.randbits(64)}")  # a name as of obstore's own, never listed
        with self._translate_errors(path):
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, staged)
                os.link(staged, target)
            except FileExistsError:
                raise AlreadyExistsError(f"There is something at {self.url}/{path} already.") from None
            finally:
                staged.unlink(missing_ok=True)

    def replace(self, path: str, data: bytes, e_tag: str) -> None:
        """Compare and swap under a lock that all writers of this path take; the write itself is an atomic rename."""
        with self._lock_path(path):
            if self._current_e_tag(path) != e_tag:
                raise ChangedError(f"{self.url}/{path} was changed by somebody else; read it again.")
            self.put(path, data)

    def _current_e_tag(self, path: str) -> str | None:
        try:
            with self._translate_errors(path):
                return obstore.head(self._store, path)["e_tag"]
        except NotFoundError:
            return None  # as on S3, where a missing object fails the comparison

    @contextmanager
    def _lock_path(self, path: str) -> Iterator[None]:
        """Hold the path's lock file. The kernel releases it when the process dies, so that no lock is ever stale."""
        locks = self._folder.with_name(self._folder.name + ".locks")  # beside the store: a listing shows objects only
        with self._translate_errors(path):
            locks.mkdir(exist_ok=True)
            with (locks / hashlib.sha256(path.encode()).hexdigest()).open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield


class BucketStore(ObjectStore):
    """A bucket of S3, or of a server with its API; this class adds create-only uploads in parts."""

    def __init__(self, url: str, store: S3Store, address: str, endpoint: str) -> None:
        super().__init__(url, store, address)
        self._endpoint = endpoint

    def create_from_file(self, path: str, source: Path) -> None:
        """Upload a file in parts, unless it is small; joining them fails where there is an object."""
        if source.stat().st_size <= SINGLE_PUT_BYTES:
            return super().create_from_file(path, source)
        from pilotlight.storage import multipart_upload  # botocore takes 200 ms to import

        bucket, _, prefix = self.url.removeprefix("s3://").partition("/")
        key = f"{prefix}/{path}".lstrip("/")
        multipart_upload.create_object(multipart_upload.create_client(self._endpoint), bucket, key, source)
        return None


def open_store(url: str, *, patience_s: float | None = None) -> ObjectStore:
    """Open `s3://bucket/prefix`, `file:///folder`, a plain folder path, also below `~`, or `memory://`.

    S3 takes region and credentials from the usual AWS_* variables. `s3://bucket?endpoint=http://host:9000`, or the
    variable AWS_ENDPOINT_URL, names another server with S3's API; it is given up after `patience_s` seconds. Raises
    `InvalidInputError` for another scheme, and for a folder that cannot be made.
    """
    url = expand_home(url)
    parts = urlsplit(url)
    if parts.scheme == "s3" and parts.netloc:
        return _open_s3_store(f"s3://{parts.netloc}{parts.path.rstrip('/')}", parts.query, patience_s)
    if parts.scheme == "memory":
        return ObjectStore("memory://", MemoryStore())
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path:
        return DiskStore(url.rstrip("/"), Path(unquote(parts.path)))
    if url and "://" not in url and not url.startswith(("s3:", "file:")):
        return DiskStore(url.rstrip("/") or "/", Path(url).absolute())
    raise InvalidInputError(f"{url!r} is not a store; use s3://bucket/prefix, file:///folder, a folder or memory://.")


def _open_s3_store(url: str, query: str, patience_s: float | None) -> ObjectStore:
    options = dict(parse_qsl(query))
    endpoint = options.pop("endpoint", os.environ.get("AWS_ENDPOINT_URL", ""))
    if options:
        raise InvalidInputError(f"{url} takes no {', '.join(options)}; after the '?' there may be endpoint=http://...")
    if endpoint and not (urlsplit(endpoint).scheme in ("http", "https") and urlsplit(endpoint).hostname):
        raise InvalidInputError(f"{endpoint!r} is not an endpoint for {url}; write http://host:port or https://host.")
    arguments: dict[str, Any] = {
        "client_options": {"allow_http": endpoint.startswith("http://"), **_limit_wait(TIMEOUTS, patience_s)},
        "retry_config": _limit_wait(RETRIES, patience_s),
    }
    if endpoint:
        arguments["endpoint"] = endpoint
    if not CREDENTIAL_VARIABLES.intersection(os.environ):
        arguments["credential_provider"] = _find_aws_credentials()
    return BucketStore(url, S3Store.from_url(url, **arguments), f"{url}?{query}" if query else url, endpoint)


def _limit_wait(options: Mapping[str, Any], patience_s: float | None) -> dict[str, Any]:
    """Shorten the times among some options to a caller's patience: half of it for each attempt."""
    if patience_s is None:
        return dict(options)
    most = timedelta(seconds=patience_s / 2)
    return {name: min(value, most) if isinstance(value, timedelta) else value for name, value in options.items()}


def _find_aws_credentials() -> Any:  # noqa: ANN401 - obstore's protocol for credential providers is private
    """Find credentials as the aws command does: in profiles, SSO or an instance role; a Lambda has variables."""
    from botocore.exceptions import BotoCoreError  # boto3 takes 200 ms to import
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        return Boto3CredentialProvider()
    except (ValueError, BotoCoreError) as exc:  # raised for no credentials at all; for a profile that does not exist
        raise InvalidInputError(f"No AWS credentials: {exc}. Set AWS_PROFILE, or run `aws configure`.") from exc


@contextmanager
def translate_errors(url: str, path: str) -> Iterator[None]:
    """Turn obstore's errors into Pilotlight's, each with its place."""
    place = f"{url}/{path}"
    try:
        with NativeCalls(
            "obstore", lambda cause: StoreError(f"The store failed at {place}: {cause}."), ()
        ):  # its panics
            yield
    except FileNotFoundError as exc:
        raise NotFoundError(f"There is nothing at {place}.") from exc
    except ObstoreExistsError as exc:
        raise AlreadyExistsError(f"There is something at {place} already.") from exc
    except PreconditionError as exc:
        raise ChangedError(f"{place} was changed by somebody else; read it again.") from exc
    except PermissionDeniedError as exc:
        raise DeniedError(f"The store failed at {place}: {format_store_error(exc)}") from exc
    except ValueError as exc:  # obstore raises it for a path with `..` or control characters
        raise InvalidInputError(f"{path!r} is not a path in a store: {format_store_error(exc)}") from exc
    except (BaseError, OSError) as exc:
        raise StoreError(f"The store failed at {place}: {format_store_error(exc)}") from exc


def format_store_error(exc: BaseException) -> str:
    """Format the code and message of S3, else the error's first line; the other lines are obstore's source."""
    match = re.search(r"<Code>(.*?)</Code>\s*<Message>(.*?)</Message>", str(exc), re.DOTALL)
    return f"{match[1]}: {match[2]}" if match else str(exc).strip().split("\n", 1)[0]
