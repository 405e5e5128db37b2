"""Tell the files of XGBoost, LightGBM and CatBoost by their first bytes, without these libraries.

A pickle is none of them. The module opens no model and imports nothing heavy.
"""

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from pilotlight.errors import InvalidInputError, UnavailableError

Library = Literal["xgboost", "lightgbm", "catboost"]
HEAD_BYTES = 65_536  # within which a document tells what it is
SAVED_BY: dict[Library, str] = {
    "xgboost": "an XGBoost model, as save_model writes .json or .ubj",
    "lightgbm": "a LightGBM model, as save_model writes .txt",
    "catboost": "a CatBoost model, as save_model writes .cbm",
}
SUFFIXES: dict[str, Library] = {".json": "xgboost", ".ubj": "xgboost", ".txt": "lightgbm", ".cbm": "catboost"}
PIP_NAMES: dict[Library, str] = {"xgboost": "xgboost-cpu", "lightgbm": "lightgbm", "catboost": "catboost"}
# Documents of these libraries from which no model can be made again, and what to do instead.
DUMPS = (
    (rb'\s*\[\s*\{\s*"nodeid"', "a dump of XGBoost's trees for people (dump_model); save it by Booster.save_model"),
    (rb'\s*\{\s*"name"\s*:\s*"tree"', "a dump of LightGBM's trees for people (dump_model); save it by save_model"),
    (rb"binf", "in XGBoost's old binary form; open it with XGBoost, and save it as .ubj"),
)


@dataclass(frozen=True)
class BoosterFile:
    """A file of one of the libraries, and its form by the name that the library has for it."""

    library: Library
    form: Literal["json", "ubj", "txt", "cbm"]


def detect_booster(head: bytes) -> BoosterFile | None:
    """Tell whose model a file is by its first bytes; None if it is of none of them."""
    if head.startswith(b"CBM1"):
        return BoosterFile("catboost", "cbm")
    if re.match(rb"tree\r?\nversion=", head):
        return BoosterFile("lightgbm", "txt")
    if head.startswith(b"{") and re.match(rb"\{[#LlIiUM$\x00]*\x07learner\{", head):
        return BoosterFile("xgboost", "ubj")
    if re.match(rb"\s*\{", head) and re.search(rb'"learner"\s*:\s*\{', head):
        return BoosterFile("xgboost", "json")
    if re.match(rb"\s*\{", head) and re.search(rb'"(features_info|oblivious_trees)"\s*:', head):
        return BoosterFile("catboost", "json")
    return None


def check_booster_file(path: Path) -> BoosterFile | None:
    """Return whose model the file is, None if neither content nor name says that it is one.

    Raises `InvalidInputError` if the name promises one that the content is not, and `UnavailableError` without the
    library.
    """
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as exc:
        raise InvalidInputError(f"Cannot read {path}: {exc.strerror}.") from exc
    found = detect_booster(head)
    if found is None:
        refuse_pretender(path, head)
        return None
    check_library(found.library, str(path))
    return found


def refuse_pretender(path: Path, head: bytes) -> None:
    """Raise `InvalidInputError` if the file is named like a library's model, and is none."""
    for pattern, said in DUMPS:
        if re.match(pattern, head):
            raise InvalidInputError(f"{path} is {said}.")
    if path.suffix.lower() in SUFFIXES:
        wanted = SAVED_BY[SUFFIXES[path.suffix.lower()]]
        raise InvalidInputError(f"{path} is not {wanted}; no other {path.suffix} file is a model that is taken.")


def check_library(library: Library, source_name: str) -> None:
    """Raise `UnavailableError`, with the command that installs it, if the library is not there."""
    if find_spec(library) is None:
        raise UnavailableError(
            f"{source_name} is {SAVED_BY[library].partition(',')[0]}, and {library} is not installed; "
            f"run pip install {PIP_NAMES[library]}, and publish it again."
        )
