"""Bodies that are a file, as `curl --data-binary @photo.jpg` sends them, or a form with files, as `curl -F` does.

    image/png, audio/wav, text/plain, application/octet-stream    one example of the model's only input
    multipart/form-data                                           several files of a field are a batch; other fields
                                                                  are further inputs, or parameters of the request

Both protocols take them, and answer each in its own form. This module depends on manifests and bytes, not on formats of
files: which media types a model takes, its steps say (infra/decisions/0073).
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np

from pilotlight.api import mlflow, v2
from pilotlight.api.http import JSON
from pilotlight.api.multipart_form import FIELD_TYPE, FORM_TYPE, FormPart, parse_form
from pilotlight.api.request_limits import UNLIMITED, UNTYPED_COST, RequestLimits
from pilotlight.api.text_encoding import convert_to_utf8
from pilotlight.api.v2_json import replace_nan_with_null
from pilotlight.contracts.manifest import Manifest
from pilotlight.errors import InvalidInputError, UnsupportedTypeError
from pilotlight.processing.file_bytes import decode_file_bytes
from pilotlight.processing.input_validation import check_row_count
from pilotlight.processing.signature import CallSignature, SignatureInput, list_signatures
from pilotlight.runtime.datatypes import Array

ANY_BYTES = "application/octet-stream"
UNTOLD_TYPES = ("", "application/x-www-form-urlencoded")  # what clients say of a body of which they know nothing


def is_json(body: bytes, content_type: str) -> bool:
    """Return whether a body is to be read as JSON although its media type is another, as many clients send it.

    An object always is; so is any text whose type tells nothing, since the reader of JSON says what is wrong with it.
    """
    head = body[:1024].lstrip()
    if head.startswith((b"{", b"\xef\xbb\xbf{")):
        return True
    return parse_media_type(content_type) in UNTOLD_TYPES and b"\0" not in head and head[:1] < b"\x80"


def is_untold_object(body: bytes, content_type: str) -> bool:
    """Return whether a body is an object in JSON whose type does not tell, as `curl -d` sends it unless told to."""
    if parse_media_type(content_type) not in (*UNTOLD_TYPES, ANY_BYTES):
        return False
    return body[:1024].lstrip().startswith((b"{", b"\xef\xbb\xbf{"))


def parse_media_type(content_type: str) -> str:
    """Parse the media type of a `Content-Type`, in lower case and without parameters."""
    return content_type.partition(";")[0].strip().lower()


def decode_file_request(
    body: bytes,
    content_type: str,
    manifest: Manifest,
    limits: RequestLimits = UNLIMITED,
    text_types: Sequence[str] = (JSON,),
    query: Mapping[str, str] = MappingProxyType({}),
) -> v2.InferenceRequest:
    """Decode a body that is a file or a form, once decompressed; all outputs of the signature are returned.

    The `query` brings parameters, such as ?threshold=0.5, and so do fields of a form, which come first. `text_types`
    are what else the protocol takes, for a refusal to name. Raises `UnsupportedTypeError` for a media type that the
    model does not take, `TooLargeError` for what is more than the `limits`, before a file is decoded.
    """
    kind = parse_media_type(content_type)
    if kind == FORM_TYPE:
        return decode_form_request(parse_form(body, content_type), manifest, limits, parse_query(query))
    signature = find_file_signature(manifest)
    if signature is None:
        raise build_no_file_error(kind, manifest, text_types)
    (given,) = signature.inputs
    check_media_type(kind, given, manifest, text_types)
    if not body:
        raise InvalidInputError("The body is empty; send the bytes of a file, as curl's --data-binary @FILE does.")
    if not given.opaque:
        body = convert_to_utf8(body, content_type)
    return build_request(
        manifest, signature, {given.spec.name: build_elements([body], given, limits)}, limits, parse_query(query)
    )


def find_file_signature(manifest: Manifest) -> CallSignature | None:
    """Find the signature whose only input is BYTES, so that a file is an example of it."""
    return next(
        (way for way in list_signatures(manifest) if [given.spec.datatype for given in way.inputs] == ["BYTES"]), None
    )


def check_media_type(kind: str, given: SignatureInput, manifest: Manifest, text_types: Sequence[str]) -> None:
    """Refuse a media type that is none of the input's, with a sentence that says which are."""
    taken = (*given.media_types, ANY_BYTES)
    if any(matches_media_type(kind, pattern) for pattern in taken):
        return
    if kind in UNTOLD_TYPES:
        raise UnsupportedTypeError(
            f"The body is no JSON, and its Content-Type ({kind or 'there is none'}) does not tell what else it is: say "
            f"so, as curl does by -H 'Content-Type: {build_example_type(taken[0])}' beside --data-binary @FILE."
        )
    raise UnsupportedTypeError(
        f"The body is {kind!r}, which {manifest.name} does not take; "
        f"use {' or '.join((*taken, FORM_TYPE, *text_types))}."
    )


