"""Decode JSON bodies into msgspec's structs; what does not fit is told with the field's path and its value.

Fields that a struct does not have are ignored. A field of the type `X | None` may be null, which is as if it were not
there.
"""

import re
from typing import Any, TypeVar

import msgspec

from pilotlight.errors import FieldError, InvalidInputError

Body = TypeVar("Body")
PATH_AT_END = re.compile(r" - at (?:`key` in )?`\$\.?(?P<path>.*)`$", re.DOTALL)
STEP = re.compile(r"(?P<key>[^.\[\]]+)|\[(?P<index>\d+)\]|(?P<unknown>\[\.\.\.\])")
MISSING = re.compile(r"missing required field `(?P<name>[^`]*)`")
MAX_SHOWN_VALUE = 80  # characters of a wrong value


def decode_json_body(body: bytes, body_type: type[Body]) -> Body:
    """Decode a body; raise `FieldError` that names the field that is wrong, or `InvalidInputError` if it is no JSON."""
    if not body:
        raise InvalidInputError("The request has no body; send a JSON object.")
    try:
        return msgspec.json.decode(body, type=body_type)
    except msgspec.ValidationError as exc:
        raise describe_wrong_field(body, str(exc)) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidInputError(f"The body is not JSON: {exc}.") from exc


def describe_wrong_field(body: bytes, complaint: str) -> InvalidInputError:
    """Describe the field of which msgspec complains, with its path and its value."""
    found = PATH_AT_END.search(complaint)
    expectation = complaint[: found.start()] if found else complaint
    path = found["path"] if found else ""
    if missing := MISSING.search(expectation):
        whole = f"{path}.{missing['name']}" if path else missing["name"]
        return FieldError(f"{whole} is missing, which is required.", param=whole)
    if not path:
        return InvalidInputError(f"The body is wrong: {expectation.lower()}.")
    value = find_value(body, path)
    shown = "" if value is None else f" is {format_value(value)}"
    return FieldError(f"{path}{shown}: {expectation[:1].lower()}{expectation[1:]}.", param=path)


def find_value(body: bytes, path: str) -> Any:  # noqa: ANN401 - any JSON
    """Find the value at a path such as `messages[0].role`; None if the path leads to none, or to one of many."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # such as a number that is out of range
    for step in STEP.finditer(path):
        if step["unknown"]:
            return None
        key = int(step["index"]) if step["index"] else step["key"]
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def format_value(value: Any) -> str:  # noqa: ANN401 - any JSON
    """Format a value as in JSON, cut to what a sentence can hold."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= MAX_SHOWN_VALUE else f"{text[:MAX_SHOWN_VALUE]}..."
