"""Requests that anybody may send who knows them: one PUT of exactly these bytes, to one place, once, for a while.

On S3 the URL is presigned, and S3 holds its holder to what was signed. A store on disk has no such server: there the
local gateway takes the bytes, at a URL that the registry function signs with a key that only these two know.
"""

import hmac
from typing import Literal
from urllib.parse import parse_qs, quote, unquote, urlencode

import msgspec
from msgspec import Struct

from pilotlight.contracts.manifest import ManifestFile
from pilotlight.errors import InvalidInputError

EXPIRY_S = 3600  # how long a signature lasts; on AWS a role's credentials may end sooner
MAX_UPLOAD_BYTES = 5_000_000_000  # of one PUT, by S3
UPLOADS_PATH = "/signed-uploads/"  # at the local gateway, before the path in the store


class PresignedUpload(Struct, kw_only=True):
    """A request that anybody may send who knows it, while it lasts: exactly so many bytes, to exactly there."""

    method: Literal["PUT"] = "PUT"
    url: str
    headers: dict[str, str]
    expires_at: int


class UploadGrant(Struct, frozen=True, kw_only=True):
    """What a URL of the local gateway allows: a file of this size and hash at a path of the store."""

    path: str
    bytes: int
    sha256: str
    expires_at: int  # Unix seconds

    @property
    def file(self) -> ManifestFile:
        """The file that is to arrive."""
        return ManifestFile(self.path, self.bytes, self.sha256)

    def build_target(self, key: str) -> str:
        """Build the path and query of the URL, signed with the key."""
        fields = {"bytes": self.bytes, "sha256": self.sha256, "expires": self.expires_at}
        return f"{UPLOADS_PATH}{quote(self.path)}?{urlencode({**fields, 'signature': self._sign(key)})}"

    @classmethod
    def parse_target(cls, path: str, query: str, key: str, now: float) -> "UploadGrant":
        """Read a grant back from a URL's path and query; `InvalidInputError` for one that is forged or over."""
        values = {name: each[-1] for name, each in parse_qs(query).items()}
        fields = {
            "path": unquote(path.removeprefix(UPLOADS_PATH)),
            "bytes": values.get("bytes"),
            "sha256": values.get("sha256"),
            "expires_at": values.get("expires"),
        }
        try:
            grant = msgspec.convert(fields, cls, strict=False)
        except msgspec.ValidationError as exc:
            raise InvalidInputError(f"The URL of the upload is not one that the registry signed: {exc}.") from exc
        if not hmac.compare_digest(grant._sign(key).encode(), values.get("signature", "").encode()):
            raise InvalidInputError("The URL of the upload is not one that the registry signed: take it as it came.")
        if now > grant.expires_at:
            raise InvalidInputError(
                "The URL of the upload has expired; GET .../upload of the version answers new ones."
            )
        return grant

    def _sign(self, key: str) -> str:
        message = msgspec.json.encode(self)  # in which no field can pass for a part of another
        return hmac.digest(key.encode(), message, "sha256").hex()
