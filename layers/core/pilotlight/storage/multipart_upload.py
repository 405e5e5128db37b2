"""Create-only uploads of large files to S3, in parts.

obstore uploads in parts only over what is there, and S3 takes no more than 5 GB in one request. So this is botocore's:
the parts may be sent by anybody who may write, and the request that joins them says `If-None-Match: *`. Only who
publishes imports it.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from pilotlight.errors import AlreadyExistsError, DeniedError, StoreError, format_cause

PART_BYTES = 16 << 20
MAX_PARTS = 10_000  # of one upload, by S3
UPLOADERS = 4  # parts sent at once, each held in memory
# The last one answers a repeated request to join parts whose first answer was lost.
EXISTS_CODES = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "NoSuchUpload"})


def create_client(endpoint: str) -> Any:  # noqa: ANN401 - botocore ships no types
    """Create a client for S3, or for the server at an endpoint; it finds credentials as the aws command does."""
    from botocore.config import Config
    from botocore.session import get_session

    config = Config(max_pool_connections=UPLOADERS, retries={"max_attempts": 5, "mode": "standard"})
    return get_session().create_client("s3", endpoint_url=endpoint or None, config=config)


def create_object(client: Any, bucket: str, key: str, source: Path) -> None:  # noqa: ANN401 - botocore ships no types
    """Upload a file as an object; raise `AlreadyExistsError` if there is one by the time that the parts are joined."""
    place = {"Bucket": bucket, "Key": key}
    try:
        upload = {**place, "UploadId": client.create_multipart_upload(**place)["UploadId"]}
        try:
            parts = upload_parts(client, upload, source)
            client.complete_multipart_upload(**upload, IfNoneMatch="*", MultipartUpload={"Parts": parts})
        except BaseException:
            with suppress(ClientError, BotoCoreError):  # otherwise the bucket removes the parts after a day
                client.abort_multipart_upload(**upload)
            raise
    except ClientError as exc:
        raise translate_error(exc, f"s3://{bucket}/{key}") from exc
    except (BotoCoreError, OSError) as exc:
        raise StoreError(f"The store failed at s3://{bucket}/{key}: {format_cause(exc)}") from exc


def upload_parts(client: Any, upload: dict[str, str], source: Path) -> list[dict[str, Any]]:  # noqa: ANN401 - botocore ships no types
    """Upload the parts of a file, several at once; return what joins them."""

    def send(part: tuple[int, int, int]) -> dict[str, Any]:
        number, start, length = part
        with source.open("rb") as file:
            file.seek(start)
            answer = client.upload_part(**upload, PartNumber=number, Body=file.read(length))
        return {"PartNumber": number, "ETag": answer["ETag"]}

    with ThreadPoolExecutor(UPLOADERS) as pool:
        return list(pool.map(send, split_into_parts(source.stat().st_size)))


def split_into_parts(size: int) -> Iterator[tuple[int, int, int]]:
    """Split a file into numbered parts, each with its start and length in bytes."""
    length = max(PART_BYTES, -(-size // MAX_PARTS))
    for number, start in enumerate(range(0, size, length), 1):
        yield number, start, min(length, size - start)


def translate_error(exc: ClientError, place: str) -> StoreError | AlreadyExistsError:
    """Turn S3's refusal into Pilotlight's error."""
    code = exc.response["Error"]["Code"]
    if code in EXISTS_CODES:
        return AlreadyExistsError(f"There is something at {place} already.")
    kind = DeniedError if code in ("AccessDenied", "403") else StoreError
    return kind(f"The store failed at {place}: {format_cause(exc)}")
