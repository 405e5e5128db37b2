"""Request and response bodies of the routes of files, uploads and batches, in OpenAI's form.

Source: OpenAI's API reference, Files, Uploads and Batch. Times are Unix seconds. Beyond OpenAI's fields, a file has the
address by which tensors refer to it, and an upload has a URL for all of its bytes (`presigned`).
"""

from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, MaxLen, MinLen
from msgspec import Struct

from pilotlight.api.schemas.request_body import STRICT, matches, request_body
from pilotlight.contracts.signed_upload import MAX_UPLOAD_BYTES, PresignedUpload

ShortText = Annotated[str, MinLen(1), MaxLen(512)]
MAX_UPLOAD_PARTS = 10_000  # of a file
BatchStatus = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]  # fmt: skip


class FileObject(Struct, kw_only=True):
    """A file: what was uploaded, or what came of a batch."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["uploaded", "processed", "error"] = "processed"
    status_details: str | None = None  # why its document cannot be read
    s3_uri: str = ""  # for `parameters: {"s3_uri": ...}` of a tensor


class ErrorDetails(Struct, frozen=True):
    """What was wrong, and what to do."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class OpenAIErrorBody(Struct, frozen=True):
    """Any error below /v1, as OpenAI's clients show it."""

    error: ErrorDetails


class DeletedFile(Struct, kw_only=True):
    """What is left of a file."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


@request_body("is no NewUpload", extra="ignore")
class CreateUploadBody:
    """The announcement of a file that is too large for one request."""

    filename: ShortText
    bytes: Annotated[int, STRICT, Ge(1), Le(MAX_UPLOAD_BYTES)]
    purpose: ShortText = "batch"
    mime_type: str = ""


class UploadObject(Struct, kw_only=True):
    """A file on its way: in parts of at most 4 MB each, or at once where `presigned` says."""

    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: Literal["pending", "completed", "cancelled"] = "pending"
    file: FileObject | None = None
    presigned: PresignedUpload | None = None
    s3_uri: str = ""


class UploadPart(Struct, kw_only=True):
    """A part that has arrived."""

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str


@request_body("is no Complete", extra="ignore")
class CompleteUploadBody:
    """That an upload is whole: its parts in their order, none where the bytes were put at once."""

    part_ids: Annotated[tuple[Annotated[str, matches(r"^part_[0-9a-f]{32}$")], ...], MaxLen(MAX_UPLOAD_PARTS)] = ()
    md5: Annotated[str, matches(r"^([0-9a-fA-F]{32})?$")] = ""


@request_body("is no NewBatch", extra="ignore")
class CreateBatchBody:
    """A batch: the requests in a file, all to one endpoint."""

    input_file_id: ShortText
    endpoint: ShortText
    completion_window: Annotated[str, matches(r"^[1-9][0-9]{0,2}h$")] = "24h"
    metadata: Annotated[dict[Annotated[str, MaxLen(64)], Annotated[str, MaxLen(512)]], MaxLen(16)] | None = None


class RequestCounts(Struct, kw_only=True):
    """How many requests a batch has, and how many of them are answered and refused."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class BatchError(Struct, kw_only=True):
    """Why a batch is refused."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class BatchErrors(Struct, kw_only=True):
    """All that is wrong with a batch, the first thousand."""

    object: Literal["list"] = "list"
    data: list[BatchError]


class BatchObject(Struct, kw_only=True):
    """A batch and how far it is."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    input_file_id: str
    completion_window: str
    status: BatchStatus
    created_at: int
    expires_at: int
    errors: BatchErrors | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: RequestCounts
    metadata: dict[str, str] | None = None


class ObjectPage(Struct, kw_only=True):
    """Some of many, the newest first; `after=last_id` gives what follows."""

    object: Literal["list"] = "list"
    data: list[Any]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False
