"""Versions that are uploaded over HTTP: announced with their hashes, uploaded by presigned URLs, then committed.

    models/<name>/versions/<n>/claim.json    as of every publisher; the number is taken when the upload is announced
    models/<name>/versions/<n>/upload.json   create-only: the manifest to come, as it was announced
    models/<name>/versions/<n>/<files>       create-only, by the URLs
    models/<name>/versions/<n>/manifest.json create-only and last, once every file is there and has its hash

The manifest is what was announced, so that a commit has nothing to say, and may be repeated or raced. Until then no
reader sees anything. What is never committed is pruned like the unfinished upload of any publisher.
"""

import logging
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Protocol

from pilotlight.contracts.manifest import Manifest, ManifestDraft, ManifestFile
from pilotlight.contracts.names import check_name
from pilotlight.contracts.signed_upload import MAX_UPLOAD_BYTES
from pilotlight.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    StoreError,
    TooLargeError,
    UnsupportedError,
)
from pilotlight.registry.registry import Registry, build_manifest, version_path
from pilotlight.storage.documents import Document
from pilotlight.storage.download import hash_chunks

log = logging.getLogger(__name__)

UPLOAD_FILE = "upload.json"
MAX_HASHED_BYTES = 1_000_000_000  # of a file that is read from a bucket: a function has 28 s
CHECKS_AT_ONCE = 8  # requests to the store for hashes
SHOWN_FILES = 3  # in an error


class StoredHashes(Protocol):
    """A store that computes the hashes of what it takes."""

    def read_sha256(self, path: str) -> str | None:
        """Read the hash in hex of an object; None where the store has not computed it."""


class VersionUploads:
    """The versions of a registry that are uploaded; `hashes` are those of the store, None where it keeps none."""

    def __init__(self, registry: Registry, hashes: StoredHashes | None = None) -> None:
        self._registry = registry
        self._store = registry.store
        self._hashes = hashes

    def announce(self, draft: ManifestDraft, files: Iterable[ManifestFile]) -> Manifest:
        """Check a draft with its files, take a number for it, and return the manifest that a commit will write.

        Raises `InvalidInputError` for what would not be a manifest, `TooLargeError` for a file beyond one upload.
        """
        check_name(draft.name, "model name")
        announced = build_manifest(draft, tuple(sorted(files, key=lambda file: file.path)))
        for file in announced.files:
            check_size(file)
        announced = self._registry.claim_version(announced)
        document = self._open_upload(announced.name, announced.version)
        try:
            document.create(announced)
        except AlreadyExistsError:  # its own, if the answer to the first attempt was lost
            if document.read().nonce != announced.nonce:
                raise
        return announced

    def load(self, name: str, version: int) -> Manifest:
        """Load what was announced; raise `NotFoundError` for a version that is not being uploaded."""
        try:
            return self._open_upload(name, version).read()
        except NotFoundError as exc:
            raise NotFoundError(
                f"{name}:{version} is not being uploaded; POST /registry/models/{name}/versions begins an upload."
            ) from exc

    def list_uploaded_sizes(self, announced: Manifest) -> Mapping[str, int]:
        """List the files that have arrived, with their sizes in bytes."""
        folder = version_path(announced.name, announced.version, "")
        return {path.removeprefix(folder): size for path, size in self._store.list_sizes(folder.rstrip("/"))}

    def commit(self, name: str, version: int) -> Manifest:
        """Write the manifest once every file is there and is what was announced; a committed version is returned.

        Raises `ConflictError` while a file is missing, `InvalidInputError` for one of other bytes.
        """
        try:
            announced = self.load(name, version)
        except NotFoundError as exc:  # another commit may have ended it a moment ago
            return self._load_committed(name, version, exc)
        if not self._is_committed(name, version):
            self._check_files(announced)
        self._registry.commit_version(announced)
        try:
            self._store.delete(version_path(name, version, UPLOAD_FILE))
        except StoreError as exc:
            log.warning("%s:%d is published; what announced it stays beside it. %s", name, version, exc)
        return announced

    def _is_committed(self, name: str, version: int) -> bool:
        with suppress(NotFoundError):
            self._store.get_size(version_path(name, version, "manifest.json"))
            return True
        return False

    def _load_committed(self, name: str, version: int, error: NotFoundError) -> Manifest:
        with suppress(NotFoundError):
            return self._registry.load_manifest(name, version)
        raise error

    def _check_files(self, announced: Manifest) -> None:
        """Check that every file is there, and then the size and hash of each."""
        sizes = self.list_uploaded_sizes(announced)
        refuse_missing_files(announced, sizes)
        for file in announced.files:
            if sizes[file.path] != file.bytes:
                raise refuse_file(announced, file, f"has {sizes[file.path]:,} bytes, but {file.bytes:,} were announced")
        with ThreadPoolExecutor(CHECKS_AT_ONCE) as threads:
            for file, sha256 in zip(
                announced.files, threads.map(lambda file: self._find_sha256(announced, file), announced.files),
                strict=True,
            ):  # fmt: skip
                if sha256 != file.sha256:
                    raise refuse_file(announced, file, f"has the sha256 {sha256}, but {file.sha256} was announced")

    def _find_sha256(self, announced: Manifest, file: ManifestFile) -> str:
        """Find the hash of a file: the store's own or, where that has computed none, that of its bytes."""
        path = version_path(announced.name, announced.version, file.path)
        if self._hashes is not None:
            if (known := self._hashes.read_sha256(path)) is not None:
                return known
            if file.bytes > MAX_HASHED_BYTES:
                raise UnsupportedError(
                    f"The store keeps no sha256 of {file.path}, and its {file.bytes:,} bytes are too many to read here "
                    f"(at most {MAX_HASHED_BYTES:,}). Publish it with --store."
                )
        return hash_chunks(self._store.stream(path))[1]

    def _open_upload(self, name: str, version: int) -> Document[Manifest]:
        path = version_path(name, version, UPLOAD_FILE)
        return Document(self._store, path, Manifest, name=name, version=version)


def check_size(file: ManifestFile) -> None:
    """Check that one request can upload a file."""
    if file.bytes > MAX_UPLOAD_BYTES:
        raise TooLargeError(
            f"{file.path} has {file.bytes:,} bytes; at most {MAX_UPLOAD_BYTES:,} are taken over HTTP. Publish it with "
            "--store, which uploads in parts."
        )


def refuse_missing_files(announced: Manifest, uploaded: Collection[str]) -> None:
    """Raise `ConflictError` while files of an announced version have not arrived."""
    missing = [file.path for file in announced.files if file.path not in uploaded]
    if missing:
        more = f" and {len(missing) - SHOWN_FILES:,} more" if len(missing) > SHOWN_FILES else ""
        raise ConflictError(
            f"{announced.name}:{announced.version} is not complete: {', '.join(missing[:SHOWN_FILES])}{more} of its "
            f"{len(announced.files):,} files did not arrive. Upload what is missing, then commit again."
        )


def refuse_file(announced: Manifest, file: ManifestFile, cause: str) -> InvalidInputError:
    """Build the error for a file that is not what was announced; it cannot be replaced."""
    return InvalidInputError(
        f"{announced.name}:{announced.version} is not published: {file.path} {cause}. Files are written once: begin "
        "another upload."
    )
