"""The files of a data set: on disk beside the recipe or elsewhere, in the run's own store, or in another one.

Files of any format are found here, and downloaded one at a time.
"""

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit

from functions.train.data.shared_downloads import SharedDownloads
from pilotlight.contracts.home_folder import expand_home
from pilotlight.errors import InvalidInputError, NotFoundError, StoreError
from pilotlight.storage.download import download_object
from pilotlight.storage.object_store import ObjectStore, open_store

ATTEMPTS, PAUSE_S = 3, 0.2  # at a store that fails in the middle of a file; it repeats single requests by itself


@dataclass(frozen=True)
class DataRoot:
    """Where the paths of a recipe begin."""

    folder: Path = Path()  # of the recipe file, for relative ones
    store: ObjectStore | None = None  # the run's own, for those that begin with store:


@dataclass(frozen=True)
class DataFile:
    """A file on disk or in a store."""

    name: str  # relative to the data set's folder, for messages
    location: Path | str
    store: ObjectStore | None = None

    @contextmanager
    def local_path(self) -> Iterator[Path]:
        """Provide the file on disk while it is needed; `StoreError` when three attempts to read it fail."""
        if self.store is None:
            yield Path(self.location)
            return
        with TemporaryDirectory(prefix="pilotlight-data-") as folder:
            path = Path(folder, PurePosixPath(self.name).name)
            fetch_object(self.store, str(self.location), path)
            yield path

    @contextmanager
    def shared_path(self) -> Iterator[Path]:
        """Provide the file as `local_path` does, downloaded once for all processes of this machine that need it."""
        store, shared = self.store, SharedDownloads.find()
        if store is None or shared is None:
            with self.local_path() as path:
                yield path
            return
        with TemporaryDirectory(prefix="pilotlight-data-", dir=shared.folder.parent) as folder:
            path, key = Path(folder, PurePosixPath(self.name).name), str(self.location)
            shared.fetch(f"{store.url}/{key}", path, lambda target: fetch_object(store, key, target))
            yield path


def fetch_object(store: ObjectStore, key: str, path: Path) -> None:
    """Download an object to a file, from the start again when the store breaks off."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            copy_object(store, key, path)
        except NotFoundError as exc:
            raise InvalidInputError(f"{exc} It is named by data.path.") from exc
        except StoreError:
            if attempt == ATTEMPTS:
                raise
            time.sleep(PAUSE_S * attempt)
        else:
            return


def copy_object(store: ObjectStore, key: str, path: Path) -> None:
    """Download an object to a file, once; `StoreError` when it is incomplete."""
    expected = store.get_size(key)
    with path.open("w+b") as target:  # large ones are read again on the way, for their hash
        size, _ = download_object(store, key, target, expected)
    if size != expected:
        raise StoreError(f"The store gave {size:,} of the {expected:,} bytes of {key}.")


def find_files(
    paths: Sequence[str], data_root: DataRoot, extensions: Sequence[str], key: str = "path"
) -> list[DataFile]:
    """Find the files that the paths of a recipe name, sorted by name for each path; at least one.

    In a folder these are the files with one of the extensions, at any depth, without those whose names begin with a
    dot.
    """
    files = [
        file
        for path in paths
        for file in sorted(list_path_files(path, data_root, extensions), key=lambda file: file.name)
    ]
    if not files:
        raise InvalidInputError(f"data.{key} is {', '.join(paths)}, where no file ends in {' or '.join(extensions)}.")
    return files


def list_path_files(path: str, data_root: DataRoot, extensions: Sequence[str]) -> Iterator[DataFile]:
    """List the files that one path names, in any order."""
    path = expand_home(path)
    if path.startswith("store:"):
        if data_root.store is None:
            raise InvalidInputError(f"data.path is {path}, and there is no store to take it from.")
        return list_store_files(path.removeprefix("store:").strip("/"), data_root.store, extensions)
    if path.startswith("s3://"):
        bucket, mark, endpoint = path.partition("?endpoint=")
        parts = urlsplit(bucket)
        return list_store_files(
            unquote(parts.path).strip("/"), open_store(f"s3://{parts.netloc}{mark}{endpoint}"), extensions
        )
    if "://" in path and not path.startswith("file:///"):
        raise InvalidInputError(f"data.path is {path}; it takes a path, file:///folder, s3://bucket/key or store:key.")
    local = unquote(urlsplit(path).path) if path.startswith("file:///") else path
    return list_local_files(data_root.folder / local, extensions)


def list_local_files(path: Path, extensions: Sequence[str]) -> Iterator[DataFile]:
    """List the file, the files of the folder, or the files that match a pattern."""
    if path.is_file():
        yield DataFile(path.name, path)
        return
    root, pattern = split_pattern(path.as_posix())
    if not Path(root).is_dir():
        raise InvalidInputError(f"There is no {path}, which data.path names.")
    for found in Path(root).rglob("*"):
        name = found.relative_to(root).as_posix()
        if is_selected_file(name, pattern, extensions) and found.is_file():
            yield DataFile(name, found)


def list_store_files(key: str, store: ObjectStore, extensions: Sequence[str]) -> Iterator[DataFile]:
    """List the matching files of a store, where a key with one of the extensions is a file."""
    if "*" not in key and key.lower().endswith(tuple(extensions)):
        yield DataFile(PurePosixPath(key).name, key, store)
        return
    root, pattern = split_pattern(key)
    for found in store.list_paths(root):
        name = found.removeprefix(root).lstrip("/")
        if is_selected_file(name, pattern, extensions):
            yield DataFile(name, found, store)


def split_pattern(path: str) -> tuple[str, str | None]:
    """Split a path into its folder and the pattern below it, which is None where there is none."""
    fixed, star, _ = path.partition("*")
    if not star:
        return path, None
    root, slash, _ = fixed.rpartition("/")
    return root or slash, path[len(root) + len(slash) :]


def is_selected_file(name: str, pattern: str | None, extensions: Sequence[str]) -> bool:
    """Return whether a file matches: its pattern, in which only ** passes slashes, or without one its extension."""
    if any(part.startswith(".") for part in PurePosixPath(name).parts):
        return False
    if pattern is None:
        return not extensions or name.lower().endswith(tuple(extensions))
    words = (re.escape(word) for word in re.split(r"(\*\*/|\*\*|\*)", pattern))
    regex = "".join({r"\*\*/": "(.*/)?", r"\*\*": ".*", r"\*": "[^/]*"}.get(word, word) for word in words)
    return re.fullmatch(regex, name) is not None
