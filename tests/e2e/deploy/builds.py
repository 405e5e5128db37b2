"""Copies of the package with something changed, as another revision or somebody's own settings would have it."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

import pilotlight
from pilotlight.local.intrinsics import load_raw_template
from tests.e2e.deploy.changed_templates import link_entries
from tests.e2e.deploy.conftest import BUILT, ROOT

Template = dict[str, Any]
NEXT = f"{pilotlight.__version__}+next"  # the version of the changed code
NESTED = {"AWS::CloudFormation::Stack", "AWS::Serverless::Application"}


def build_next_code(root: Path) -> Path:
    """Build the package with another version of Pilotlight itself, and every function's own code as it was."""
    layer = "CoreLayer"
    template = link_build(root, without=layer)
    shutil.copytree(BUILT.parent / layer, template.parent / layer, copy_function=os.link)
    module = template.parent / layer / "python" / "pilotlight" / "__init__.py"
    text = module.read_text().replace(f'"{pilotlight.__version__}"', f'"{NEXT}"')
    assert NEXT in text
    for file in (module, *module.parent.glob("__pycache__/__init__.*.pyc")):  # not checked against their source
        file.unlink()
    module.write_text(text)
    return template


def build_changed(root: Path, change: Callable[[Template], None]) -> Path:
    """Build the package with its template changed."""
    return change_template(BUILT, link_build(root, without=BUILT.name), change)


def change_template(source: Path, target: Path, change: Callable[[Template], None]) -> Path:
    """Write a changed template beside what it names, or one whose uploads have addresses anywhere."""
    document = load_raw_template(source)
    change(document)
    target.write_text(yaml.safe_dump(json.loads(json.dumps(document)), sort_keys=False))
    return target


def build_for_arm64(template: Path) -> None:
    """Change a built template and what it nests as `make package ARCH=arm64` does, but for the code."""
    nested = template.parent / "Events"
    nested.unlink()  # the link
    link_entries(BUILT.parent / "Events", nested, without="template.yaml")
    change_template(template, template, allow_arm64)
    change_template(BUILT.parent / "Events" / "template.yaml", nested / "template.yaml", allow_arm64)


def allow_arm64(template: Template) -> None:
    """Allow arm64 alone."""
    template["Parameters"]["Architecture"] |= {"Default": "arm64", "AllowedValues": ["arm64"]}


def link_build(root: Path, without: str) -> Path:
    """Link everything of the package but one name into a root of its own, and return the place of its template."""
    build = root / BUILT.parent.relative_to(ROOT)
    link_entries(BUILT.parent, build, without=without)
    (root / "infra").symlink_to(ROOT / "infra")  # which the built template includes from there
    return build / BUILT.name


def refuse_last(template: Template) -> None:
    """Add a resource that no account can create, after everything else: a path of a domain that is not there."""
    others = [name for name, one in template["Resources"].items() if one["Type"] in NESTED and "Condition" not in one]
    template["Resources"]["Refused"] = {
        "Type": "AWS::ApiGateway::BasePathMapping",
        "DependsOn": [*others, "PredictPermission", "ModelsPermission"],
        "Properties": {"DomainName": "nobody.example.com", "RestApiId": {"Ref": "Api"}, "Stage": {"Ref": "Api.Stage"}},
    }
    template["Resources"]["ModelsFunction"]["Properties"]["Description"] = "What is never deployed."
