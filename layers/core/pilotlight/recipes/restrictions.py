"""Restrict what a recipe may name that is not in a local folder: one that was sent over HTTP, or is in a store.

A caller who sends a recipe trains with the trainer's rights, but has no shell there: the recipe names data in stores,
contains no code, and makes the trainer neither read its machine's files nor call other hosts.
"""

from pilotlight.errors import InvalidInputError
from pilotlight.recipes.data_schema import UserDataOptions
from pilotlight.recipes.schema import BUILTIN_FOLDER, CustomOptions, Recipe


def check_restrictions(recipe: Recipe) -> Recipe:
    """Return the recipe if it can be trained away from its file; `InvalidInputError` names what prevents it."""
    if isinstance(recipe.model, CustomOptions):
        raise InvalidInputError(
            f"model.factory is {recipe.model.factory!r}, which is code; a recipe that is sent brings none. "
            "Train it where its file lies: pilotlight train RECIPE."
        )
    for key, path in recipe.data.all_paths if isinstance(recipe.data, UserDataOptions) else ():
        if not (is_in_store(path) or is_builtin_file(path)):
            raise InvalidInputError(
                f"data.{key} is {path!r}, which the trainer cannot see; upload it and name it store:data/... or "
                "s3://bucket/..., without another endpoint."
            )
    return recipe


def is_in_store(path: str) -> bool:
    """Return whether it names objects, of the run's own store or of a bucket of AWS."""
    return path.startswith("store:") or (path.startswith("s3://") and "?" not in path)


def is_builtin_file(path: str) -> bool:
    """Return whether it names a file that comes with the built-in recipes."""
    return "/" not in path and (BUILTIN_FOLDER / path).is_file()
