"""Run a package's own code out of its wheel: single functions and classes of a module, without what the module imports.

So a package is compared by what it really does, and need not be installed with all that it depends on.
"""

import ast
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

from tests.load.packages.download import CACHE, download_package


def load_definitions(requirement: str, path: str, names: Sequence[str], namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Define the named functions, classes, methods and constants of a module in a namespace of what they use."""
    archive = download_package(requirement, CACHE / "archives" / requirement)
    with zipfile.ZipFile(archive) as wheel:
        module = ast.parse(wheel.read(path))
    chosen = [node for node in ast.walk(module) if is_definition(node, names)]
    defined = dict(namespace)
    code = compile(ast.Module([strip_annotations(node) for node in chosen], []), path, "exec")
    exec(code, defined)  # noqa: S102 - the point: it is the code that a user of the package runs
    return defined


def is_definition(node: ast.AST, names: Sequence[str]) -> bool:
    """Return whether a node defines one of the names."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return node.name in names
    return isinstance(node, ast.Assign) and any(getattr(target, "id", "") in names for target in node.targets)


def strip_annotations(node: Any) -> Any:  # noqa: ANN401 - any statement
    """Remove annotations, whose names are not there."""
    for each in ast.walk(node):
        if isinstance(each, ast.FunctionDef):
            each.returns = None
        elif isinstance(each, ast.arg):
            each.annotation = None
    return node
