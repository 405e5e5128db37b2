"""Names of models, versions and aliases in URLs and paths, and references to them."""

import re
from typing import Annotated

from msgspec import Meta, Struct

from pilotlight.errors import InvalidInputError

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
RESERVED_NAMES = frozenset({"stats"})  # `/v2/models/stats` is a route of the statistics extension
RESERVED_ALIASES = frozenset({"versions"})  # its history would lie where rights on files of versions reach
CHAMPION = "champion"  # serves if the caller names neither version nor alias
CANDIDATE = "candidate"  # the newest version that has not passed the gate

Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
Version = Annotated[int, Meta(ge=1)]


class ModelReference(Struct, frozen=True):
    """A model, and a version or alias of it: `digits`, `digits:3`, `digits@candidate`."""

    name: str
    version: int | None = None
    alias: str = CHAMPION

    @classmethod
    def parse(cls, text: str) -> "ModelReference":
        """Parse `name`, `name:3` or `name@alias`; `InvalidInputError` shows the form of a reference."""
        name, mark, selector = re.split("([:@])", text, maxsplit=1) if re.search("[:@]", text) else (text, "", "")
        if mark and not selector:
            raise InvalidInputError(f"{text!r} ends in {mark!r}; write name, name:3 or name@alias.")
        if mark and is_version(selector) != (mark == ":"):
            raise InvalidInputError(f"{selector!r} in {text!r} is wrong; versions, 1 2 3 ..., follow ':', aliases '@'.")
        return cls.from_selector(name, selector or None)

    @classmethod
    def from_selector(cls, name: str, selector: str | None = None) -> "ModelReference":
        """Create a reference from a name and a V2 `versions/...` path segment; None means the champion."""
        check_name(name, "model name")
        if selector is None:
            return cls(name)
        if is_version(selector):
            return cls(name, int(selector))
        return cls(name, None, check_alias(selector))

    def __str__(self) -> str:
        return f"{self.name}:{self.version}" if self.version is not None else f"{self.name}@{self.alias}"


def is_version(text: str) -> bool:
    """Return whether `text` is a version as in paths: a positive integer without leading zeros."""
    return re.fullmatch(r"[1-9][0-9]{0,17}", text) is not None


def check_name(name: str, what: str) -> str:
    """Return `name`, or raise `InvalidInputError` that shows the form of names."""
    if re.fullmatch(NAME_PATTERN, name) is None or name in RESERVED_NAMES:
        raise InvalidInputError(
            f"{name!r} is not a {what}: 1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or digit, "
            f"and not {', '.join(sorted(RESERVED_NAMES))}."
        )
    return name


def check_alias(alias: str) -> str:
    """Return `alias`, or raise `InvalidInputError`; digits alone would be mistaken for a version."""
    if alias.isdecimal():
        raise InvalidInputError(f"{alias!r} is neither a version (1, 2, 3, ...) nor an alias, which has letters too.")
    if alias in RESERVED_ALIASES:
        raise InvalidInputError(f"{alias!r} cannot be the name of an alias; choose another.")
    return check_name(alias, "version or alias")
