"""The Makefile explains itself and cleans up without harm; CI runs targets that exist, with few rights."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
WORKFLOW: dict[Any, Any] = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
STEPS: list[dict[str, Any]] = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]


@pytest.mark.parametrize("words", [(), ("help",)])
def test_make_lists_every_target_with_what_it_does(words: tuple[str, ...]) -> None:
    out = subprocess.run(["make", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^  make ([a-z-]+) +\S", out, re.MULTILINE)) == TARGETS


def test_no_target_is_taken_for_a_file() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) == TARGETS


def test_clean_leaves_sources_and_the_store(tmp_path: Path) -> None:
    made = [".venv", ".venv-sam", ".aws-sam", "build", ".mypy_cache", "layers/core/x.egg-info", "tests/a/__pycache__"]
    ours = [".pilotlight/store/models", "functions/predict", "layers/core/pilotlight", "tests/a"]
    for folder in (*made, *ours):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / ".pilotlight/store/models/weights").touch()
    (tmp_path / "benchmark.json").touch()
    shutil.copy(ROOT / "Makefile", tmp_path)
    subprocess.run(["make", "clean"], cwd=tmp_path, capture_output=True, check=True)
    assert [path for path in (*made, "benchmark.json") if (tmp_path / path).exists()] == []
    assert [path for path in (*ours, ".pilotlight/store/models/weights") if not (tmp_path / path).exists()] == []


def test_actions_are_pinned_and_may_only_read() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert not [name for name, job in WORKFLOW["jobs"].items() if "permissions" in job]
    used = [step["uses"] for step in STEPS if "uses" in step]
    assert used
    assert not [action for action in used if not re.fullmatch(r"actions/[a-z-]+@v\d+", action)]


def test_ci_runs_every_check() -> None:
    run = set(re.findall(r"\bmake ([a-z-]+)", " ".join(step.get("run", "") for step in STEPS)))
    assert run >= {"lint", "test", "test-runtime", "package", "test-sam", "audit"}


def test_hooks_check_what_lint_checks() -> None:
    assert [hook["id"] for hook in HOOKS] == ["ruff", "ruff-format", "mypy", "cfn-lint", "generated-files", "secrets"]
    assert all(hook["entry"].startswith((".venv/bin/", "make ", "detect-secrets-hook")) for hook in HOOKS)
