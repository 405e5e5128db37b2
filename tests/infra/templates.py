"""The templates as they are written, what to look for in them, and ways to break a copy of them on purpose."""

from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pilotlight.local import intrinsics

ROOT = Path(__file__).parents[2]
Template = dict[str, Any]
Templates = dict[str, Template]  # by name: api, training, events, monitoring
Rule = Callable[[Templates], Iterator[str]]  # yields what is wrong, in sentences
Change = Callable[[Templates], None]  # says by its docstring what it changes

FILES = {
    "api": "template.yaml", "training": "infra/training.yaml", "events": "infra/events.yaml",
    "gateway": "infra/gateway.yaml", "alarms": "infra/alarms.yaml", "monitoring": "infra/monitoring.yaml",
}  # fmt: skip

TEMPLATES: Templates = {name: intrinsics.load_raw_template(ROOT / path) for name, path in FILES.items()}


# --- reading ----------------------------------------------------------------------------------------------------------


def statements(resource: Template) -> Iterator[Template]:
    """The statements of a function or a role, those under a condition as well."""
    return (one for _, one in conditional(resource))


def conditional(resource: Template) -> Iterator[tuple[str, Template]]:
    """The same, each with the name of its condition; empty where it has none."""
    for policy in resource["Properties"].get("Policies", []):
        for one in policy.get("PolicyDocument", policy)["Statement"]:
            yield (one["Fn::If"][0], one["Fn::If"][1]) if "Fn::If" in one else ("", one)


def roles(templates: Templates) -> Iterator[tuple[str, Template]]:
    """Everything that has rights, by its name."""
    for template in templates.values():
        for name, resource in template["Resources"].items():
            if resource["Type"] in ("AWS::Serverless::Function", "AWS::IAM::Role"):
                yield name, resource


def listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def keys(statement: Template) -> Iterator[str]:
    """The keys of the model bucket that a statement is about, as patterns."""
    for resource in listed(statement["Resource"]):
        text = resource.get("Fn::Sub", "") if isinstance(resource, dict) else str(resource)
        for bucket in ("${ModelBucket.Arn}/", "${ModelBucket}/"):
            if bucket in text:
                yield text.partition(bucket)[2]


def may(resource: Template, action: str, key: str) -> bool:
    """Whether a role may do this to this key of the bucket."""
    return any(
        action in listed(one["Action"]) and any(fnmatchcase(key, pattern) for pattern in keys(one))
        for one in statements(resource)
        if one["Effect"] == "Allow"
    )


# --- breaking ---------------------------------------------------------------------------------------------------------


def changed(at: str, to: object) -> Change:
    """A change of one value; None takes it away. `at` is a path of keys with dots between them."""

    def change(templates: Templates) -> None:
        *way, last = [int(step) if step.isdecimal() else step for step in at.split(".")]
        node: Any = templates
        for step in way:
            node = node[step]
        if to is None:
            del node[last]
        else:
            node[last] = to

    change.__doc__ = f"{at} -> {'(nothing)' if to is None else to}"
    return change


def allowed(file: str, name: str, action: str, key: str) -> Change:
    """One more right."""

    def change(templates: Templates) -> None:
        resource = templates[file]["Resources"][name]
        bucket = "${ModelBucket.Arn}" if file == "api" else "arn:${AWS::Partition}:s3:::${ModelBucket}"
        policy = resource["Properties"]["Policies"][0]
        policy.get("PolicyDocument", policy)["Statement"].append(
            {"Effect": "Allow", "Action": action, "Resource": {"Fn::Sub": f"{bucket}/{key}"}}
        )

    change.__doc__ = f"{file}.{name} may {action} {key}"
    return change


def unconditional(file: str, name: str, action: str, effect: str = "Allow") -> Change:
    """A right under the condition CaptureEnabled becomes one that is always there; a Deny there becomes an Allow."""

    def change(templates: Templates) -> None:
        listing = templates[file]["Resources"][name]["Properties"]["Policies"][0]["Statement"]
        for place, one in enumerate(listing):
            inner = one.get("Fn::If", ["", {}, {}])[1]
            if inner.get("Action") == action and inner.get("Effect") == effect:
                listing[place] = {**inner, "Effect": "Allow"}

    change.__doc__ = (
        f"{file}.{name} may always {action}" if effect == "Allow" else f"{file}.{name} without its {effect}"
    )
    return change
