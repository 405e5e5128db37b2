"""CloudFormation's YAML tags and intrinsic functions, as far as they can be known before a deploy.

`!Ref`, `!Sub` and `!If` on parameters become values; what depends on a real resource becomes `Unknown`, which remembers
how it was written. This module knows nothing of functions or routes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pilotlight.errors import InvalidInputError

FUNCTION = "AWS::Serverless::Function"
NOTHING = "!Ref AWS::NoValue"  # what stands nowhere

try:
    from yaml import CSafeLoader as SafeLoader  # ten times faster, where PyYAML has been built with libyaml
except ImportError:
    from yaml import SafeLoader  # type: ignore[assignment]  # the same class in pure python

_PLACE = re.compile(r"\$\{(!?)([^}]*)\}")  # ${Name}, ${Name.Attribute}, and ${!Literal}


@dataclass(frozen=True)
class Unknown:
    """A value that only a deploy gives; `text` is how the template writes it."""

    text: str


class TemplateLoader(SafeLoader):
    """Safe YAML plus the short forms of intrinsic functions."""


def _long_form(loader: SafeLoader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    """`!Ref x` as `{"Ref": x}`, `!Sub x` as `{"Fn::Sub": x}`, and so on."""
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)  # type: ignore[arg-type]  # the third and last kind of node
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


TemplateLoader.add_multi_constructor("!", _long_form)


def read(path: Path, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The template as nested dicts, parameters filled in by those given, else by their defaults.

    `InvalidInputError` when it cannot be read, and for a parameter that it does not have.
    """
    document = written(path)
    values = _parameters(document, given or {}, path) | _functions(document)
    known = conditions(document, values)
    resolved: dict[str, Any] = resolve(document, values, known)
    return resolved


def written(path: Path) -> dict[str, Any]:
    """The template with its intrinsic functions as they are written; `InvalidInputError` when it cannot be read."""
    try:
        document = yaml.load(path.read_bytes(), Loader=TemplateLoader)  # noqa: S506  # TemplateLoader is a SafeLoader
    except OSError as exc:
        raise InvalidInputError(
            f"Cannot read the template {path}: {exc.strerror}. Run this in the folder of template.yaml."
        ) from exc
    except yaml.YAMLError as exc:
        raise InvalidInputError(f"{path} is not YAML: {_problem(exc)}.") from exc
    if not isinstance(document, dict):
        raise InvalidInputError(f"{path} is not a CloudFormation template: it holds no mapping with Resources.")
    return document


def _problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem} in line {error.problem_mark.line + 1}"
    return " ".join(str(error).split())


def _defaults(document: Mapping[str, Any]) -> dict[str, Any]:
    declared = document.get("Parameters")
    if not isinstance(declared, dict):
        return {}
    return {name: spec["Default"] for name, spec in declared.items() if isinstance(spec, dict) and "Default" in spec}


def _parameters(document: Mapping[str, Any], given: Mapping[str, Any], path: Path) -> dict[str, Any]:
    declared = document.get("Parameters")
    if unknown := given.keys() - (declared.keys() if isinstance(declared, dict) else set()):
        raise InvalidInputError(f"{path} has no parameter {', '.join(sorted(unknown))}; see its Parameters.")
    return {**_defaults(document), **given}


def conditions(document: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, bool]:
    """The conditions that parameters alone decide."""
    declared = document.get("Conditions")
    known: dict[str, bool] = {}
    for name, condition in declared.items() if isinstance(declared, dict) else ():
        if (decided := _decided(condition, parameters, known)) is not None:
            known[name] = decided
    return known


def _decided(node: Any, parameters: Mapping[str, Any], known: Mapping[str, bool]) -> bool | None:  # noqa: ANN401  # as below
    """Whether a condition holds; None when that is known only on AWS, or depends on a condition further down."""
    match node:
        case {"Condition": str() as name}:
            return known.get(name)
        case {"Fn::Equals": [left, right]}:
            sides = [resolve(side, parameters, known) for side in (left, right)]
            return None if any(isinstance(side, Unknown) for side in sides) else scalar(sides[0]) == scalar(sides[1])
        case {"Fn::Not": [inner]}:
            decided = _decided(inner, parameters, known)
            return None if decided is None else not decided
        case {"Fn::And": parts} | {"Fn::Or": parts}:
            found = [_decided(part, parameters, known) for part in parts]
            return None if None in found else (all(found) if "Fn::And" in node else any(found))
    return None


def _functions(document: Mapping[str, Any]) -> dict[str, str]:
    """Functions by their names, which here are their logical ids."""
    resources = document.get("Resources")
    if not isinstance(resources, dict):
        return {}
    return {name: name for name, spec in resources.items() if isinstance(spec, dict) and spec.get("Type") == FUNCTION}


def resolve(node: Any, parameters: Mapping[str, Any], known: Mapping[str, bool] | None = None) -> Any:  # noqa: ANN401  # a YAML tree may hold anything
    """`node` with every intrinsic function replaced by its value, or by `Unknown`; without what is AWS::NoValue."""
    known = known or {}
    if isinstance(node, list):
        items = [resolve(item, parameters, known) for item in node]
        return [item for item in items if not _is_nothing(item)]
    if not isinstance(node, dict):
        return node
    if len(node) == 1:
        name, argument = next(iter(node.items()))
        match name, argument:
            case "Ref", _:
                return parameters.get(str(argument), Unknown(f"!Ref {argument}"))
            case "Fn::Sub", _:
                return _substitute(argument, parameters)
            case "Fn::If", [str() as condition, then, otherwise] if condition in known:
                return resolve(then if known[condition] else otherwise, parameters, known)
        if isinstance(name, str) and name.startswith("Fn::"):
            return Unknown(f"!{name[4:]} {argument}")
    pairs = ((key, resolve(value, parameters, known)) for key, value in node.items())
    return {key: value for key, value in pairs if not _is_nothing(value)}


def _is_nothing(value: object) -> bool:
    return isinstance(value, Unknown) and value.text == NOTHING


def _substitute(argument: Any, parameters: Mapping[str, Any]) -> str | Unknown:  # noqa: ANN401  # as above
    """`!Sub text` or `!Sub [text, {name: value}]`."""
    match argument:
        case str() as text:
            known = dict(parameters)
        case [str() as text, dict() as own]:
            known = {**parameters, **{name: resolve(value, parameters) for name, value in own.items()}}
        case _:
            return Unknown(f"!Sub {argument}")
    for literal, name in _PLACE.findall(text):
        if not literal and isinstance(known.get(name, Unknown(name)), Unknown):
            return Unknown(f"!Sub {text}")
    return _PLACE.sub(lambda place: f"${{{place[2]}}}" if place[1] else scalar(known[place[2]]), text)


def scalar(value: Any) -> str:  # noqa: ANN401  # as above
    """A YAML scalar as CloudFormation passes it on: text, with lower-case booleans."""
    return str(value).lower() if isinstance(value, bool) else str(value)
