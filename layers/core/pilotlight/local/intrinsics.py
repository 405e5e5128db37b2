"""CloudFormation's YAML tags and intrinsic functions, as far as they can be evaluated before a deploy.

`!Ref`, `!Sub` and `!If` on parameters become values; what depends on a real resource becomes `UnresolvedValue`, which
keeps the template's text. This module knows nothing of functions or routes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pilotlight.errors import InvalidInputError

FUNCTION_TYPE = "AWS::Serverless::Function"
NO_VALUE = "!Ref AWS::NoValue"  # removes the property

try:
    from yaml import CSafeLoader as SafeLoader  # ten times faster, if PyYAML was built with libyaml
except ImportError:
    from yaml import SafeLoader  # type: ignore[assignment]  # the same class in pure python

_PLACEHOLDER = re.compile(r"\$\{(!?)([^}]*)\}")  # ${Name}, ${Name.Attribute}, and ${!Literal}


@dataclass(frozen=True)
class UnresolvedValue:
    """A value that only a deploy gives; `text` is how the template writes it."""

    text: str


class TemplateLoader(SafeLoader):
    """Safe YAML plus the short forms of intrinsic functions."""


def _construct_long_form(loader: SafeLoader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    """Construct `!Ref x` as `{"Ref": x}`, `!Sub x` as `{"Fn::Sub": x}`, and so on."""
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)  # type: ignore[arg-type]  # the third and last kind of node
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


TemplateLoader.add_multi_constructor("!", _construct_long_form)


def read_template(path: Path, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Read the template as nested dicts, with the given parameters, else with their defaults.

    Raises `InvalidInputError` if it cannot be read, and for a parameter that it does not have.
    """
    document = load_raw_template(path)
    values = _fill_parameters(document, parameters or {}, path) | _map_function_names(document)
    document = look_up_mappings(document, values)
    resolved: dict[str, Any] = resolve_intrinsics(document, values, evaluate_conditions(document, values))
    return resolved


