"""The core layer holds what functions import, and nothing else; each handler starts with it alone."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import pytest

from pilotlight.local import template

ROOT = Path(__file__).parents[2]
CORE = ROOT / "layers" / "core"
IMPORTLINTER = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
FUNCTIONS = [name for name in IMPORTLINTER["root_packages"] if name != "pilotlight"]
TOKENS = {"Auth": "jwt", "JwtIssuer": "https://issuer.example.com", "JwtAudience": "pilotlight"}
HANDLERS = [spec.handler for spec in template.load_stack(ROOT / "template.yaml", TOKENS).functions.values()]
VARIABLES = {
    "PILOTLIGHT_STORE": "memory://",
    "PILOTLIGHT_ISSUER": TOKENS["JwtIssuer"],
    "PILOTLIGHT_AUDIENCE": TOKENS["JwtAudience"],
}
START = """
import importlib, sys
sys.path[:0] = sys.argv[2:]
module, name = sys.argv[1].rsplit(".", 1)
assert callable(getattr(importlib.import_module(module), name))
import pilotlight
print(pilotlight.__file__)
"""


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layer's folder python/, as `sam build` makes it."""
    folder = tmp_path_factory.mktemp("layer")
    rule = ["make", "build-CoreLayer", f"ARTIFACTS_DIR={folder}", f"RUNTIME_PYTHON={sys.executable}"]
    subprocess.run(rule, cwd=CORE, check=True, capture_output=True)
    return folder / "python"


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_handler_starts_with_the_layer_alone(handler: str, layer: Path, tmp_path: Path) -> None:
    (tmp_path / "functions").symlink_to(ROOT / "functions")
    command = [sys.executable, "-P", "-c", START, handler, str(layer), str(tmp_path)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | VARIABLES
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(layer)


def test_the_layer_holds_what_functions_import_and_nothing_else(layer: Path) -> None:
    graph = grimp.build_graph("pilotlight", *FUNCTIONS)
    modules = {name for package in FUNCTIONS for name in (package, *graph.find_descendants(package))}
    imported = {name for module in modules for name in graph.find_upstream_modules(module)}
    needed = {name for name in imported if name.startswith("pilotlight.")}
    needed |= {name.rpartition(".")[0] for name in needed} | {"pilotlight"}
    found = {".".join(path.relative_to(layer).with_suffix("").parts) for path in layer.rglob("*.py")}
    assert {name.removesuffix(".__init__") for name in found} - needed == set()
    assert needed - {name.removesuffix(".__init__") for name in found} == set()


def test_a_contract_forbids_functions_what_the_layer_leaves_out(layer: Path) -> None:
    whole = {path.relative_to(CORE) for path in (CORE / "pilotlight").rglob("*.py")}
    left_out = whole - {path.relative_to(layer) for path in layer.rglob("*.py")}
    (contract,) = [each for each in IMPORTLINTER["contracts"] if each["name"].endswith("that is not in its layer")]
    forbidden = [tuple(name.split(".")) for name in contract["forbidden_modules"]]
    modules = {path.with_suffix("").parts for path in left_out}
    assert {module for module in modules if not any(module[: len(name)] == name for name in forbidden)} == set()
    assert contract["source_modules"] == FUNCTIONS
