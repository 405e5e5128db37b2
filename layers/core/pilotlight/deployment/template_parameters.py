"""The parameters of the template: what may be given for each, checked here before anything is built."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pilotlight.local.intrinsics import evaluate_conditions, format_scalar, load_raw_template


@dataclass(frozen=True)
class ParameterSpec:
    """What a parameter takes; numbers and texts as CloudFormation compares them."""

    name: str
    type: str
    default: str
    allowed: tuple[str, ...]
    pattern: str | None
    minimum: float | None
    maximum: float | None


class TemplateParameters:
    """The parameters of a template, and the rules between them."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        declared = document.get("Parameters") or {}
        self.specs = {name: parse_spec(name, spec) for name, spec in declared.items()}
        self._rules: Mapping[str, Any] = document.get("Rules") or {}

    @classmethod
    def load(cls, template: Path) -> "TemplateParameters":
        """Load those of a template; raise `InvalidInputError` if it cannot be read."""
        return cls(load_raw_template(template))

    def find_problems(self, given: Mapping[str, str], current: Mapping[str, str] | None = None) -> list[str]:
        """Find all that is wrong with the given values; `current` are those of the stack that would be updated."""
        problems = [problem for name, value in given.items() if (problem := self._find_problem(name, value))]
        return problems or list(self._find_broken_rules({**(current or {}), **given}))

    def _find_problem(self, name: str, value: str) -> str:
        if name not in self.specs:
            return f"{name!r} is no parameter{self._suggest_name(name)}"
        return find_value_problem(self.specs[name], value)

    def _suggest_name(self, name: str) -> str:
        by_lower = {each.lower(): each for each in self.specs}
        near = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
        return f"; did you mean {by_lower[near[0]]}?" if near else f": there are {', '.join(self.specs)}."

    def _find_broken_rules(self, given: Mapping[str, str]) -> Iterator[str]:
        """Evaluate the template's Rules, which CloudFormation does only once all is built and uploaded."""
        values = {name: spec.default for name, spec in self.specs.items()} | dict(given)
        for name, rule in self._rules.items():
            asserted = {str(place): one["Assert"] for place, one in enumerate(rule["Assertions"])}
            applies = {name: rule["RuleCondition"]} if "RuleCondition" in rule else {}
            known = evaluate_conditions({"Conditions": {**applies, **asserted}}, values)
            for place, one in enumerate(rule["Assertions"]):
                if known.get(name, True) and known.get(str(place)) is False:
                    yield one.get("AssertDescription", f"The rule {name} of the template is broken.")


def parse_spec(name: str, spec: Mapping[str, Any]) -> ParameterSpec:
    """Parse a parameter as the template declares it."""
    return ParameterSpec(
        name,
        spec.get("Type", "String"),
        format_scalar(spec.get("Default", "")),
        tuple(map(format_scalar, spec.get("AllowedValues", ()))),
        spec.get("AllowedPattern"),
        spec.get("MinValue"),
        spec.get("MaxValue"),
    )


def find_value_problem(spec: ParameterSpec, value: str) -> str:
    """Find what is wrong with a value; empty if nothing is."""
    if spec.allowed and value not in spec.allowed:
        near = get_close_matches(value.lower(), [each.lower() for each in spec.allowed], n=1)
        hint = next((f"; did you mean {each}?" for each in spec.allowed if [each.lower()] == near), ".")
        return f"{spec.name} is {value!r}, and takes {', '.join(map(repr, spec.allowed))}{hint}"
    if spec.pattern is not None and re.fullmatch(spec.pattern, value) is None:
        return f"{spec.name} is {value!r}, and must match {spec.pattern}."
    return find_number_problem(spec, value) if spec.type == "Number" else ""


def find_number_problem(spec: ParameterSpec, value: str) -> str:
    """Find what is wrong with a number; empty if nothing is."""
    if re.fullmatch(r"-?\d+(\.\d+)?", value) is None:
        return f"{spec.name} is {value!r}, and must be a number."
    if spec.minimum is not None and float(value) < spec.minimum:
        return f"{spec.name} is {value}, and must be {spec.minimum} or more."
    if spec.maximum is not None and float(value) > spec.maximum:
        return f"{spec.name} is {value}, and must be {spec.maximum} or less."
    return ""
