"""From the body of a request to an order for a training, checked as far as that goes without torch.

A body is either an order in JSON or YAML, `{"recipe": "digits", "set": ["epochs=5"], "run": "monday"}`, or the recipe
itself, and then `run`, `nodes` and `resume` stand in the query.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import yaml

from pilotlight.api.http import Request
from pilotlight.api.schemas.training import Start
from pilotlight.contracts.manifest import check_name
from pilotlight.errors import InvalidInputError, TooLargeError
from pilotlight.recipes import restrictions
from pilotlight.recipes.schema import Loader, Recipe, made, of_record, parse, read
from pilotlight.training_runs.run_store import new_name

LARGEST = 256 * 1024  # bytes of a body; a recipe has some hundred
BODY = "The body"


@dataclass(frozen=True)
class Order:
    """A training that somebody wants."""

    recipe: Recipe
    run: str
    nodes: int = 1
    resume: bool = False


def take(request: Request) -> Order:
    """The order in a request; `InvalidInputError` says in one sentence what is wrong with it."""
    if len(request.body) > LARGEST:
        raise TooLargeError(f"The body has {len(request.body):,} bytes; a recipe may have {LARGEST:,}.")
    try:
        start = asked(tree(request.body), request.query)
        recipe = restrictions.check(ordered(start))
    except RecursionError as exc:
        raise InvalidInputError("The body is nested too deeply to be a recipe.") from exc
    run = check_name(start.run, "run's name") if start.run else new_name(recipe.name)
    return Order(recipe, run, start.nodes, start.resume)


def tree(body: bytes) -> Any:  # noqa: ANN401 - YAML is anything until it is checked
    """What the body holds: JSON where it begins with a brace, YAML otherwise."""
    if not body.strip():
        raise InvalidInputError('The body is empty; send a recipe, or the name of one: {"recipe": "digits"}.')
    try:
        if body.lstrip().startswith(b"{"):
            return msgspec.json.decode(body)
        text = body.decode()
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise InvalidInputError(f"The body is not JSON: {exc}.") from exc
    return parse(plain(text, BODY), BODY)


def plain(text: str, where: str) -> str:
    """YAML without aliases: a few lines of them can stand for more than any memory holds."""
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader)):
            raise InvalidInputError(f"{where} has YAML aliases (*name), which are not read here; write them out.")
    except yaml.YAMLError:
        return text  # which `parse` tells in a sentence
    return text


def asked(content: Any, query: Mapping[str, str]) -> Start:  # noqa: ANN401 - as above
    """The order that the body is, or that body and query are together."""
    if isinstance(content, dict) and "recipe" not in content:
        content = {"recipe": content, **{key: query[key] for key in ("run", "nodes", "resume") if key in query}}
    try:
        return msgspec.convert(content, Start, strict=isinstance(content, dict) and not query)
    except msgspec.ValidationError as exc:
        raise InvalidInputError(f"The body orders no training: {exc}.") from exc


def ordered(start: Start) -> Recipe:
    """The recipe that is wanted, with its changes."""
    for change in start.set:
        plain(change.partition("=")[2], f"set {change[:60]!r}")
    if not isinstance(start.recipe, str):
        return made(start.recipe, start.set, "recipe")
    file = of_record().get(start.recipe)
    if file is None:
        known = ", ".join(of_record())
        raise InvalidInputError(f"There is no recipe {start.recipe!r}: send a whole one, or one of {known}.")
    return made(parse(read(file), start.recipe), start.set, start.recipe)
