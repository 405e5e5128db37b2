"""Privacy and paths: the code keeps each rule, and the rule notices each guard that is broken on purpose."""

import pytest

from tests.infra import mutations, test_security
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
