"""Requests for trainings: parsed from bodies, and checked as far as that is possible without torch.

A body is either a request in JSON or YAML, `{"recipe": "digits", "set": ["epochs=5"], "run": "monday"}`, or the recipe
itself, and then `run`, `nodes` and `resume` are in the query.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import yaml

from pilotlight.api.http import Request
from pilotlight.api.powertools_router import check_integer, validate_body
from pilotlight.api.schemas.training import StartTrainingBody
from pilotlight.contracts.names import check_name
from pilotlight.errors import InvalidInputError, TooLargeError
from pilotlight.recipes import restrictions
from pilotlight.recipes.schema import (
    Recipe,
    RecipeYamlLoader,
    build_recipe,
    list_builtin_recipes,
    parse_yaml,
    read_recipe_text,
)
from pilotlight.training_runs.run_store import generate_run_name

MAX_BODY_BYTES = 256 * 1024  # bytes of a body; a recipe has some hundreds
BODY = "The body"


@dataclass(frozen=True)
class TrainingRequest:
    """A training as it is requested."""

    recipe: Recipe
    run: str
    nodes: int = 1
    resume: bool = False


def parse_training_request(request: Request) -> TrainingRequest:
    """Parse a request for a training; the `InvalidInputError` is one sentence."""
    if len(request.body) > MAX_BODY_BYTES:
        raise TooLargeError(f"The body has {len(request.body):,} bytes; a recipe may have {MAX_BODY_BYTES:,}.")
    try:
        start = to_start_request(parse_body(request.body), request.query)
        recipe = restrictions.check_restrictions(load_requested_recipe(start))
    except RecursionError as exc:
        raise InvalidInputError("The body is nested too deeply to be a recipe.") from exc
    run = check_name(start.run, "run's name") if start.run else generate_run_name(recipe.name)
    return TrainingRequest(recipe, run, start.nodes, start.resume)


def parse_body(body: bytes) -> Any:  # noqa: ANN401 - YAML is anything until it is checked
    """Decode the body: JSON where it begins with a brace, YAML otherwise."""
    if not body.strip():
        raise InvalidInputError('The body is empty; send a recipe, or the name of one: {"recipe": "digits"}.')
    try:
        if body.lstrip().startswith(b"{"):
            return msgspec.json.decode(body)
        text = body.decode()
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise InvalidInputError(f"The body is not JSON: {exc}.") from exc
    return parse_yaml(reject_yaml_aliases(text, BODY), BODY)


def reject_yaml_aliases(text: str, where: str) -> str:
    """Return YAML unless it has aliases: a few lines of them can expand to more than the memory."""
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, RecipeYamlLoader)):
            raise InvalidInputError(f"{where} has YAML aliases (*name), which are not read here; write them out.")
    except yaml.YAMLError:
        return text  # `parse_yaml` reports the error in a sentence
    return text


def to_start_request(content: Any, query: Mapping[str, str]) -> StartTrainingBody:  # noqa: ANN401 - as above
    """Build the request from the body, and from the query where the body is a recipe."""
    if isinstance(content, dict) and "recipe" not in content:
        if "nodes" in query:
            check_integer("nodes", query["nodes"])
        content = {"recipe": content, **{key: query[key] for key in ("run", "nodes", "resume") if key in query}}
    return validate_body(content, StartTrainingBody)


def load_requested_recipe(start: StartTrainingBody) -> Recipe:
    """Load the requested recipe with its changes."""
    for change in start.set:
        reject_yaml_aliases(change.partition("=")[2], f"set {change[:60]!r}")
    if not isinstance(start.recipe, str):
        return build_recipe(start.recipe, start.set, "recipe")
    file = list_builtin_recipes().get(start.recipe)
    if file is None:
        names = ", ".join(list_builtin_recipes())
        raise InvalidInputError(f"There is no recipe {start.recipe!r}: send a whole one, or one of {names}.")
    return build_recipe(parse_yaml(read_recipe_text(file), start.recipe), start.set, start.recipe)
