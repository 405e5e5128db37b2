"""Find the settings in which recipes differ.

It compares trees of settings and does not know what they mean. A part of a recipe that has kinds is named by its kind.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

RecipeSettings = dict[str, Any]  # by their full path: `optimiser.learning_rate`
KIND_KEYS = ("name", "architecture")  # keys whose value is the kind of a part
IGNORED_PATHS = {"name"}  # of the model that comes out


def flatten_recipe(recipe: str) -> RecipeSettings:
    """Flatten a recipe's YAML to one level of full paths."""
    return flatten_tree(yaml.safe_load(recipe) or {}, "")


def flatten_tree(tree: Mapping[str, Any], prefix: str) -> RecipeSettings:
    """Flatten a tree to its leaves, by their paths."""
    leaves: RecipeSettings = {}
    for key, value in tree.items():
        leaves |= flatten_tree(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves


def find_differing_paths(recipes: Sequence[RecipeSettings]) -> list[str]:
    """Find the paths at which not all recipes are equal, in the order of the recipe."""
    paths = dict.fromkeys(path for one in recipes for path in one)
    return [path for path in paths if path not in IGNORED_PATHS and any(compare_to_first(recipes, path))]


def compare_to_first(recipes: Sequence[RecipeSettings], path: str) -> list[bool]:
    """Return which of the recipes differ from the first at a path."""
    first = recipes[0]
    return [(path in one) != (path in first) or one.get(path) != first.get(path) for one in recipes]


def group_paths(paths: Sequence[str]) -> dict[str, list[str]]:
    """Group paths by the part of the recipe that they are in."""
    groups: dict[str, list[str]] = {}
    for path in paths:
        groups.setdefault(path.split(".")[0], []).append(path)
    return groups


def format_settings(recipe: RecipeSettings, paths: Sequence[str]) -> str:
    """Format a recipe's values at these paths of one part, briefly: `adam, learning_rate 0.01`.

    A setting that is no part, such as `epochs`, is formatted as its value alone.
    """
    words = []
    for path in paths:
        _, _, key = path.partition(".")
        if path in recipe:
            named = not key or key in KIND_KEYS
            words.append(format_setting(recipe, path) if named else f"{key} {format_setting(recipe, path)}")
    return ", ".join(words)


def format_setting(recipe: RecipeSettings, path: str) -> str:
    """Format a setting briefly; return an empty string if a recipe of its kind has no such setting."""
    setting = recipe.get(path)
    if isinstance(setting, bool):
        return str(setting).lower()
    return str(setting) if setting is not None else "null" if path in recipe else ""
