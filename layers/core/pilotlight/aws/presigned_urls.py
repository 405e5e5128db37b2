"""Presigned URLs of S3, for clients without credentials, valid for an hour. boto3 is imported at the first signature.

A signature covers the stack's own bucket, one key and, for an upload, the exact number of bytes: S3 refuses others. An
upload's also covers `if-none-match: *`, so that its URL writes once: what was put stays as it is, though the URL lives.
Where the bytes are known before, it covers their sha256 too: S3 refuses any others, and keeps the hash.
"""

import base64
import time
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pilotlight.contracts.signed_upload import EXPIRY_S, PresignedUpload
from pilotlight.errors import NotFoundError, StoreError, UnavailableError, format_cause

AWS_DOMAINS = (".amazonaws.com", ".amazonaws.com.cn")


class Presigner:
    """Signs for the keys below a prefix of a bucket, and asks S3 for the hashes that it has checked."""

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

    def presign_upload(self, path: str, size: int, sha256: str = "") -> PresignedUpload:
        """Presign an upload of `size` bytes, of that hash in hex, to a path of the store where there is nothing."""
        expires_at = int(time.time()) + EXPIRY_S
        checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
        more = {"ChecksumSHA256": checksum} if checksum else {}
        url = self._presign("put_object", path, ContentLength=size, IfNoneMatch="*", **more)
        headers = {"content-length": str(size), "if-none-match": "*"}
        if checksum:
            headers["x-amz-checksum-sha256"] = checksum
        return PresignedUpload(url=url, headers=headers, expires_at=expires_at)

    def presign_download(self, path: str, filename: str) -> str:
        """Presign a download of a path of the store, with the file name that the client saves."""
        return self._presign("get_object", path, ResponseContentDisposition=f'attachment; filename="{filename}"')

    def read_sha256(self, path: str) -> str | None:
        """Read the hash in hex that S3 has checked as it took an object; None where it keeps none of all the bytes."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            head = self._open_client().head_object(Bucket=self._bucket, Key=self._key(path), ChecksumMode="ENABLED")
        except ClientError as exc:
            if exc.response["Error"]["Code"] in ("404", "NoSuchKey", "NotFound"):
                raise NotFoundError(f"There is nothing at {path}.") from exc
            raise StoreError(f"The store failed at {path}: {format_cause(exc)}.") from exc
        except BotoCoreError as exc:
            raise StoreError(f"The store failed at {path}: {format_cause(exc)}.") from exc
        checksum = head.get("ChecksumSHA256", "")
        if not checksum or "-" in checksum:  # of an upload in parts it is that of the parts' hashes
            return None
        return base64.b64decode(checksum).hex()

    def _presign(self, action: Literal["put_object", "get_object"], path: str, **more: Any) -> str:  # noqa: ANN401 - boto3's
        from botocore.exceptions import BotoCoreError

        parameters = {"Bucket": self._bucket, "Key": self._key(path), **more}
        try:
            return str(self._open_client().generate_presigned_url(action, Params=parameters, ExpiresIn=EXPIRY_S))
        except BotoCoreError as exc:
            raise UnavailableError(f"No signature could be made: {format_cause(exc)}.") from exc

    def _key(self, path: str) -> str:
        return f"{self._prefix}/{path}".lstrip("/")

    def _open_client(self) -> Any:  # noqa: ANN401 - boto3 ships no types
        """Open the client once.

        For AWS itself it names the bucket's region in the host. Without it boto3 presigns for the global host, which
        redirects to the region for hours after a bucket was created, and the signature does not hold there.
        """
        if self._client is None:
            self._client = create_client(self._endpoint)
            if str(urlsplit(self._client.meta.endpoint_url).hostname).endswith(AWS_DOMAINS):
                self._client = create_client(self._endpoint, addressing_style="virtual")
        return self._client


def create_client(endpoint: str, **s3_options: str) -> Any:  # noqa: ANN401 - boto3 ships no types
    """Create a client for S3, or for the server at an endpoint, that signs headers as the newer signature does."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3", endpoint_url=endpoint or None, config=Config(signature_version="s3v4", s3=s3_options or None)
    )
