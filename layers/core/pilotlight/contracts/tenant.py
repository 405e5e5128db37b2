"""The folders of tenants: each top-level folder of the store has one for every tenant, `uploads/tenant=acme/...`.

The stack's own callers have no tenant, and their objects lie directly in the top-level folder. No id, no model name and
no path that a caller may write has a `=` in it, so that a tenant's folder is never mistaken for one of theirs.
"""

import hashlib
import re

PREFIX = "tenant="  # as Hive, Athena and Glue name a partition
FOLDER_PATTERN = re.compile(rf"{PREFIX}[a-z0-9._-]+")
MAX_LENGTH = 120  # characters of an encoded name: file systems take 255 bytes, and S3 1,024 for the whole key
KEPT_LENGTH = 60  # characters of a longer one, before its hash


def encode_tenant(tenant: str) -> str:
    """Encode a tenant's name for a path: two names never become one, not even where case is ignored.

    a-z, 0-9, `.` and `-` stay; every other byte of UTF-8 becomes `_` and two hexadecimal digits. A name that is too
    long is cut, and gets `__` and its SHA-256, which no shorter name has.
    """
    data = tenant.encode(errors="surrogatepass")
    encoded = "".join(chr(byte) if is_plain(byte) else f"_{byte:02x}" for byte in data)
    if len(encoded) <= MAX_LENGTH:
        return encoded
    return f"{encoded[:KEPT_LENGTH]}__{hashlib.sha256(data).hexdigest()}"


def is_plain(byte: int) -> bool:
    """Return whether a byte stands for itself."""
    return byte in b"abcdefghijklmnopqrstuvwxyz0123456789.-"


def tenant_folder(folder: str, tenant: str) -> str:
    """Return the tenant's part of a top-level folder; the folder itself for the stack's own callers."""
    return f"{folder}/{PREFIX}{encode_tenant(tenant)}" if tenant else folder


def is_tenant_folder(name: str) -> bool:
    """Return whether a folder, by its own name, is that of a tenant."""
    return FOLDER_PATTERN.fullmatch(name) is not None
