"""Format what is wrong with a recipe in one sentence: where, the value, and what is allowed there.

This module formats pydantic's errors for any schema. In a discriminated union, the first field of each member is the
discriminator.
"""

import json
import re
from typing import Any, cast, get_args

from pydantic import BaseModel, Tag, ValidationError

MAX_VALUE_LENGTH = 100  # characters of a value in a message


def format_validation_error(error: ValidationError, root: type[BaseModel]) -> str:
    """Format the first of pydantic's errors as: key path, value, what is allowed; the others as a count.

    An unknown key precedes a missing one: it may be that one, misspelt.
    """
    problems = error.errors(include_url=False)
    if problems[0]["type"] == "missing":
        problems.sort(key=lambda one: one["type"] != "extra_forbidden")
    first, *others = problems
    path, part = locate_error(first["loc"], root)
    complaint = re.sub("^(Input|String|Tuple) should", "it must", first["msg"].removeprefix("Value error, "))
    if first["type"] == "extra_forbidden":
        message = f"there is no key {path!r}; {format_allowed_keys(*locate_error(first['loc'][:-1], root))}"
    elif first["type"] == "missing":
        message = f"the key {path!r} is missing"
    elif first["type"] == "json_invalid":
        message = f"it holds what is no text: {first['ctx']['error']}"
    elif first["type"].startswith("union_tag"):
        message = format_tag_error(path, first["ctx"])
    elif first["type"] in {"model_type", "dict_type"}:
        message = f"{path} is {format_value(first['input'])}; {format_allowed_keys(path, part)}"
    else:
        message = f"{path} is {format_value(first['input'])}; {complaint}"
    return message + (f" (and {len(others)} more)" if others else "")


def format_value(value: object) -> str:
    """Format a value as JSON, shortened when it is long."""
    text = json.dumps(value)
    return text if len(text) <= MAX_VALUE_LENGTH else f"{text[:MAX_VALUE_LENGTH]}..."


def format_tag_error(path: str, context: dict[str, str]) -> str:
    """Format what is wrong with the discriminator of a union."""
    key = f"{path}.{context['discriminator'].strip(chr(39))}"
    if "tag" not in context:
        return f"the key {key!r} is missing"
    return f"{key} is {json.dumps(context['tag'])}; it must be one of {context['expected_tags']}"


def format_allowed_keys(path: str, part: Any) -> str:  # noqa: ANN401 - a class or a union of classes
    """Format the keys that are allowed at a place of a recipe."""
    keys = dict.fromkeys(key for one in list_member_models(part) for key in one.model_fields)
    return f"{path or 'a recipe'} takes {', '.join(keys)}" if keys else "it must map keys to values"


def locate_error(location: tuple[int | str, ...], root: type[BaseModel]) -> tuple[str, Any]:
    """Locate an error by its key path, without pydantic's names for the branches of a union, and its type there."""
    path, current = list[str](), cast("Any", root)
    for key in location:
        branch = [
            one
            for one in list_member_models(current)
            if len(list_member_models(current)) > 1 and key in get_union_words(one)
        ] or find_tagged_members(current, key)
        fields = {name: field for one in list_member_models(current) for name, field in one.model_fields.items()}
        if branch:
            current = branch[0]
        elif isinstance(key, int) or fields:
            path.append(str(key))
            current = fields[str(key)].annotation if key in fields else None
    return ".".join(path), current


def list_member_models(part: Any) -> list[type[BaseModel]]:  # noqa: ANN401 - a class or a union of classes
    """List the classes with keys of their own that a type can be."""
    if isinstance(part, type) and issubclass(part, BaseModel):
        return [part]
    return [one for inner in get_args(part) for one in list_member_models(inner)]


def find_tagged_members(part: Any, key: int | str) -> list[type[BaseModel]]:  # noqa: ANN401 - a class or a union of classes
    """Find the class that a union identifies by pydantic's tag, without a discriminator of its own."""
    annotated = [(one, getattr(one, "__metadata__", ())) for one in get_args(part)]
    return [each for one, tags in annotated if Tag(str(key)) in tags for each in list_member_models(one)]


def get_union_words(part: type[BaseModel]) -> tuple[str, ...]:
    """Return the discriminator values of this class in a union: the values of its first key."""
    return get_args(next(iter(part.model_fields.values())).annotation)
