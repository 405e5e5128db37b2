"""Every call into a native library is guarded by `pilotlight.native.calls`: a panic of Rust is no `Exception`."""

import ast
from collections.abc import Iterator, Set
from functools import cache
from pathlib import Path

import arro3.core
import numpy as np
import onnxruntime
import PIL.Image
import pytest
import soundfile
import tokenizers
from backports import zstd

ROOT = Path(__file__).parents[2]
LIBRARIES = frozenset(["tokenizers", "PIL", "onnxruntime", "arro3", "backports", "obstore", "soundfile", "soxr"])
# A training runs in a process of its own that serves nobody; its failure is its own run's.
EXEMPT_FOLDERS = ("functions/train/",)
# Stores are opened from settings, before there is a caller; the credentials' provider is boto3's.
ALLOWED = {
    "layers/core/pilotlight/storage/object_store.py": {
        "LocalStore", "MemoryStore", "S3Store.from_url", "Boto3CredentialProvider",
    },
    "layers/core/pilotlight/runtime/session.py": {"ort.set_default_logger_severity"},  # when it is imported
}  # fmt: skip
# boto3's
OBJECTS: dict[str, list[type[object]]] = {
    "tokenizers": [tokenizers.Tokenizer, tokenizers.Encoding],
    "PIL": [PIL.Image.Image],
    "onnxruntime": [onnxruntime.InferenceSession, onnxruntime.OrtValue],
    "arro3": [arro3.core.RecordBatch, arro3.core.Array],
    "backports": [zstd.ZstdDecompressor],
    "obstore": [],
    "soundfile": [soundfile.SoundFile],
    "soxr": [],
}
# Methods of other objects as well, and those that call nothing native or cannot fail.
COMMON = {name for kind in (str, bytes, list, dict, tuple, set, Path, np.ndarray) for name in dir(kind)} | {"getbands"}
GUARD_BUILDERS = {"NativeCalls", "translate_errors", "_translate_errors"}


@cache
def parse_sources() -> dict[str, ast.Module]:
    paths = [path for folder in ("functions", "layers/core") for path in sorted((ROOT / folder).rglob("*.py"))]
    named = {path.relative_to(ROOT).as_posix(): path for path in paths}
    return {name: ast.parse(path.read_text()) for name, path in named.items() if not name.startswith(EXEMPT_FOLDERS)}


def find_native_names(tree: ast.Module) -> dict[str, str]:
    """The names that a module imports from native libraries, with the library of each."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name.split(".")[0]: alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {alias.asname or alias.name: node.module.split(".")[0] for alias in node.names}
    return {name: library for name, library in names.items() if library in LIBRARIES}


def find_guards(tree: ast.Module) -> set[str]:
    """The names of guards that a module makes, and of functions that return one."""
    guards = set(GUARD_BUILDERS)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and root(node.value.func) == "NativeCalls":
            guards |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        if (
            isinstance(node, ast.FunctionDef)
            and isinstance(node.returns, ast.Name)
            and node.returns.id == "NativeCalls"
        ):
            guards.add(node.name)
    return guards


def root(node: ast.expr) -> str:
    """The name at the beginning of a dotted expression, `self` left out."""
    while isinstance(node, ast.Attribute):
        if isinstance(node.value, ast.Name) and node.value.id == "self":
            return node.attr
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def is_guard(node: ast.expr, guards: set[str]) -> bool:
    return root(node.func if isinstance(node, ast.Call) else node) in guards


def find_guarded_functions(tree: ast.Module, guards: set[str]) -> set[str]:
    """The functions of a module that are called in it, and only where a guard surrounds the call, or a caller's."""
    called = {root(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    guarded, before = set[str](), None
    while guarded != before:
        before = guarded
        guarded = called - {root(call.func) for call in iterate_unguarded(tree, guards, guarded)}
    return guarded


def iterate_unguarded(node: ast.AST, guards: set[str], guarded: Set[str] = frozenset()) -> Iterator[ast.Call]:
    """The calls below a node that no guard surrounds, in a `with` or as a decorator, outside of `guarded` functions."""
    if isinstance(node, ast.FunctionDef) and node.name in guarded:
        return
    if isinstance(node, ast.With) and any(is_guard(item.context_expr, guards) for item in node.items):
        return
    if isinstance(node, ast.FunctionDef) and any(is_guard(each, guards) for each in node.decorator_list):
        return
    if isinstance(node, ast.Call):
        yield node
    for child in ast.iter_child_nodes(node):
        yield from iterate_unguarded(child, guards, guarded)


def find_unguarded_calls(tree: ast.Module) -> set[str]:
    names = find_native_names(tree)
    methods = {name for library in names.values() for kind in OBJECTS[library] for name in dir(kind)} - COMMON
    guards = find_guards(tree)
    if not names:
        return set()
    calls = iterate_unguarded(tree, guards, find_guarded_functions(tree, guards))
    return {
        ast.unparse(call.func)
        for call in calls
        if root(call.func) in names or (isinstance(call.func, ast.Attribute) and call.func.attr in methods)
    }


def test_every_call_into_a_native_library_is_guarded() -> None:
    found = {path: find_unguarded_calls(tree) for path, tree in parse_sources().items()}
    assert {path: calls for path, calls in found.items() if calls} == ALLOWED


def test_the_modules_that_import_one_are_those_that_are_known() -> None:
    found = {path for path, tree in parse_sources().items() if find_native_names(tree)}
    assert found == {
        "functions/batch_worker/table_rows.py",
        "layers/core/pilotlight/generation/text_tokenizer.py",
        "layers/core/pilotlight/processing/audio.py",
        "layers/core/pilotlight/processing/compressed_audio.py",
        "layers/core/pilotlight/processing/image.py",
        "layers/core/pilotlight/processing/text.py",
        "layers/core/pilotlight/runtime/session.py",
        "layers/core/pilotlight/storage/object_store.py",
        "layers/core/pilotlight/storage/zstd_frames.py",
        "layers/core/pilotlight/gate/text_probe.py",
    }


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("def f(t):\n    return Tokenizer.from_buffer(t)", 1),
        ("def f(t):\n    return t.encode_batch([])", 1),
        ("def f(t):\n    with GUARD:\n        return t.encode_batch([])", 0),
        ("@GUARD\ndef f(t):\n    return t.encode_batch([])", 0),
        ("def f(t):\n    with open(t):\n        return t.encode_batch([])", 1),
        ("def f(t):\n    return t.split()", 0),
        ("def f(t):\n    return t.encode_batch([])\ndef g(t):\n    with GUARD:\n        return f(t)", 0),
        ("def f(t):\n    return t.encode_batch([])\ndef g(t):\n    with GUARD:\n        f(t)\n    return f(t)", 1),
        (
            "def f(t):\n    return t.encode_batch([])\ndef g(t):\n    return f(t)\ndef h(t):\n    with GUARD:\n"
            "        return g(t)",
            0,
        ),
    ],
)
def test_the_rule_sees_what_is_not_guarded(source: str, count: int) -> None:
    head = 'from tokenizers import Tokenizer\nGUARD = NativeCalls("tokenizers", ValueError, ())\n'
    assert len(find_unguarded_calls(ast.parse(head + source))) == count
