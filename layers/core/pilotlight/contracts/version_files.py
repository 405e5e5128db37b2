"""The files of a version, as a publisher has them: their contents, their descriptions, and the names they may have."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from pilotlight.contracts.manifest import FILE_PATH_PATTERN, ManifestFile
from pilotlight.errors import InvalidInputError

FileContent = bytes | Path  # of a file of a version: in memory, or on disk
MAX_PATH_LENGTH = 512  # characters: with the names of model and version, S3's keys of 1,024 bytes hold it
MAX_NAME_LENGTH = 200  # of a part of a path: file systems have 255, of which a staged copy takes some
# Documents of the registry beside the files, and judgements, which former releases kept there and no publisher writes.
RESERVED_FILENAMES = frozenset({
    "approval.json", "claim.json", "manifest.json", "signature.json", "upload.json", "verdict.json",
})  # fmt: skip


def describe_file(path: str, content: FileContent) -> ManifestFile:
    """Describe a file for the manifest: size in bytes and sha256 in hex."""
    if isinstance(content, bytes):
        return ManifestFile(path, len(content), hashlib.sha256(content).hexdigest())
    with content.open("rb") as file:
        return ManifestFile(path, content.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def check_file_paths(paths: Iterable[str]) -> None:
    """Check that the paths may be those of one version's files; raise `InvalidInputError` with the wrong one."""
    seen = set[str]()
    for path in paths:
        check_file_path(path)
        if path in seen:
            raise InvalidInputError(f"The file {path!r} is named twice.")
        seen.add(path)
    for path in seen:
        folder = next((str(parent) for parent in PurePosixPath(path).parents if str(parent) in seen), None)
        if folder is not None:
            raise InvalidInputError(f"{folder!r} cannot be a file and the folder of {path!r}.")


def check_file_path(path: str) -> None:
    """Check that a path stays below its version, fits into every store, and is none of the registry's own."""
    if re.fullmatch(FILE_PATH_PATTERN, path) is None:
        raise InvalidInputError(
            f"{path[:200]!r} is not the path of a file: A-Z a-z 0-9 . _ -, folders with /, no part begins with a dot "
            "or dash."
        )
    longest = max(map(len, path.split("/")))
    if len(path) > MAX_PATH_LENGTH or longest > MAX_NAME_LENGTH:
        raise InvalidInputError(
            f"{path[:40]!r}... is too long: {len(path):,} characters, the longest part {longest:,}; at most "
            f"{MAX_PATH_LENGTH} and {MAX_NAME_LENGTH} are taken."
        )
    if path.rsplit("/", 1)[-1] in RESERVED_FILENAMES:
        raise InvalidInputError(f"{path!r} is a name of the registry's own documents; call the file otherwise.")
