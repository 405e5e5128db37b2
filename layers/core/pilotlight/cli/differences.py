"""In which settings recipes differ.

It knows trees of settings, not what they mean. A part of a recipe that comes in kinds is named by its first word.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

Settings = dict[str, Any]  # by their full path: `optimiser.learning_rate`
NAMING = ("name", "architecture")  # keys whose value says which kind a part is
UNINTERESTING = {"name"}  # of the model that comes out


def settings(recipe: str) -> Settings:
    """A recipe's YAML as one level of full paths."""
    return flat(yaml.safe_load(recipe) or {}, "")


def flat(tree: Mapping[str, Any], above: str) -> Settings:
    """Every leaf of a tree, by its path."""
    found: Settings = {}
    for key, value in tree.items():
        found |= flat(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value}
    return found


def differing(several: Sequence[Settings]) -> list[str]:
    """The paths at which not all are alike, in the order of the recipe."""
    paths = dict.fromkeys(path for one in several for path in one)
    return [path for path in paths if path not in UNINTERESTING and any(differ(several, path))]


def differ(several: Sequence[Settings], path: str) -> list[bool]:
    """Which of them have another value at a path than the first."""
    first = several[0]
    return [(path in one) != (path in first) or one.get(path) != first.get(path) for one in several]


def grouped(paths: Sequence[str]) -> dict[str, list[str]]:
    """Paths by the part of the recipe that they are in."""
    groups: dict[str, list[str]] = {}
    for path in paths:
        groups.setdefault(path.split(".")[0], []).append(path)
    return groups


def said(one: Settings, paths: Sequence[str]) -> str:
    """A recipe's values at these paths of one part, in few words: `adam, learning_rate 0.01`.

    A setting that is no part, such as `epochs`, is its value alone.
    """
    words = []
    for path in paths:
        _, _, key = path.partition(".")
        if path in one:
            named = not key or key in NAMING
            words.append(value(one, path) if named else f"{key} {value(one, path)}")
    return ", ".join(words)


def value(one: Settings, path: str) -> str:
    """A setting in a few letters; nothing where a recipe of its kind has no such setting."""
    found = one.get(path)
    if isinstance(found, bool):
        return str(found).lower()
    return str(found) if found is not None else "null" if path in one else ""
