"""Rights and exposure: the templates keep each rule, and a copy that breaks it on purpose is found."""

import copy

import pytest

from tests.infra import access, exposure, neighbours, rights
from tests.infra.templates import ROOT, TEMPLATES, Rule, roles

RULES = [*rights.RULES, *exposure.RULES, *neighbours.RULES, *access.RULES]
MUTATIONS = [*rights.MUTATIONS, *exposure.MUTATIONS, *neighbours.MUTATIONS, *access.MUTATIONS]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_templates_keep_the_rule(rule: Rule) -> None:
    assert list(rule(TEMPLATES)) == []


@pytest.mark.parametrize("number", range(len(MUTATIONS)))
def test_a_template_that_breaks_the_rule_is_found(number: int) -> None:
    rule, change = MUTATIONS[number]
    broken = copy.deepcopy(TEMPLATES)
    change(broken)
    assert list(rule(broken)) != []


@pytest.mark.parametrize("actor", [actor for actor, role in access.ACTORS.items() if role])
def test_every_right_that_nobody_should_have_is_noticed(actor: str) -> None:
    """Each cell of the matrix that is empty, broken on purpose."""
    cells = [deed for name, deed in access.forbidden_cells() if name == actor]
    assert cells
    assert [deed.name for deed in cells if not access.is_noticed(TEMPLATES, actor, deed)] == []


def test_every_role_stands_in_the_matrix_or_may_do_nothing_of_it() -> None:
    names = {name for name, _ in roles(TEMPLATES)}
    assert {role for role in access.ACTORS.values() if role} <= names
    assert {actor for deed in access.DEEDS for actor in deed.actors} <= access.ACTORS.keys()


def test_the_threat_model_shows_the_matrix() -> None:
    model = (ROOT / "infra" / "decisions" / "0047-threat-model.md").read_text()
    assert access.table() in model, "python -m tests.infra.access prints the table"


def test_every_rule_is_broken_once_at_least() -> None:
    assert {rule.__name__ for rule, _ in MUTATIONS} == {rule.__name__ for rule in RULES}
