"""Read the names of a model's classes from a file, as Windows, Excel, macOS and Hugging Face write it.

A line is a class, kept as it stands: `n01440764 tench, Tinca tinca`. JSON is a list of names, `id2label` by index, or
`label2id` by name, alone or in a config. It knows files, not models.
"""

import codecs
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from pilotlight.errors import InvalidInputError

LINE_END = re.compile(r"\r\n|\n|\r")  # `str.splitlines` also breaks at characters that stand within names
BYTE_ORDER_MARKS = (  # the longer first, since that of UTF-16 begins it
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
SPACE = " "  # alone on a line: a class of recognisers of text


def read_label_file(file: Path) -> tuple[str, ...]:
    """Read the names; `InvalidInputError` if the file cannot be read, has none, or a line without one."""
    text = read_text_file(file)
    labels = parse_json_labels(file, text) if text.lstrip()[:1] in ("{", "[") else None
    if labels is None:
        labels = parse_label_lines(file, text)
    if not labels:
        raise InvalidInputError(f"{file} has no labels; write the name of a class on each line.")
    return labels


def read_text_file(file: Path) -> str:
    """Read a text in UTF-8, or in UTF-16 or UTF-32 with its byte-order mark, which is dropped."""
    try:
        content = file.read_bytes()
    except OSError as exc:
        raise InvalidInputError(f"{file} cannot be read as text: {exc.strerror}.") from exc
    encoding = next((name for mark, name in BYTE_ORDER_MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as exc:
        raise InvalidInputError(
            f"{file} cannot be read as text: it is not {encoding.upper()} at byte {exc.start}; save it as UTF-8."
        ) from exc
    if "\0" in text:
        raise InvalidInputError(f"{file} cannot be read as text: it has zero bytes; save it as UTF-8.")
    return text


def parse_label_lines(file: Path, text: str) -> tuple[str, ...]:
    """Parse a name for each line; blank lines at the end are dropped."""
    lines = LINE_END.split(text)
    while lines and not lines[-1].strip() and lines[-1] != SPACE:
        lines.pop()
    for number, line in enumerate(lines, 1):
        if not line.strip() and line != SPACE:
            raise InvalidInputError(
                f"{file} is blank in line {number}; each line names a class, so name it or remove the line."
            )
    return tuple(lines)


def parse_json_labels(file: Path, text: str) -> tuple[str, ...] | None:
    """Parse a list, `id2label` or `label2id`; None if the text is no JSON, but lines that begin so."""
    try:
        content = msgspec.json.decode(text.encode())
    except msgspec.MsgspecError:
        return None
    if isinstance(content, dict):
        content = content.get("id2label") or content.get("label2id") or content
    if isinstance(content, list) and all(isinstance(name, str | int | float) for name in content):
        return tuple(str(name) for name in content)
    if isinstance(content, dict) and content:
        return order_labels(file, content)
    raise InvalidInputError(f"{file} is JSON, but neither a list of names nor an object of names by index.")


def order_labels(file: Path, content: Mapping[str, object]) -> tuple[str, ...]:
    """Order names by their indices, which are the keys or the values; they must be 0, 1, 2 and so on."""
    names_by_index = all(key.isdecimal() for key in content)
    pairs = [(key, name) if names_by_index else (name, key) for key, name in content.items()]
    try:
        ordered = {int(str(index)): str(name) for index, name in pairs}
    except ValueError as exc:
        raise InvalidInputError(
            f"{file} has a name without a whole number as its index: {str(content)[:100]}."
        ) from exc
    missing = [index for index in range(len(pairs)) if index not in ordered]
    if missing:
        raise InvalidInputError(f"{file} has {len(pairs)} labels, but none of index {missing[0]}.")
    return tuple(ordered[index] for index in range(len(pairs)))
