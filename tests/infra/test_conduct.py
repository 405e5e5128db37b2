"""Privacy and paths: the code keeps each rule, and the rule notices each guard that is broken on purpose."""

import re

import pytest

from tests.infra import mutations, test_security
from tests.infra.cloud import ROOT
from tests.infra.conduct import MUTATIONS, RULES, Mutation, Rule


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_code_keeps_the_rule(rule: Rule) -> None:
    assert list(rule()) == []


@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_a_guard_that_is_broken_is_noticed(mutation: Mutation) -> None:
    with mutation.made():
        assert list(mutation.rule()) != []


def test_every_rule_is_broken_once_at_least() -> None:
    assert {mutation.rule.__name__ for mutation in MUTATIONS} == {rule.__name__ for rule in RULES}


def test_the_table_tells_all_rules_and_mutations(capsys: pytest.CaptureFixture[str]) -> None:
    assert mutations.main() == 0
    told = capsys.readouterr().out
    assert f"{len(RULES) + len(test_security.RULES)} rules" in told
    assert f"{len(MUTATIONS) + len(test_security.MUTATIONS)} mutations, 0 of them wrong" in told


def test_the_threat_model_names_what_is_there() -> None:
    """Files of tests by name, the others as rules, or as tests by their own names."""
    text = (ROOT / "infra" / "decisions" / "0047-threat-model.md").read_text()
    named = {
        word for line in text.splitlines() if line.startswith("|") for word in re.findall(r"`(\w+(?:\.py)?)`", line)
    }
    files = list((ROOT / "tests").rglob("*.py"))
    rules = {rule.__name__ for rule in (*RULES, *test_security.RULES)}
    tests = set(re.findall(r"^def (test_\w+)", "\n".join(path.read_text() for path in files), re.MULTILINE))
    there = {path.name for path in files} | rules | tests
    assert {word for word in named if "_" in word or word.endswith(".py")} - there == {"s3_uri"}