def read_deployed_template(path: Path, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Read the template as AWS makes a stack of it: without the resources whose condition does not hold.

    `read_template` leaves open what joins parameters, since the local gateway trains where no subnet is named; AWS does
    not. Raises as that does.
    """
    document = load_raw_template(path)
    values = _fill_parameters(document, parameters or {}, path) | _map_function_names(document)
    document = join_known_parts(look_up_mappings(document, values), values)
    known_conditions = evaluate_conditions(document, values)
    resolved: dict[str, Any] = resolve_intrinsics(document, values, known_conditions)
    resources = resolved.get("Resources")
    if not isinstance(resources, dict) or not all(isinstance(resource, dict) for resource in resources.values()):
        raise InvalidInputError(f"{path} is not a CloudFormation template: Resources is no mapping of mappings.")
    present = {
        name: resource
        for name, resource in resources.items()
        if known_conditions.get(str(resource.get("Condition")), True)
    }
    return {**resolved, "Resources": present}


def load_raw_template(path: Path) -> dict[str, Any]:
    """Load the template with its intrinsic functions as written; `InvalidInputError` if it cannot be read.

    The content of an included file replaces its include.
    """
    try:
        document = _load_yaml(path)
    except OSError as exc:
        raise InvalidInputError(
            f"Cannot read the template {path}: {exc.strerror}. Run this in the folder of template.yaml."
        ) from exc
    if not isinstance(document, dict):
        raise InvalidInputError(f"{path} is not a CloudFormation template: it holds no mapping with Resources.")
    included: dict[str, Any] = expand_includes(document, path)
    return included


def _load_yaml(path: Path) -> Any:  # noqa: ANN401 - a YAML tree may hold anything
    try:
        return yaml.load(path.read_bytes(), Loader=TemplateLoader)  # noqa: S506  # TemplateLoader is a SafeLoader
    except yaml.YAMLError as exc:
        raise InvalidInputError(f"{path} is not YAML: {_describe_yaml_error(exc)}.") from exc


def expand_includes(node: Any, path: Path) -> Any:  # noqa: ANN401  # as above
    """Put each file that `node` of the template at `path` includes (AWS::Include) in its place, but for those in S3."""
    match node:
        case {"Fn::Transform": {"Name": "AWS::Include", "Parameters": {"Location": str() as location}}} if (
            len(node) == 1 and "://" not in location
        ):
            try:
                return _load_yaml(path.parent / location)
            except OSError as exc:
                raise InvalidInputError(f"{path} includes {location}, which cannot be read: {exc.strerror}.") from exc
        case dict():
            return {key: expand_includes(value, path) for key, value in node.items()}
        case list():
            return [expand_includes(item, path) for item in node]
    return node


def _describe_yaml_error(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem} in line {error.problem_mark.line + 1}"
    return " ".join(str(error).split())


def _get_parameter_defaults(document: Mapping[str, Any]) -> dict[str, Any]:
    declared = document.get("Parameters")
    if not isinstance(declared, dict):
        return {}
    return {name: spec["Default"] for name, spec in declared.items() if isinstance(spec, dict) and "Default" in spec}


def _fill_parameters(document: Mapping[str, Any], overrides: Mapping[str, Any], path: Path) -> dict[str, Any]:
    declared = document.get("Parameters")
    if unknown := overrides.keys() - (declared.keys() if isinstance(declared, dict) else set()):
        raise InvalidInputError(f"{path} has no parameter {', '.join(sorted(unknown))}; see its Parameters.")
    return {**_get_parameter_defaults(document), **overrides}


def look_up_mappings(node: Any, values: Mapping[str, Any], mappings: Any = None) -> Any:  # noqa: ANN401  # as above
    """Replace each `Fn::FindInMap` whose keys are known by what it finds in the Mappings of the template `node`."""
    mappings = node.get("Mappings") or {} if mappings is None else mappings
    match node:
        case {"Fn::FindInMap": [*keys]}:
            try:
                found = mappings
                for key in keys:
                    found = found[resolve_intrinsics(key, values)]
            except (LookupError, TypeError):
                return node
            return found
        case dict():
            return {key: look_up_mappings(value, values, mappings) for key, value in node.items()}
        case list():
            return [look_up_mappings(item, values, mappings) for item in node]
    return node


def join_known_parts(node: Any, values: Mapping[str, Any]) -> Any:  # noqa: ANN401  # as above
    """Replace each `Fn::Join` by its text if all its parts are known; a parameter that is a list is text."""
    match node:
        case {"Fn::Join": [str() as separator, parts]}:
            parts = resolve_intrinsics(parts, values)
            parts = parts.split(",") if isinstance(parts, str) else parts
            if not isinstance(parts, list) or any(isinstance(part, UnresolvedValue | dict) for part in parts):
                return node
            return separator.join(map(format_scalar, parts))
        case dict():
            return {key: join_known_parts(value, values) for key, value in node.items()}
        case list():
            return [join_known_parts(item, values) for item in node]
    return node


def evaluate_conditions(document: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, bool]:
    """Evaluate the conditions that depend on parameters alone."""
    declared = document.get("Conditions")
    known_conditions: dict[str, bool] = {}
    for name, condition in declared.items() if isinstance(declared, dict) else ():
        if (decided := _evaluate_condition(condition, parameters, known_conditions)) is not None:
            known_conditions[name] = decided
    return known_conditions


def _evaluate_condition(node: Any, parameters: Mapping[str, Any], known_conditions: Mapping[str, bool]) -> bool | None:  # noqa: ANN401  # as below
    """Return whether a condition holds; None if only AWS knows, or if it depends on a later condition."""
    match node:
        case {"Condition": str() as name}:
            return known_conditions.get(name)
        case {"Fn::Equals": [left, right]}:
            sides = [resolve_intrinsics(side, parameters, known_conditions) for side in (left, right)]
            return (
                None
                if any(isinstance(side, UnresolvedValue) for side in sides)
                else format_scalar(sides[0]) == format_scalar(sides[1])
            )
        case {"Fn::Not": [inner]}:
            decided = _evaluate_condition(inner, parameters, known_conditions)
            return None if decided is None else not decided
        case {"Fn::And": parts} | {"Fn::Or": parts}:
            found = [_evaluate_condition(part, parameters, known_conditions) for part in parts]
            return None if None in found else (all(found) if "Fn::And" in node else any(found))
    return None


def _map_function_names(document: Mapping[str, Any]) -> dict[str, str]:
    """Map the functions' names, which here are their logical ids."""
    resources = document.get("Resources")
    if not isinstance(resources, dict):
        return {}
    return {
        name: name for name, spec in resources.items() if isinstance(spec, dict) and spec.get("Type") == FUNCTION_TYPE
    }


def resolve_intrinsics(
    node: Any,  # noqa: ANN401 - a YAML tree may hold anything
    parameters: Mapping[str, Any],
    known_conditions: Mapping[str, bool] | None = None,
) -> Any:  # noqa: ANN401
    """Replace every intrinsic function by its value or `UnresolvedValue`, and drop what is AWS::NoValue."""
    known_conditions = known_conditions or {}
    if isinstance(node, list):
        items = [resolve_intrinsics(item, parameters, known_conditions) for item in node]
        return [item for item in items if not _is_no_value(item)]
    if not isinstance(node, dict):
        return node
    if len(node) == 1:
        name, argument = next(iter(node.items()))
        match name, argument:
            case "Ref", _:
                return parameters.get(str(argument), UnresolvedValue(f"!Ref {argument}"))
            case "Fn::Sub", _:
                return _substitute_variables(argument, parameters)
            case "Fn::If", [str() as condition, then, otherwise] if condition in known_conditions:
                return resolve_intrinsics(
                    then if known_conditions[condition] else otherwise, parameters, known_conditions
                )
        if isinstance(name, str) and name.startswith("Fn::"):
            return UnresolvedValue(f"!{name[4:]} {argument}")
    pairs = ((key, resolve_intrinsics(value, parameters, known_conditions)) for key, value in node.items())
    return {key: value for key, value in pairs if not _is_no_value(value)}


def _is_no_value(value: object) -> bool:
    return isinstance(value, UnresolvedValue) and value.text == NO_VALUE


def _substitute_variables(argument: Any, parameters: Mapping[str, Any]) -> str | UnresolvedValue:  # noqa: ANN401  # as above
    """Substitute the variables of `!Sub text` or `!Sub [text, {name: value}]`."""
    match argument:
        case str() as text:
            variables = dict(parameters)
        case [str() as text, dict() as own]:
            variables = {**parameters, **{name: resolve_intrinsics(value, parameters) for name, value in own.items()}}
        case _:
            return UnresolvedValue(f"!Sub {argument}")
    for literal, name in _PLACEHOLDER.findall(text):
        if not literal and isinstance(variables.get(name, UnresolvedValue(name)), UnresolvedValue):
            return UnresolvedValue(f"!Sub {text}")
    return _PLACEHOLDER.sub(lambda place: f"${{{place[2]}}}" if place[1] else format_scalar(variables[place[2]]), text)


def format_scalar(value: Any) -> str:  # noqa: ANN401  # as above
    """Format a YAML scalar as CloudFormation passes it on: text, with lower-case booleans."""
    return str(value).lower() if isinstance(value, bool) else str(value)
