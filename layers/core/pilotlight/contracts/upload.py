"""Documents and paths of what callers put beside the models because it is too large for a request: files and tensors.

    uploads/<id>/upload.json      what was announced; create-only
    uploads/<id>/parts/<part>     what was uploaded in parts
    uploads/<id>/content          the bytes, sent at once; create-only, also by the presigned URL
    uploads/<id>/content-<hex>    the bytes, joined from the parts; each attempt has a name of its own
    uploads/<id>/file.json        that the file is complete, and which object is its bytes, or that the upload is
                                  cancelled; create-only, so that one of several attempts counts
    answers/<id>/<output>         an output that was too large to be sent

A tenant's lie below `uploads/tenant=<name>/` and `answers/tenant=<name>/` (pilotlight.contracts.tenant). The module
knows names and URIs, and accepts only those in these two folders of the stack's own store.
"""

import re

from msgspec import Struct

from pilotlight.contracts.tenant import tenant_folder
from pilotlight.errors import InvalidInputError, NotFoundError

UPLOADS_FOLDER = "uploads"
ANSWERS_FOLDER = "answers"
ID_PATTERN = r"[0-9a-f]{32}"
FILE_ID_PATTERN = re.compile(rf"file-({ID_PATTERN})")
UPLOAD_ID_PATTERN = re.compile(rf"upload_({ID_PATTERN})")
# Letters, digits and three signs without a meaning in a URL, a shell or a file system; no part begins with a dot.
KEY_PATTERN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
CONTENT = "content"  # the object with a file's bytes
CONTENT_PATTERN = re.compile(r"content(?:-[0-9a-f]{16})?")
MAX_KEY_LENGTH = 1024  # S3's


class Upload(Struct, frozen=True, kw_only=True):
    """`upload.json` and `file.json`: a file's name, size and purpose. Times are Unix seconds."""

    id: str  # 32 hexadecimal digits
    filename: str
    purpose: str
    bytes: int
    created_at: int
    by: str = ""
    tenant: str = ""
    content: str = CONTENT  # the object with its bytes; of a complete file
    e_tag: str = ""  # of that object; of a complete file
    cancelled: bool = False  # it will never be complete


def parse_upload_uri(store: str, uri: object, tenant: str = "") -> str:
    """Return the key below the store at the URL `store`; `InvalidInputError` if it is none of the tenant's uploads."""
    folder = tenant_folder(UPLOADS_FOLDER, tenant)
    below = f"{store}/{folder}/"
    key = uri.removeprefix(below) if isinstance(uri, str) and uri.startswith(below) else ""
    if len(folder) + 1 + len(key) > MAX_KEY_LENGTH or not KEY_PATTERN.fullmatch(key):
        raise InvalidInputError(f"{str(uri)[:200]!r} is refused: only what lies below {below} is read.")
    return f"{folder}/{key}"


def content_path(file_id: str, tenant: str = "", content: str = CONTENT) -> str:
    """Return the path of a file's bytes by the file's id; `NotFoundError` if the id is malformed."""
    if CONTENT_PATTERN.fullmatch(content) is None:
        raise InvalidInputError(f"{content!r} is not the name of an object with a file's bytes.")
    return f"{upload_folder(file_id, tenant)}/{content}"


def upload_folder(file_id: str, tenant: str = "") -> str:
    """Return the folder of a file or an upload by its id; `NotFoundError` if the id is malformed."""
    match = FILE_ID_PATTERN.fullmatch(file_id) or UPLOAD_ID_PATTERN.fullmatch(file_id)
    if match is None:
        raise NotFoundError(f"There is no file {file_id!r}; GET /v1/files lists them.")
    return f"{tenant_folder(UPLOADS_FOLDER, tenant)}/{match[1]}"


def output_path(answer_id: str, place: int, tenant: str = "") -> str:
    """Return the path of the output in the place `place` of an answer whose outputs are stored."""
    return f"{tenant_folder(ANSWERS_FOLDER, tenant)}/{answer_id}/{place}"
