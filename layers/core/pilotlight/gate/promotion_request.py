"""Requests for a promotion, from the request to its result.

    models/<name>/promotions/<id>.json   written when it is requested, and again when it is done

The gate takes minutes, and a caller of the API has 29 s. So the registry API writes this document and starts the gate
by an event with the same content; the gate's function writes the result, and callers poll the document.
"""

import uuid
from typing import Literal

from msgspec.structs import replace

from pilotlight.contracts.codec import format_utc_now
from pilotlight.contracts.names import Version, check_name
from pilotlight.contracts.promotion import PromotionRequest
from pilotlight.errors import NotFoundError
from pilotlight.storage.documents import Document
from pilotlight.storage.object_store import ObjectStore


def new_request(model: str, version: Version, alias: str, *, actor: str, force: bool, reason: str) -> PromotionRequest:
    """Build a new request."""
    return PromotionRequest(uuid.uuid4().hex, model, version, alias, actor, format_utc_now(), force, reason)


def finish_request(
    request: PromotionRequest, state: Literal["promoted", "refused", "failed"], message: str
) -> PromotionRequest:
    """Return the request with its result."""
    return replace(request, state=state, said=message, done=format_utc_now())


def save_request(store: ObjectStore, request: PromotionRequest) -> PromotionRequest:
    """Write a request as it is now, and return it."""
    open_request(store, request.model, request.id).write(request)
    return request


def load_request(store: ObjectStore, model: str, request_id: str) -> PromotionRequest:
    """Load the request of that id; raise `NotFoundError` when there is none."""
    check_name(model, "model name")
    check_name(request_id, "promotion's id")
    request = open_request(store, model, request_id).read_or_none()
    if request is None:
        raise NotFoundError(f"There is no promotion {request_id!r} of {model!r}; POST .../promote gives its id.")
    return request


def open_request(store: ObjectStore, model: str, request_id: str) -> Document[PromotionRequest]:
    """Open the document of a request for a promotion."""
    path = f"models/{model}/promotions/{request_id}.json"
    return Document(store, path, PromotionRequest, id=request_id, model=model)
