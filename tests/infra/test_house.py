"""Guards of the house: what lies where, what is pinned, and that the words of README exist."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import pilotlight

ROOT = Path(__file__).parents[2]
TOP = {"functions", "infra", "layers", "tests"} | {
    "CHANGELOG.md", "LICENSE", "Makefile", "README.md", "pyproject.toml", "samconfig.toml", "template.yaml",
}  # fmt: skip
PROMISED = ("demo", "test", "serve", "bench", "lint")
# In environments of their own: their pins clash with ours.
APART = {
    "requirements-sam",
    "requirements-checkov",
    "requirements-audit",
    "requirements-rivals",
    "requirements-heavy",
    "requirements-emulator",
}
FORBIDDEN_NAMES = {"utils", "common", "helpers", "shared", "main", "app", "base"}


def tracked(*patterns: str) -> list[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [Path(line) for line in listed if (ROOT / line).exists()]


PAGES = tracked("README.md", "infra/docs/*.md", "infra/decisions/*.md")


def test_the_top_level_is_what_was_agreed() -> None:
    names = {path.parts[0] for path in tracked()}
    assert {name for name in names if not name.startswith(".")} <= TOP


def test_module_names_are_nouns_that_say_something() -> None:
    assert not [path for path in tracked("*.py") if path.stem in FORBIDDEN_NAMES]


@pytest.mark.parametrize("path", tracked("layers/deps/*.txt", "functions/*/requirements.txt", "*requirements*.txt"))
def test_every_requirement_is_pinned_exactly(path: Path) -> None:
    lines = [line.split("#")[0].strip() for line in (ROOT / path).read_text().splitlines()]
    assert not [line for line in lines if line and not re.fullmatch(r"[\w.\[\]-]+==[\w.]+(\s*;.*)?", line)]


def test_the_lock_agrees_with_the_lists() -> None:
    lock = pins("infra/constraints.txt")
    lists = {name: pin for path in tracked("*requirements*.txt") if path.stem not in APART
             for name, pin in pins(str(path)).items()}  # fmt: skip
    assert {name: pin for name, pin in lists.items() if lock.get(name) != pin} == {}


def pins(path: str) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)(?:\[\w+\])?==([\w.]+)", (ROOT / path).read_text(), re.MULTILINE)
    return {name.lower().replace("_", "-").replace(".", "-"): pin for name, pin in found}


def test_every_promised_target_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(PROMISED) <= targets


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_pages_name_only_targets_that_are_there(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|\$ |\| )make ([a-z-]+)", (ROOT / path).read_text())) <= targets


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_pages_name_only_paths_that_are_there(path: Path) -> None:
    text = (ROOT / path).read_text()
    named = set(re.findall(r"(?<![\w/.])(?:functions|layers|infra|tests)/[\w./-]*[\w/]", text))
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_every_module_of_the_core_has_its_layer() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [each["layers"] for each in contracts if each["type"] == "layers"]
    listed = {name.removeprefix("pilotlight.") for layer in layers for name in re.split(r" [:|] ", layer)}
    core = ROOT / "layers" / "core" / "pilotlight"
    found = {path.relative_to(core).parts[0].removesuffix(".py") for path in core.rglob("*.py")}
    assert found - {"__init__"} == listed


def test_changelog_and_package_agree_on_the_version() -> None:
    first = re.search(r"^## \[?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    declared = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert first is not None
    assert declared is not None
    assert first[1] == declared[1] == pilotlight.__version__