def build_no_file_error(kind: str, manifest: Manifest, text_types: Sequence[str]) -> UnsupportedTypeError:
    """Build the error for a file that is sent to a model of numbers."""
    inputs = ", ".join(describe_input(given) for given in list_signatures(manifest)[0].inputs)
    return UnsupportedTypeError(
        f"The body is {f'{kind!r}' if kind else 'no JSON'}, but {manifest.name} takes no file: its inputs are {inputs}"
        f"; use {' or '.join(text_types)}."
    )


def describe_input(given: SignatureInput) -> str:
    """Describe an input in a few words: its name, datatype and shape."""
    return f"{given.spec.name!r} ({given.spec.datatype} {given.spec.v2_shape})"


def matches_media_type(kind: str, pattern: str) -> bool:
    """Return whether a media type is the pattern, or of the pattern's family: image/png is of image/*."""
    return kind.startswith(pattern[:-1]) if pattern.endswith("/*") else kind == pattern


def build_example_type(pattern: str) -> str:
    """Build a media type that the pattern allows."""
    return {"image/*": "image/jpeg", "audio/*": "audio/wav"}.get(pattern, pattern)


def build_elements(files: Sequence[bytes], given: SignatureInput, limits: RequestLimits) -> Array:
    """Build the array of an input of BYTES: files as they are, or texts for what takes texts."""
    limits.check_elements(given.spec.name, len(files), sum(map(len, files)))
    elements = np.empty(len(files), object)
    elements[:] = files if given.opaque else [decode_text(file, place) for place, file in enumerate(files)]
    return elements.reshape(len(files), *(1 for _ in given.spec.shape[1:]))


def decode_text(file: bytes, place: int) -> str:
    """Decode a text, without the byte-order mark that some editors write."""
    try:
        return file.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise InvalidInputError(f"Text {place} is not UTF-8: {exc.reason} at byte {exc.start}.") from exc


def build_request(
    manifest: Manifest,
    signature: CallSignature,
    tensors: Mapping[str, Array],
    limits: RequestLimits,
    parameters: Mapping[str, Any] | None = None,
) -> v2.InferenceRequest:
    """Build the request for all outputs of the signature, unless its rows would take too long in the graph."""
    rows = max((len(tensor) for tensor in tensors.values() if tensor.ndim), default=1)
    if limits is not UNLIMITED:
        check_row_count(manifest.preprocess, rows)
        limits.check_rows(manifest, rows)
    outputs = [v2.RequestedOutput(spec.name) for spec in signature.outputs]
    return v2.InferenceRequest(None, tensors, outputs, parameters or {})


def decode_form_request(
    parts: Sequence[FormPart], manifest: Manifest, limits: RequestLimits, query: Mapping[str, Any]
) -> v2.InferenceRequest:
    """Decode the parts of a form: by the names of the model's inputs, or one field of files for its only input."""
    fields: dict[str, list[FormPart]] = {}
    for part in parts:
        fields.setdefault(part.name, []).append(part)
    signature = choose_form_signature(manifest, fields)
    names = match_fields(manifest, signature, fields)
    tensors = {
        given.spec.name: build_field_tensor(fields[names[given.spec.name]], given, manifest, limits)
        for given in signature.inputs
    }
    others = {name: found[-1] for name, found in fields.items() if name not in names.values()}
    parameters = {name: parse_field(part, limits) for name, part in others.items()}
    return build_request(manifest, signature, tensors, limits, {**query, **parameters})


