import re
from pathlib import Path

import pytest

from pilotlight.errors import InvalidInputError
from pilotlight.settings import VARIABLES, Settings

TEMPLATE = Path(__file__).parents[2] / "template.yaml"
VARIABLE = re.compile(r"PILOTLIGHT_[A-Z_]+")


def test_defaults_stand_alone() -> None:
    assert Settings.from_environment({}) == Settings(store=".pilotlight/store", alias_seconds=10.0, memory_mb=1769)


def test_variables_are_read() -> None:
    found = Settings.from_environment(
        {
            "PILOTLIGHT_STORE": "s3://bucket",
            "PILOTLIGHT_ALIAS_SECONDS": "2.5",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
        }
    )
    assert found == Settings("s3://bucket", 2.5, 512)
    assert found.model_memory_budget == 256_000_000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PILOTLIGHT_ALIAS_SECONDS", "soon"),
        ("PILOTLIGHT_ALIAS_SECONDS", "-1"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "much"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "64"),
    ],
)
def test_a_wrong_variable_is_named_with_its_value(name: str, value: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{name}='{value}'"):
        Settings.from_environment({name: value})


def test_template_and_settings_know_the_same_variables() -> None:
    texts = [path.read_text().split("Outputs:")[0] for path in (TEMPLATE, TEMPLATE.parent / "infra" / "events.yaml")]
    in_template = set(VARIABLE.findall("".join(texts)))
    # Where trainings of the local gateway keep their logs; what signs its uploads.
    here_alone = {"PILOTLIGHT_TRAININGS", "PILOTLIGHT_UPLOAD_KEY"}
    authorizer = TEMPLATE.parent / "functions" / "authorize"  # it has none of the core's settings
    sources = "".join(path.read_text() for path in authorizer.glob("*.py"))
    known = {name for name in VARIABLES.values() if VARIABLE.match(name)} | set(VARIABLE.findall(sources))
    assert in_template | here_alone == known
