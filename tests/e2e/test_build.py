"""What `sam build` made: it imports on Lambda's python with nothing but itself on the path, and it is small enough."""

import os
import subprocess
from pathlib import Path

import pytest
from cfnlint.decode import cfn_yaml

from pilotlight.local import template
from tests.e2e.conftest import BUILD, ROOT

LIMIT = 180_000_000  # bytes, the goal P10 of `make bench`; Lambda itself stops at 250 MB
UNCHECKED = 1  # PEP 552
ELF, MACHINES = b"\x7fELF", {"x86_64": 62, "arm64": 183}  # e_machine (System V ABI)
STACK = template.load_stack(ROOT / "template.yaml", {"Auth": "jwt"})  # the mode that has all functions
HANDLERS = {name: function.handler for name, function in STACK.functions.items()}
LAYERS = ("CoreLayer", "DepsLayer", "GenerationLayer")
RESOLVED = ("ModelsFunction", "BatchesFunction", "StartTrainingFunction")  # by Powertools and pydantic
IMPORT = """
import importlib, sys
sys.path[:0] = sys.argv[2:]
module, name = sys.argv[1].rsplit(".", 1)
assert callable(getattr(importlib.import_module(module), name))
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""


@pytest.mark.parametrize("function", HANDLERS)
def test_the_handler_imports_from_the_build(function: str) -> None:
    used = {path.name for path in STACK.functions[function].python_path}  # the folders of its layers, among others
    layers = [layer for layer in LAYERS if layer.removesuffix("Layer").lower() in used]
    paths = [next(BUILD.rglob(function)), *(BUILD / layer / "python" for layer in layers)]
    command = ["python3.13", "-I", "-S", "-c", IMPORT, HANDLERS[function], *map(str, paths)]
    tokens = {"PILOTLIGHT_ISSUER": "https://issuer.example.com", "PILOTLIGHT_AUDIENCE": "pilotlight"}
    environment = {**os.environ, "PILOTLIGHT_STORE": "memory://", **tokens}
    found = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert found.returncode == 0, found.stderr
    imported = set(found.stdout.split())
    assert {"pilotlight", "functions"} <= imported
    unneeded = {"torch", "onnx", "sklearn", "boto3"}
    if function not in RESOLVED:
        unneeded |= {"pydantic"}
    if function != "StartTrainingFunction":  # it alone reads recipes
        unneeded |= {"yaml"}
    assert not unneeded & imported


def test_images_and_texts_are_read_by_the_build() -> None:
    code = "import sys; sys.path[:0] = sys.argv[1:]; from pilotlight.processing import image, text; print(image, text)"
    paths = [BUILD / "CoreLayer" / "python", BUILD / "DepsLayer" / "python"]
    command = ["python3.13", "-I", "-S", "-B", "-c", code, *map(str, paths)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_language_models_are_read_by_the_build() -> None:
    modules = "chat_template, constraints, language_model"
    code = f"import sys; sys.path[:0] = sys.argv[1:]; from pilotlight.generation import {modules}"
    paths = [BUILD / layer / "python" for layer in LAYERS]
    command = ["python3.13", "-I", "-S", "-B", "-c", code, *map(str, paths)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("layer", LAYERS)
def test_everything_in_a_layer_is_compiled_for_the_runtime(layer: str) -> None:
    sources = list((BUILD / layer / "python").rglob("*.py"))
    bare = [path for path in sources if not (path.parent / "__pycache__" / f"{path.stem}.cpython-313.pyc").exists()]
    assert sources
    assert bare == []


def test_the_layers_are_small_enough() -> None:
    sizes = {layer: size(BUILD / layer) for layer in LAYERS}
    assert sum(sizes.values()) <= LIMIT, sizes


def test_the_core_layer_holds_pilotlight_and_nothing_else() -> None:
    assert [path.name for path in (BUILD / "CoreLayer" / "python").iterdir()] == ["pilotlight"]


@pytest.mark.parametrize("unit", [*LAYERS, *HANDLERS])
def test_bytecode_comes_along_and_is_trusted(unit: str) -> None:
    sources = [path for path in next(BUILD.rglob(unit)).rglob("*.py") if path.parent.name.isidentifier()]
    compiled = [path.parent / "__pycache__" / f"{path.stem}.cpython-313.pyc" for path in sources]
    assert sources
    assert not [path for path in compiled if not path.exists()]
    flags = {int.from_bytes(path.read_bytes()[4:8], "little") for path in compiled}
    assert flags == {UNCHECKED}  # by its hash, and never compared: timestamps do not survive the zip


def machines(folder: Path) -> dict[int, list[Path]]:
    """The machine code below a folder, by the machine that it is for."""
    found: dict[int, list[Path]] = {}
    for path in folder.rglob("*"):
        if path.is_file() and (head := path.read_bytes()[:20])[:4] == ELF:
            found.setdefault(int.from_bytes(head[18:20], "little"), []).append(path)
    return found


def declared(path: Path) -> str:
    """The one architecture that a built template takes."""
    parameter = cfn_yaml.load(str(path))["Parameters"]["Architecture"]
    assert parameter["AllowedValues"] == [parameter["Default"]]
    return str(parameter["Default"])


@pytest.mark.parametrize("where", ["", "Events"])
def test_the_package_holds_code_for_the_machine_that_it_says(where: str) -> None:
    built = BUILD / where
    found = machines(built)
    assert set(found) == {MACHINES[declared(built / "template.yaml")]}, found
    assert len(found[MACHINES[declared(built / "template.yaml")]]) > 30


@pytest.mark.parametrize("architecture", MACHINES)
def test_the_layer_is_built_for_either_machine_on_this_one(architecture: str, tmp_path: Path) -> None:
    command = ["make", "-C", str(ROOT / "layers" / "deps"), "build-DepsLayer", f"ARTIFACTS_DIR={tmp_path}"]
    environment = {**os.environ, "PILOTLIGHT_ARCHITECTURE": architecture}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert set(machines(tmp_path)) == {MACHINES[architecture]}
    assert size(tmp_path) <= LIMIT


def test_a_machine_that_lambda_does_not_have_is_refused(tmp_path: Path) -> None:
    command = ["make", "-C", str(ROOT / "layers" / "deps"), "build-DepsLayer", f"ARTIFACTS_DIR={tmp_path}"]
    environment = {**os.environ, "PILOTLIGHT_ARCHITECTURE": "riscv64"}
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode != 0
    assert "x86_64 and arm64 are built" in done.stderr


def test_the_authorizer_is_small() -> None:
    assert size(BUILD / "AuthorizeFunction") + size(BUILD / "CoreLayer") <= 25_000_000


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
