"""infra/docs/deploy.md lists how the servers differ as the tests of the front door have it."""

import importlib
from pathlib import Path

from pilotlight.api.routes import ROUTES
from tests.e2e.front_door.differences import DIFFERENCES, ROUTES_WITH_EVENTS, TRAINING_ROUTES
from tests.e2e.front_door.route_calls import BODIES, SPECIAL, name_route

ROOT = Path(__file__).parents[2]
NAMES = {"serve": "`pilotlight serve`", "sam": "`sam local start-api`", "deployed": "a deployed stack"}
MODULES = [
    f"tests.e2e.front_door.test_{name}" for name in ("clients", "language_models", "openai", "routes", "tritonclient")
]


def test_the_documentation_lists_every_difference() -> None:
    text = (ROOT / "infra" / "docs" / "deploy.md").read_text()
    section = text.partition("\n## Where servers differ\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert rows == [f"| {NAMES[one.server]} | {one.what} | {one.reason} |" for one in DIFFERENCES]


def test_every_difference_is_shown_by_a_test_that_there_is() -> None:
    there_are = {name for module in MODULES for name in vars(importlib.import_module(module))}
    assert {test for one in DIFFERENCES for test, _ in one.tests} <= there_are


def test_every_route_that_is_named_is_one_of_the_table() -> None:
    names = {name_route(route) for route in ROUTES}
    assert {*ROUTES_WITH_EVENTS, *TRAINING_ROUTES, *SPECIAL} <= names
    assert [end for end in BODIES if not any(route.path.endswith(end) for route in ROUTES if route.body)] == []
