"""CloudFormation's YAML tags and intrinsic functions, as far as they can be known before a deploy.

`!Ref` and `!Sub` on parameters become values; what depends on a real resource becomes `Unknown`, which remembers how
it was written. This module knows nothing of functions or routes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pilotlight.errors import InvalidInputError

FUNCTION = "AWS::Serverless::Function"

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


def read(path: Path, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The template as nested dicts, parameters filled in, by default with their own defaults.

    `InvalidInputError` when it cannot be read.
    """
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
    resolved: dict[str, Any] = resolve(document, _defaults(document) | dict(parameters or {}) | _functions(document))
    return resolved


def _problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem} in line {error.problem_mark.line + 1}"
    return " ".join(str(error).split())


def _defaults(document: Mapping[str, Any]) -> dict[str, Any]:
    declared = document.get("Parameters")
    if not isinstance(declared, dict):
        return {}
    return {name: spec["Default"] for name, spec in declared.items() if isinstance(spec, dict) and "Default" in spec}


def _functions(document: Mapping[str, Any]) -> dict[str, str]:
    """Functions by their names, which here are their logical ids."""
    resources = document.get("Resources")
    if not isinstance(resources, dict):
        return {}
    return {name: name for name, spec in resources.items() if isinstance(spec, dict) and spec.get("Type") == FUNCTION}


def resolve(node: Any, parameters: Mapping[str, Any]) -> Any:  # noqa: ANN401  # a YAML tree may hold anything
    """`node` with every intrinsic function replaced by its value, or by `Unknown`."""
    if isinstance(node, list):
        return [resolve(item, parameters) for item in node]
    if not isinstance(node, dict):
        return node
    if len(node) == 1:
        name, argument = next(iter(node.items()))
        if name == "Ref":
            return parameters.get(str(argument), Unknown(f"!Ref {argument}"))
        if isinstance(name, str) and name.startswith("Fn::"):
            return _substitute(argument, parameters) if name == "Fn::Sub" else Unknown(f"!{name[4:]} {argument}")
    return {key: resolve(value, parameters) for key, value in node.items()}


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
