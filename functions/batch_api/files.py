"""Routes of files: upload in one request, list, show, download, delete."""

import re
import time
from collections.abc import Iterable
from itertools import islice
from typing import Annotated, Any, Literal

from functions.batch_api.file_store import FileStore, StoredFile, skip_past
from functions.batch_api.idempotency import IdempotencyKeys
from functions.batch_api.openai_http import parse_multipart_form
from pilotlight.api.http import Request, Response
from pilotlight.api.powertools_router import Query, TypedRoutes
from pilotlight.api.routes import BINARY
from pilotlight.api.schemas.openai import DeletedFile, ObjectPage
from pilotlight.aws.presigned_urls import Presigner
from pilotlight.contracts.upload import Upload
from pilotlight.errors import InvalidInputError, TooLargeError
from pilotlight.storage.object_store import ObjectStore

MAX_INLINE_BYTES = 4_000_000  # bytes of a response: base64 adds a third, and Lambda's limit is 6 MB
MAX_PAGE_SIZE = 10_000  # of a page
RANGE = re.compile(r"bytes=([0-9]{1,18})-([0-9]{0,18})")


class FileEndpoints:
    """The routes of files over a store; a caller's files are those of his tenant."""

    def __init__(self, store: ObjectStore, idempotency_keys: IdempotencyKeys, presigner: Presigner | None) -> None:
        self._store = store
        self._idempotency_keys = idempotency_keys
        self._presigner = presigner

    def routes(self) -> TypedRoutes:
        """Return the endpoints by route and verb."""
        return {
            "/v1/files": {"POST": self.create, "GET": self.list},
            "/v1/files/{file}": {"GET": self.show, "DELETE": self.delete},
            "/v1/files/{file}/content": {"GET": self.get_content},
        }

    def create(self, request: Request) -> Response:
        """Store a file that fits into one request; larger ones are uploads."""
        form = parse_multipart_form(request, "file")
        purpose = form.fields.get("purpose", "")
        if not purpose:
            raise InvalidInputError("The form has no purpose; batch is for inputs of batches, user_data for tensors.")
        name = self._idempotency_keys.reserve_id(request, purpose.encode(), form.filename.encode(), form.data)
        upload_record = Upload(
            id=name,
            filename=form.filename[:512],
            purpose=purpose[:64],
            bytes=len(form.data),
            created_at=int(time.time()),
            by=request.caller,
            tenant=request.tenant,
        )
        return Response.json(self._open_files(request).save_file(upload_record, form.data))

    def list(
        self,
        request: Request,
        purpose: str | None = None,
        order: Literal["asc", "desc"] = "desc",
        after: str = "",
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE)] = MAX_PAGE_SIZE,
    ) -> Response:
        """List uploaded files, the newest first unless `order` is asc."""
        all_files = self._open_files(request).iterate_files(oldest_first=order == "asc")
        files = (each for each in all_files if purpose in (None, each.purpose))
        return to_page_response(skip_past(files, after), limit)

    def show(self, request: Request, file: str) -> Response:
        """Return one file."""
        return Response.json(self._open_files(request).find_file(file).file_object)

    def delete(self, request: Request, file: str) -> Response:
        """Delete an uploaded file."""
        self._open_files(request).delete_file(file)
        return Response.json(DeletedFile(id=file))

    def get_content(self, request: Request, file: str) -> Response:
        """Return the bytes, a range of them, or a redirect to the bucket."""
        stored_file = self._open_files(request).find_file(file)
        range_match = RANGE.fullmatch(request.headers.get("range", ""))
        if range_match is not None:
            return self._get_range(
                stored_file, int(range_match[1]), int(range_match[2] or stored_file.file_object.bytes - 1)
            )
        if stored_file.file_object.bytes <= MAX_INLINE_BYTES:
            return Response(200, self._store.get(stored_file.path).data, {"content-type": BINARY}, binary=True)
        if self._presigner is not None:
            url = self._presigner.presign_download(stored_file.path, f"{stored_file.file_object.id}.jsonl")
            return Response(302, b"", {"location": url})
        raise TooLargeError(
            f"The file has {stored_file.file_object.bytes:,} bytes, and an answer may have {MAX_INLINE_BYTES:,}. It "
            "lies at "
            f"{stored_file.file_object.s3_uri}; over HTTP ask for it in parts, with the header Range: "
            f"bytes=0-{MAX_INLINE_BYTES - 1}."
        )

    def _open_files(self, request: Request) -> FileStore:
        return FileStore(self._store, request.tenant)

    def _get_range(self, stored_file: StoredFile, first: int, last: int) -> Response:
        size = stored_file.file_object.bytes
        last = min(last, size - 1, first + MAX_INLINE_BYTES - 1)
        if first > last:
            raise InvalidInputError(
                f"The file has {size:,} bytes, so that there is nothing from {first:,} to {last:,}."
            )
        _, e_tag = self._store.get_size_and_e_tag(stored_file.path)
        data = b"".join(self._store.iterate_blocks(stored_file.path, first, last + 1, e_tag))
        headers = {"content-type": BINARY, "content-range": f"bytes {first}-{last}/{size}", "accept-ranges": "bytes"}
        return Response(206, data, headers, binary=True)


def to_page_response(items: Iterable[Any], size: int) -> Response:
    """Build a page of at most `size` items, which shows whether there are more."""
    data = list(islice(items, size + 1))
    page_items, more = data[:size], len(data) > size
    edge_ids = (page_items[0].id, page_items[-1].id) if page_items else (None, None)
    return Response.json(ObjectPage(data=page_items, first_id=edge_ids[0], last_id=edge_ids[1], has_more=more))
