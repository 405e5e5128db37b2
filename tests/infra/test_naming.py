"""Names follow the field, and imports go one way.

Verb phrases for functions, one class for one name, packages rather than loose modules, no import cycles.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[2]
CORE = ROOT / "layers" / "core" / "pilotlight"
PARTICIPLE = re.compile(r"_?[a-z]+(?:ed|en)")
# Past forms that end otherwise.
IRREGULAR = frozenset(
    [
        "told",
        "kept",
        "made",
        "shown",
        "sent",
        "said",
        "found",
        "left",
        "built",
        "drawn",
        "known",
        "held",
        "brought",
        "laid",
        "done",
        "gone",
        "seen",
        "meant",
    ]
)
# In modules that are still to be cut; this list may only shrink.
ALLOWED: set[str] = set()
# Modules whose import cycles are still to be opened; this list may only shrink.
CYCLIC: set[str] = set()
LOOSE = {"__init__", "errors", "settings", "inference", "text_generation"}


def sources() -> Iterator[tuple[str, ast.Module]]:
    for folder in ("functions", "layers"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())


def is_lone_participle(name: str) -> bool:
    return PARTICIPLE.fullmatch(name) is not None or name.removeprefix("_") in IRREGULAR


def test_no_function_is_named_by_a_lone_participle() -> None:
    found = [
        f"{path}:{node.lineno} {node.name}"
        for path, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and is_lone_participle(node.name)
        if path not in ALLOWED
    ]
    assert found == []


def test_the_pattern_knows_a_participle_from_a_verb_phrase() -> None:
    assert all(map(is_lone_participle, ("opened", "_answered", "taken", "told")))
    assert not any(map(is_lone_participle, ("open_model", "is_opened", "read_table", "main")))


def test_no_two_public_classes_share_a_name() -> None:
    places = defaultdict(set)
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].add(path)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_modules_of_the_core_lie_in_packages() -> None:
    assert {path.stem for path in CORE.glob("*.py")} <= LOOSE


def find_cycles(imports: dict[str, set[str]]) -> set[frozenset[str]]:
    """The largest sets of modules that all import each other, directly or through one another."""
    cycles = set()
    for module, imported in imports.items():
        cycle = frozenset(other for other in imported if module in imports[other])
        if cycle:
            cycles.add(cycle | {module})
    return cycles


def read_imports() -> dict[str, set[str]]:
    """What each module imports directly or through others, in functions and under TYPE_CHECKING too."""
    units = sorted(f"functions.{path.parent.name}" for path in (ROOT / "functions").glob("*/__init__.py"))
    graph = grimp.build_graph("pilotlight", *units, exclude_type_checking_imports=False, cache_dir=None)
    return {module: graph.find_upstream_modules(module) for module in graph.modules}


def test_no_modules_import_each_other() -> None:
    cycles = find_cycles(read_imports())
    assert [sorted(cycle) for cycle in cycles if not cycle <= CYCLIC] == []


def test_the_graph_of_imports_has_every_module() -> None:
    modules = {path.removeprefix("layers/core/").removesuffix(".py").replace("/", ".") for path, _ in sources()}
    assert {module.removesuffix(".__init__") for module in modules} == read_imports().keys()


def test_a_cycle_is_found_once_with_all_its_modules() -> None:
    imports = {"a": {"b", "c"}, "b": {"a", "c"}, "c": set(), "d": {"a", "b", "c"}}
    assert find_cycles(imports) == {frozenset("ab")}
