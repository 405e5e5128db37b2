"""Parameters are checked by the real template before anything is built."""

from pathlib import Path

import pytest

from pilotlight.deployment.template_parameters import TemplateParameters

TEMPLATE = Path(__file__).parents[3] / "template.yaml"


@pytest.fixture(scope="module")
def parameters() -> TemplateParameters:
    return TemplateParameters.load(TEMPLATE)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"RateLmit": "5"}, "'RateLmit' is no parameter; did you mean RateLimit?"),
        ({"auth": "iam"}, "'auth' is no parameter; did you mean Auth?"),
        ({"Zzzz": "1"}, "'Zzzz' is no parameter: there are Auth, JwtIssuer"),
        ({"Auth": "Keys"}, "Auth is 'Keys', and takes 'keys', 'iam', 'jwt', 'open'; did you mean keys?"),
        ({"Auth": "none"}, "Auth is 'none', and takes 'keys', 'iam', 'jwt', 'open'."),
        ({"JwtIssuer": "http://a"}, "JwtIssuer is 'http://a', and must match (https://.+)?."),
        ({"Promotion": "canary:ten:1h"}, "Promotion is 'canary:ten:1h', and must match off|champion|canary"),
        ({"ModelMemory": "many"}, "ModelMemory is 'many', and must be a number."),
        ({"ModelMemory": "128"}, "ModelMemory is 128, and must be 512 or more."),
        ({"CaptureRate": "1.5"}, "CaptureRate is 1.5, and must be 1 or less."),
        ({"SnapStart": "PublishedVersions", "ProvisionedConcurrency": "2"}, "not both."),
        ({"Auth": "jwt", "JwtIssuer": "https://a"}, "Auth=jwt needs JwtAudience"),
    ],
)
def test_what_is_wrong_is_said(parameters: TemplateParameters, given: dict[str, str], said: str) -> None:
    (problem,) = parameters.find_problems(given)
    assert said in problem


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"Auth": "jwt", "JwtIssuer": "https://a", "JwtAudience": "models"},
        {"Promotion": "canary:10:1h", "CaptureRate": "0.25", "Preload": "digits wine:3"},
        {"SnapStart": "None", "AccessLogs": "off"},
    ],
)
def test_what_the_template_takes_passes(parameters: TemplateParameters, given: dict[str, str]) -> None:
    assert parameters.find_problems(given) == []


def test_all_problems_are_told_at_once(parameters: TemplateParameters) -> None:
    assert len(parameters.find_problems({"Auht": "iam", "RateLimit": "0", "ModelDisk": "9999999"})) == 3


def test_rules_count_the_values_of_the_stack_that_is_there(parameters: TemplateParameters) -> None:
    warm = {"ProvisionedConcurrency": "2"}
    assert parameters.find_problems({"SnapStart": "PublishedVersions"}, warm) != []
    assert parameters.find_problems({"SnapStart": "PublishedVersions", "ProvisionedConcurrency": "0"}, warm) == []
