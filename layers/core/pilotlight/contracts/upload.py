"""What callers put beside the models, since it is too large for a request: files, tensors, answers; by name.

    uploads/<id>/upload.json      what was announced; create-only
    uploads/<id>/parts/<part>     what came of it in parts
    uploads/<id>/content          the bytes
    uploads/<id>/file.json        that they are whole; create-only
    answers/<id>/<output>         an output that was too large to be sent

It knows names and addresses, of which only those below these two folders of the stack's own store are let through.
"""

import re

from msgspec import Struct

from pilotlight.errors import InvalidInputError, NotFoundError

FOLDER = "uploads"
ANSWERS = "answers"
ID = r"[0-9a-f]{32}"
FILE = re.compile(rf"file-({ID})")
UPLOAD = re.compile(rf"upload_({ID})")
# Letters, digits and three signs that mean nothing to a URL, a shell or a file system; no part begins with a dot.
KEY = re.compile(r"uploads(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)+")
LONGEST_KEY = 1024  # S3's


class Upload(Struct, frozen=True, kw_only=True):
    """`upload.json` and `file.json`: a file's name, size and purpose. Times are Unix seconds."""

    id: str  # 32 hexadecimal digits
    filename: str
    purpose: str
    bytes: int
    created_at: int
    by: str = ""


def key(store: str, uri: object) -> str:
    """The key below the store at the URL `store`; `InvalidInputError` for an address that is none of its uploads."""
    below = f"{store}/"
    found = uri.removeprefix(below) if isinstance(uri, str) and uri.startswith(below) else ""
    if len(found) > LONGEST_KEY or not KEY.fullmatch(found):
        raise InvalidInputError(f"{str(uri)[:200]!r} is refused: only what lies below {below}{FOLDER}/ is read.")
    return found


def content(file: str) -> str:
    """The path of the bytes of a file by its id; `NotFoundError` for what is no such id."""
    return f"{folder(file)}/content"


def folder(file: str) -> str:
    """The folder of a file or an upload by its id."""
    found = FILE.fullmatch(file) or UPLOAD.fullmatch(file)
    if found is None:
        raise NotFoundError(f"There is no file {file!r}; GET /v1/files lists them.")
    return f"{FOLDER}/{found[1]}"
