"""What `sam build` made: it imports on Lambda's python with nothing but itself on the path, and it is small enough."""

import os
import subprocess
from pathlib import Path

import pytest

from pilotlight.local import template
from tests.e2e.conftest import BUILD, ROOT

LIMIT = 180_000_000  # bytes, DESIGN.md P10; Lambda itself stops at 250 MB
UNCHECKED = 1  # PEP 552
HANDLERS = {name: function.handler for name, function in template.load(ROOT / "template.yaml").functions.items()}
IMPORT = """
import importlib, sys
sys.path[:0] = sys.argv[2:]
module, name = sys.argv[1].rsplit(".", 1)
assert callable(getattr(importlib.import_module(module), name))
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""


@pytest.mark.parametrize("function", HANDLERS)
def test_the_handler_imports_from_the_build(function: str) -> None:
    paths = [next(BUILD.rglob(function)), BUILD / "CoreLayer" / "python", BUILD / "DepsLayer" / "python"]
    command = ["python3.13", "-I", "-S", "-c", IMPORT, HANDLERS[function], *map(str, paths)]
    environment = {**os.environ, "PILOTLIGHT_STORE": "memory://"}
    found = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert found.returncode == 0, found.stderr
    imported = set(found.stdout.split())
    assert {"pilotlight", "functions"} <= imported
    recipes = set() if function == "StartTrainingFunction" else {"pydantic", "yaml"}  # which it alone reads
    assert not ({"torch", "onnx", "sklearn", "boto3"} | recipes) & imported


def test_images_and_texts_are_read_by_the_build() -> None:
    code = "import sys; sys.path[:0] = sys.argv[1:]; from pilotlight.tasks import image, text; print(image, text)"
    paths = [BUILD / "CoreLayer" / "python", BUILD / "DepsLayer" / "python"]
    command = ["python3.13", "-I", "-S", "-B", "-c", code, *map(str, paths)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("layer", ["CoreLayer", "DepsLayer"])
def test_everything_in_a_layer_is_compiled_for_the_runtime(layer: str) -> None:
    sources = list((BUILD / layer / "python").rglob("*.py"))
    bare = [path for path in sources if not (path.parent / "__pycache__" / f"{path.stem}.cpython-313.pyc").exists()]
    assert sources
    assert bare == []


def test_the_layers_are_small_enough() -> None:
    sizes = {layer: size(BUILD / layer) for layer in ("CoreLayer", "DepsLayer")}
    assert sum(sizes.values()) <= LIMIT, sizes


def test_the_core_layer_holds_pilotlight_and_nothing_else() -> None:
    assert [path.name for path in (BUILD / "CoreLayer" / "python").iterdir()] == ["pilotlight"]


@pytest.mark.parametrize("unit", ["CoreLayer", "DepsLayer", *HANDLERS])
def test_bytecode_comes_along_and_is_trusted(unit: str) -> None:
    sources = [path for path in next(BUILD.rglob(unit)).rglob("*.py") if path.parent.name.isidentifier()]
    compiled = [path.parent / "__pycache__" / f"{path.stem}.cpython-313.pyc" for path in sources]
    assert sources
    assert not [path for path in compiled if not path.exists()]
    flags = {int.from_bytes(path.read_bytes()[4:8], "little") for path in compiled}
    assert flags == {UNCHECKED}  # by its hash, and never compared: timestamps do not survive the zip


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