def choose_form_signature(manifest: Manifest, fields: Mapping[str, Sequence[FormPart]]) -> CallSignature:
    """Choose the signature that has most of the fields; without any, the first that takes a file."""
    best = max(list_signatures(manifest), key=lambda way: sum(name in fields for name in way.input_names))
    if any(name in fields for name in best.input_names):
        return best
    return find_file_signature(manifest) or best


def match_fields(
    manifest: Manifest, signature: CallSignature, fields: Mapping[str, Sequence[FormPart]]
) -> dict[str, str]:
    """Match each input to the field that brings it: of its name, or any one field of files for one input of BYTES."""
    names = {name: name for name in signature.input_names if name in fields}
    missing = [given for given in signature.inputs if given.spec.name not in names]
    files = [name for name, parts in fields.items() if name not in names and parts[0].filename]
    if len(missing) == 1 and missing[0].spec.datatype == "BYTES" and len(files) == 1:
        return names | {missing[0].spec.name: files[0]}
    if missing:
        raise InvalidInputError(
            f"The form has the fields {list(fields)}, but {manifest.name} has the inputs {signature.input_names}; "
            f"{missing[0].spec.name!r} is missing."
        )
    return names


def build_field_tensor(
    parts: Sequence[FormPart], given: SignatureInput, manifest: Manifest, limits: RequestLimits
) -> Array:
    """Build an input's tensor of a field: a file or a text for each row, or numbers as JSON or in words."""
    if given.spec.datatype == "BYTES" and len(given.spec.shape) == 1:
        for part in parts:
            if part.filename and given.opaque and part.media_type != ANY_BYTES:
                check_part_type(part, given, manifest)
        return build_elements([get_file(part, opaque=given.opaque) for part in parts], given, limits)
    values = [parse_field(part, limits) for part in parts]
    nested = values[0] if len(values) == 1 and isinstance(values[0], list) else values
    return mlflow.build_tensor(nested, given, is_text=is_flat_text(nested))


def get_file(part: FormPart, *, opaque: bool) -> bytes:
    """Return what a part brings: a text in UTF-8, or the bytes of a file.

    A field may have them in base64 or in a data URL, as scripts of browsers send them.
    """
    if not opaque:
        return convert_to_utf8(part.data, part.content_type)
    if part.filename or part.media_type != FIELD_TYPE or not part.data.isascii():
        return part.data
    try:
        return decode_file_bytes(part.data.decode())
    except InvalidInputError:
        return part.data


def parse_query(query: Mapping[str, str]) -> dict[str, Any]:
    """Parse the parameters of a query: values as JSON, or as the texts that they are."""
    return {name: parse_value(value) for name, value in query.items()}


def check_part_type(part: FormPart, given: SignatureInput, manifest: Manifest) -> None:
    """Refuse a file of a form whose media type is none of the input's."""
    if not any(matches_media_type(part.media_type, pattern) for pattern in given.media_types):
        taken = ", ".join(given.media_types)
        raise UnsupportedTypeError(
            f"The form's file {part.filename!r} is {part.media_type!r}; {manifest.name} takes {taken} there."
        )


def is_flat_text(values: Sequence[Any]) -> bool:
    """Return whether all values are texts, whose numbers are read as those of a CSV file."""
    return all(isinstance(value, str) for value in values)


def parse_field(part: FormPart, limits: RequestLimits) -> Any:  # noqa: ANN401 - any JSON, or the text
    """Parse a field's value as JSON; what is none is the text itself."""
    limits.check_text(part.data, UNTYPED_COST)
    return parse_value(part.text)


def parse_value(text: str) -> Any:  # noqa: ANN401 - any JSON, or the text
    """Parse a value as JSON, in which NaN is null; what is none is the text itself."""
    plain = text.encode(errors="surrogatepass")
    try:
        return msgspec.json.decode(replace_nan_with_null(plain) or plain)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return text
