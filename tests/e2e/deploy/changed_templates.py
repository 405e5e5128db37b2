"""A built package whose nested templates have other defaults, as a user changes them who finds no parameter."""

import re
from pathlib import Path

from tests.e2e.conftest import ROOT


def change_defaults(built: Path, folder: Path, nested: str, **defaults: str) -> Path:
    """Copy a package into `folder`, give parameters of a nested template other defaults, and return the root's path.

    What is not changed is linked, since the layers have 300 MB.
    """
    build = folder / ".aws-sam" / "build"
    link_entries(built.parent, build, without=nested)
    link_entries(built.parent / nested, build / nested, without="template.yaml")
    (folder / "infra").symlink_to(ROOT / "infra")  # which the root includes
    text = (built.parent / nested / "template.yaml").read_text()
    for name, value in defaults.items():
        text, found = re.subn(rf"(?m)(^  {name}:\n    Type: \w+\n    Default: ).*$", rf"\g<1>'{value}'", text)
        assert found == 1, f"{nested} has no parameter {name} with a default"
    (build / nested / "template.yaml").write_text(text)
    return build / "template.yaml"


def link_entries(source: Path, target: Path, *, without: str) -> None:
    """Link everything of a folder into another one, but for one name."""
    target.mkdir(parents=True)
    for entry in source.iterdir():
        if entry.name != without:
            (target / entry.name).symlink_to(entry)
