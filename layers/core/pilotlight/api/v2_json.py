"""The JSON of an infer request as clients write it: its parts with their names, shapes and parameters, data undecoded.

It knows the form alone, not what a model takes. Sources: kserve/open-inference-protocol, Triton's extensions.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from pilotlight.api import missing
from pilotlight.errors import InvalidInputError

Parameters = dict[str, Any] | None  # None where a client writes null for what it leaves out


class InputBody(Struct):
    """One of the request's `inputs`; its data waits undecoded for the manifest to say what it must be."""

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

    nullable: ClassVar[bool] = False  # whether null is a missing number, in any tensor of floats

    inputs: list[InputBody]
    id: str | None = None
    parameters: Parameters = None
    outputs: list[OutputBody] | None = None


class MendedBody(InferBody):
    """The same, of a client that wrote NaN."""

    nullable: ClassVar[bool] = True


Body = TypeVar("Body", InferBody, MendedBody)
INFER_BODY = msgspec.json.Decoder(InferBody)
MENDED_BODY = msgspec.json.Decoder(MendedBody)


def decode_body(body: memoryview) -> InferBody:
    """The request's envelope, with the path of whatever is wrong in it."""
    try:
        return decoded(INFER_BODY, body)
    except NotJsonError:
        mended = missing.as_null(bytes(body))
        if mended is None:
            raise
    return decoded(MENDED_BODY, mended)


class NotJsonError(InvalidInputError):
    """The body cannot be read at all."""


def decoded(decoder: msgspec.json.Decoder[Body], body: bytes | memoryview) -> Body:
    """The body as the decoder's; `NotJsonError` for one that is none."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as exc:
        raise InvalidInputError(f"The body is not an infer request: {exc}.") from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        why = f"{exc} (JSON has no Infinity, binary tensors do)" if b"Infinity" in bytes(body) else exc
        raise NotJsonError(f"The body is not JSON: {why if len(body) else 'it is empty'}.") from exc


def flag(parameters: Mapping[str, Any], name: str, what: str, *, default: bool) -> bool:
    """A parameter that is true or false; a text such as "false" is neither, and means something else to each reader."""
    value = parameters.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise InvalidInputError(f"{what}: {name} is {value!r}, expected true or false.")
    return value
