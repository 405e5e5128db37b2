"""Documents and paths of what callers put beside the models because it is too large for a request: files and tensors.

    uploads/<id>/upload.json      what was announced; create-only
    uploads/<id>/parts/<part>     what was uploaded in parts
    uploads/<id>/content          the bytes
    uploads/<id>/file.json        that the file is complete; create-only
    answers/<id>/<output>         an output that was too large to be sent

It knows names and URIs, and accepts only those in these two folders of the stack's own store.
"""

import re

from msgspec import Struct

from pilotlight.errors import InvalidInputError, NotFoundError

UPLOADS_FOLDER = "uploads"
ANSWERS_FOLDER = "answers"
ID_PATTERN = r"[0-9a-f]{32}"
FILE_ID_PATTERN = re.compile(rf"file-({ID_PATTERN})")
UPLOAD_ID_PATTERN = re.compile(rf"upload_({ID_PATTERN})")
# Letters, digits and three signs without a meaning in a URL, a shell or a file system; no part begins with a dot.
KEY_PATTERN = re.compile(r"uploads(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)+")
MAX_KEY_LENGTH = 1024  # S3's


class Upload(Struct, frozen=True, kw_only=True):
    """`upload.json` and `file.json`: a file's name, size and purpose. Times are Unix seconds."""

    id: str  # 32 hexadecimal digits
    filename: str
    purpose: str
    bytes: int
    created_at: int
    by: str = ""


def parse_upload_uri(store: str, uri: object) -> str:
    """Return the key below the store at the URL `store`; `InvalidInputError` if the URI is not one of its uploads."""
    below = f"{store}/"
    path = uri.removeprefix(below) if isinstance(uri, str) and uri.startswith(below) else ""
    if len(path) > MAX_KEY_LENGTH or not KEY_PATTERN.fullmatch(path):
        raise InvalidInputError(
            f"{str(uri)[:200]!r} is refused: only what lies below {below}{UPLOADS_FOLDER}/ is read."
        )
    return path


def content_path(file_id: str) -> str:
    """Return the path of a file's bytes by the file's id; `NotFoundError` if the id is malformed."""
    return f"{upload_folder(file_id)}/content"


def upload_folder(file_id: str) -> str:
    """Return the folder of a file or an upload by its id; `NotFoundError` if the id is malformed."""
    match = FILE_ID_PATTERN.fullmatch(file_id) or UPLOAD_ID_PATTERN.fullmatch(file_id)
    if match is None:
        raise NotFoundError(f"There is no file {file_id!r}; GET /v1/files lists them.")
    return f"{UPLOADS_FOLDER}/{match[1]}"
