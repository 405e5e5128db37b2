"""Rights and exposure: the templates keep each rule, and a copy that breaks it on purpose is found."""

import copy

import pytest

from tests.infra import exposure, rights
from tests.infra.templates import TEMPLATES, Rule

RULES = [*rights.RULES, *exposure.RULES]
MUTATIONS = [*rights.MUTATIONS, *exposure.MUTATIONS]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_templates_keep_the_rule(rule: Rule) -> None:
    assert list(rule(TEMPLATES)) == []


@pytest.mark.parametrize("number", range(len(MUTATIONS)))
def test_a_template_that_breaks_the_rule_is_found(number: int) -> None:
    rule, change = MUTATIONS[number]
    broken = copy.deepcopy(TEMPLATES)
    change(broken)
    assert list(rule(broken)) != []


def test_every_rule_is_broken_once_at_least() -> None:
    assert {rule.__name__ for rule, _ in MUTATIONS} == {rule.__name__ for rule in RULES}
