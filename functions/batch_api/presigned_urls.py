"""Presigned URLs of S3, for clients without credentials, valid for an hour. boto3 is imported at the first signature.

A signature covers the stack's own bucket, one key and, for an upload, the exact number of bytes: S3 refuses others. An
upload's also covers `if-none-match: *`, so that its URL writes once: what was put stays as it is, though the URL lives.
"""

import time
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pilotlight.api.schemas.openai import PresignedUpload
from pilotlight.errors import UnavailableError, format_cause

EXPIRY_S = 3600  # how long a signature lasts; a role's credentials may end sooner


class Presigner:
    """Signs for the keys below a prefix of a bucket."""

    def __init__(self, bucket: str, prefix: str, endpoint: str = "") -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._endpoint = endpoint
        self._client: Any = None

    @classmethod
    def from_store_url(cls, store_url: str) -> "Presigner | None":
        """Build the presigner of a store; return None if the store is not a bucket."""
        parts = urlsplit(store_url)
        if parts.scheme != "s3":
            return None
        return cls(parts.netloc, parts.path.strip("/"), dict(parse_qsl(parts.query)).get("endpoint", ""))

    def presign_upload(self, path: str, size: int) -> PresignedUpload:
        """Presign an upload of `size` bytes to a path of the store where there is nothing."""
        expires_at = int(time.time()) + EXPIRY_S
        url = self._presign("put_object", path, ContentLength=size, IfNoneMatch="*")
        headers = {"content-length": str(size), "if-none-match": "*"}
        return PresignedUpload(url=url, headers=headers, expires_at=expires_at)

    def presign_download(self, path: str, filename: str) -> str:
        """Presign a download of a path of the store, with the file name that the client saves."""
        return self._presign("get_object", path, ResponseContentDisposition=f'attachment; filename="{filename}"')

    def _presign(self, action: Literal["put_object", "get_object"], path: str, **more: Any) -> str:  # noqa: ANN401 - boto3's
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        key = f"{self._prefix}/{path}".lstrip("/")
        try:
            if self._client is None:
                config = Config(signature_version="s3v4")  # the older one signs no header
                self._client = boto3.client("s3", endpoint_url=self._endpoint or None, config=config)
            parameters = {"Bucket": self._bucket, "Key": key, **more}
            return str(self._client.generate_presigned_url(action, Params=parameters, ExpiresIn=EXPIRY_S))
        except BotoCoreError as exc:
            raise UnavailableError(f"No signature could be made: {format_cause(exc)}.") from exc
