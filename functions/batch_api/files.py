"""What the routes of files answer: upload in one request, list, show, download, delete."""

import re
import time
from collections.abc import Iterable
from itertools import islice
from typing import Any

from functions.batch_api.file_store import Found, Shelf, after
from functions.batch_api.idempotency import Once
from functions.batch_api.openai_http import sent
from functions.batch_api.presigned_urls import Presigner
from pilotlight.api.http import Request, Response
from pilotlight.api.router import Routes
from pilotlight.api.schemas.openai import Deleted, Page
from pilotlight.contracts.upload import Upload
from pilotlight.errors import InvalidInputError, TooLargeError

INLINE = 4_000_000  # bytes of an answer: base64 makes a third more of it, and Lambda ends at 6 MB
MOST = 10_000  # of a page
ORDERS = ("asc", "desc")
RANGE = re.compile(r"bytes=(\d{1,18})-(\d{0,18})")
JSONL = "application/jsonl"


class Files:
    """Files over a shelf."""

    def __init__(self, shelf: Shelf, once: Once, presigner: Presigner | None) -> None:
        self._shelf = shelf
        self._once = once
        self._presigner = presigner

    def routes(self) -> Routes:
        """The table of routes, spelled as in template.yaml."""
        return {
            "/v1/files": {"POST": self.create, "GET": self.list},
            "/v1/files/{file}": {"GET": self.show, "DELETE": self.delete},
            "/v1/files/{file}/content": {"GET": self.content},
        }

    def create(self, request: Request) -> Response:
        """A file in one request, of what the gateway lets through; larger ones are uploads."""
        form = sent(request, "file")
        purpose = form.fields.get("purpose", "")
        if not purpose:
            raise InvalidInputError("The form has no purpose; batch is for inputs of batches, user_data for tensors.")
        name = self._once.id(request, purpose.encode(), form.filename.encode(), form.data)
        told = Upload(
            id=name,
            filename=form.filename[:512],
            purpose=purpose[:64],
            bytes=len(form.data),
            created_at=int(time.time()),
            by=request.caller,
        )
        return Response.json(self._shelf.put(told, form.data))

    def list(self, request: Request) -> Response:
        """Uploads, the newest first unless `order` is asc."""
        purpose, order = request.query.get("purpose"), request.query.get("order", "desc")
        if order not in ORDERS:
            raise InvalidInputError(f"order is {order[:40]!r}, expected {' or '.join(ORDERS)}.")
        found = self._shelf.files(oldest_first=order == "asc")
        files = (each for each in found if purpose in (None, each.purpose))
        return page(after(files, request.query.get("after", "")), limit(request, MOST))

    def show(self, request: Request) -> Response:
        """One file."""
        return Response.json(self._shelf.find(request.parameters["file"]).shown)

    def delete(self, request: Request) -> Response:
        """An upload is gone."""
        name = request.parameters["file"]
        self._shelf.remove(name)
        return Response.json(Deleted(id=name))

    def content(self, request: Request) -> Response:
        """The bytes: at once, a range of them, or where they can be fetched, which clients follow."""
        found = self._shelf.find(request.parameters["file"])
        asked = RANGE.fullmatch(request.headers.get("range", ""))
        if asked is not None:
            return self._range(found, int(asked[1]), int(asked[2] or found.shown.bytes - 1))
        if found.shown.bytes <= INLINE:
            return Response(200, self._shelf.store.get(found.path).data, {"content-type": JSONL}, binary=True)
        if self._presigner is not None:
            url = self._presigner.get(found.path, f"{found.shown.id}.jsonl")
            return Response(302, b"", {"location": url})
        raise TooLargeError(
            f"The file has {found.shown.bytes:,} bytes, and an answer may have {INLINE:,}. It lies at "
            f"{found.shown.s3_uri}; over HTTP ask for it in parts, with the header Range: bytes=0-{INLINE - 1}."
        )

    def _range(self, found: Found, first: int, last: int) -> Response:
        size = found.shown.bytes
        last = min(last, size - 1, first + INLINE - 1)
        if first > last:
            raise InvalidInputError(
                f"The file has {size:,} bytes, so that there is nothing from {first:,} to {last:,}."
            )
        _, e_tag = self._shelf.store.stamp(found.path)
        data = b"".join(self._shelf.store.blocks(found.path, first, last + 1, e_tag))
        headers = {"content-type": JSONL, "content-range": f"bytes {first}-{last}/{size}", "accept-ranges": "bytes"}
        return Response(206, data, headers, binary=True)


def limit(request: Request, most: int, default: int = 0) -> int:
    """How many of a list are asked for."""
    text = request.query.get("limit") or str(default or most)
    if not text.isdecimal() or not 1 <= int(text[:9]) <= most:
        raise InvalidInputError(f"limit is {text[:40]!r}, expected 1 to {most}.")
    return int(text)


def page(found: Iterable[Any], most: int) -> Response:
    """At most so many of a list, and whether there are more."""
    data = list(islice(found, most + 1))
    shown, more = data[:most], len(data) > most
    ends = (shown[0].id, shown[-1].id) if shown else (None, None)
    return Response.json(Page(data=shown, first_id=ends[0], last_id=ends[1], has_more=more))
