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
from tests.e2e.deploy.conftest import BUILT, ROOT

Template = dict[str, Any]
NEXT = f"{pilotlight.__version__}+next"  # the version of the changed code
NESTED = {"AWS::CloudFormation::Stack", "AWS::Serverless::Application"}


def copy_build(root: Path) -> Path:
    """Copy the package to a root of its own, and return its template; its files are links, which must not be edited."""
    build = root / BUILT.parent.relative_to(ROOT)
    shutil.copytree(BUILT.parent, build, copy_function=os.link)
    (root / "infra").mkdir()
    shutil.copy(ROOT / "infra" / "api.yaml", root / "infra")  # which the built template includes from there
    return build / BUILT.name


def build_next_code(root: Path) -> Path:
    """The package with another version of Pilotlight itself, and every function's own code as it was."""
    template = copy_build(root)
    module = template.parent / "CoreLayer" / "python" / "pilotlight" / "__init__.py"
    text = module.read_text().replace(f'"{pilotlight.__version__}"', f'"{NEXT}"')
    assert NEXT in text
    for file in (
        module,
        *module.parent.glob("__pycache__/__init__.*.pyc"),
    ):  # which are not checked against their source
        file.unlink()
    module.write_text(text)
    return template


def build_changed(root: Path, change: Callable[[Template], None]) -> Path:
    """The package with its template changed."""
    template = copy_build(root)
    document = load_raw_template(template)
    change(document)
    template.unlink()
    template.write_text(yaml.safe_dump(json.loads(json.dumps(document)), sort_keys=False))
    return template


def refuse_last(template: Template) -> None:
    """Add a resource that no account can create, after everything else: a path of a domain that is not there."""
    others = [name for name, one in template["Resources"].items() if one["Type"] in NESTED and "Condition" not in one]
    template["Resources"]["Refused"] = {
        "Type": "AWS::ApiGateway::BasePathMapping",
        "DependsOn": [*others, "PredictPermission", "ModelsPermission"],
        "Properties": {"DomainName": "nobody.example.com", "RestApiId": {"Ref": "Api"}, "Stage": {"Ref": "Api.Stage"}},
    }
    template["Resources"]["ModelsFunction"]["Properties"]["Description"] = "What is never deployed."


def set_setting(group: str, **values: str) -> Callable[[Template], None]:
    """Change the settings as somebody does who edits the mapping; conditions have their values by YAML's aliases."""

    def change(template: Template) -> None:
        template["Mappings"]["Settings"][group] |= values

    return change
