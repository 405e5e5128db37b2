"""Expand `~` at the start of a path as a shell does, also where none has: in a variable, a recipe, behind `=`."""

import os.path

from pilotlight.errors import InvalidInputError

FILE_SCHEME = "file://"


def expand_home(path: str) -> str:
    """Expand `~/x`, `~name/x` and `file://~/x`; return any other path or URL as it is.

    Raises `InvalidInputError` for a user that this machine does not have.
    """
    plain = path.removeprefix(FILE_SCHEME)
    if not plain.startswith("~"):
        return path
    expanded = os.path.expanduser(plain)  # noqa: PTH111 - Path drops a slash at the end, and raises for an unknown user
    if expanded.startswith("~"):
        raise InvalidInputError(f"{path!r} begins with a user's folder that there is not; ./{plain} names a file here.")
    return f"{FILE_SCHEME}{expanded}" if plain != path else expanded
