"""The JSON of an infer request as clients write it: names, shapes, parameters, and data that are not decoded yet.

This module checks the form alone, not what a model takes. Sources: kserve/open-inference-protocol, Triton's extensions.

JSON has no NaN, but clients write it for a missing number: tritonclient in a tensor in JSON form, MLflow's client in
an empty cell of a data frame. Triton and MLflow read it, and so does this module (infra/decisions/0056).
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from pilotlight.api.text_encoding import convert_to_utf8
from pilotlight.errors import InvalidInputError

MAX_ID_LENGTH = 10_000  # characters of a request's id, which its answer repeats
Parameters = dict[str, Any] | None  # None where a client writes null instead of omitting them
# A text is one match, closed or not, so that what follows an open quote is not searched repeatedly.
TEXT_OR_NAN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|\bNaN\b', re.DOTALL)


class InputBody(Struct):
    """One of the request's `inputs`; its data is decoded later, by the datatype in the manifest."""

    name: str
    shape: list[Annotated[int, Meta(ge=0)]]
    datatype: str
    parameters: Parameters = None
    data: Raw = Raw(b"")


class OutputBody(Struct):
    """One of the request's `outputs`."""

    name: str
    parameters: Parameters = None


class InferBody(Struct):
    """The body of an infer request."""

    nullable: ClassVar[bool] = False  # whether null is a missing number in any tensor of floats

    inputs: list[InputBody]
    id: Annotated[str, Meta(max_length=MAX_ID_LENGTH)] | None = None
    parameters: Parameters = None
    outputs: list[OutputBody] | None = None


class NanInferBody(InferBody):
    """The body of an infer request from a client that wrote NaN."""

    nullable: ClassVar[bool] = True


Body = TypeVar("Body", InferBody, NanInferBody)
INFER_BODY_DECODER = msgspec.json.Decoder(InferBody)
NAN_INFER_BODY_DECODER = msgspec.json.Decoder(NanInferBody)


def decode_infer_body(body: memoryview) -> InferBody:
    """Decode an infer request apart from its data; errors contain the path of what is wrong."""
    try:
        return decode_json_body(INFER_BODY_DECODER, body)
    except NotJsonError:
        text = convert_to_utf8(bytes(body), "")  # some programs write a byte order mark
        mended = replace_nan_with_null(text)
        if mended is None and len(text) == len(body):
            raise
    if mended is None:
        return decode_json_body(INFER_BODY_DECODER, text)
    return decode_json_body(NAN_INFER_BODY_DECODER, mended)


class NotJsonError(InvalidInputError):
    """The body is not JSON."""


def decode_json_body(decoder: msgspec.json.Decoder[Body], body: bytes | memoryview) -> Body:
    """Decode a body; raise `NotJsonError` for one that is not JSON."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as exc:
        raise InvalidInputError(f"The body is not an infer request: {exc}.") from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        reason = f"{exc} (JSON has no Infinity, binary tensors do)" if b"Infinity" in bytes(body) else exc
        raise NotJsonError(f"The body is not JSON: {reason if len(body) else 'it is empty'}.") from exc


def parse_flag(parameters: Mapping[str, Any], name: str, what: str, *, default: bool) -> bool:
    """Parse a parameter that is true or false; refuse a text such as "false", which readers interpret differently."""
    value = parameters.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise InvalidInputError(f"{what}: {name} is {value!r}, expected true or false.")
    return value


def replace_nan_with_null(body: bytes) -> bytes | None:
    """Replace each NaN outside of texts with null; return None if there is none."""
    return replace_nan(body, b"null")


def replace_nan(body: bytes, word: bytes) -> bytes | None:
    """Replace each NaN outside of texts with a word of JSON; return None if there is none."""
    if b"NaN" not in body:
        return None
    replaced = TEXT_OR_NAN.sub(lambda found: word if found[0] == b"NaN" else found[0], body)
    return None if replaced == body else replaced
