"""A promotion that somebody has asked for, from the asking to what came of it.

    models/<name>/promotions/<id>.json   written when it is asked for, and once more when it is done

The gate takes minutes, a caller of the API has 29 s. So this document is where one looks: the function that is asked
writes it and starts the gate by an event with the same content, and the gate's function writes how it ended.
"""

import uuid
from typing import Literal

from msgspec.structs import replace

from pilotlight.contracts.codec import decode_document, encode_document, format_utc_now
from pilotlight.contracts.names import Version, check_name
from pilotlight.contracts.promotion import PromotionRequest
from pilotlight.errors import NotFoundError
from pilotlight.storage.object_store import ObjectStore


def new_request(model: str, version: Version, alias: str, *, actor: str, force: bool, reason: str) -> PromotionRequest:
    """A new errand."""
    return PromotionRequest(uuid.uuid4().hex, model, version, alias, actor, format_utc_now(), force, reason)


def finish_request(
    request: PromotionRequest, state: Literal["promoted", "refused", "failed"], message: str
) -> PromotionRequest:
    """The errand with what came of it."""
    return replace(request, state=state, said=message, done=format_utc_now())


def save_request(store: ObjectStore, request: PromotionRequest) -> PromotionRequest:
    """Write an errand down as it is now."""
    store.put(promotion_path(request.model, request.id), encode_document(request))
    return request


def load_request(store: ObjectStore, model: str, request_id: str) -> PromotionRequest:
    """The errand of that id; `NotFoundError` when nobody has asked for it."""
    path = promotion_path(check_name(model, "model name"), check_name(request_id, "promotion's id"))
    try:
        return decode_document(store.get(path).data, PromotionRequest, path)
    except NotFoundError as exc:
        raise NotFoundError(
            f"There is no promotion {request_id!r} of {model!r}; POST .../promote gives its id."
        ) from exc


def promotion_path(model: str, request_id: str) -> str:
    """The key of an errand."""
    return f"models/{model}/promotions/{request_id}.json"
