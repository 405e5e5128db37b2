"""Good canaries are kept and bad ones found, with hostile callers too; `python -m tests.load trials` does more."""

import pytest

from tests.load.trials import (
    BAD_REQUESTS,
    Scenario,
    Trick,
    Version,
    run_scenario,
    send_easy,
    send_nan,
    send_poison,
    send_slow_rows,
    spray_headers,
)

TRIALS = 12


@pytest.mark.parametrize(
    ("version", "trick", "hostile"),
    [
        (Version(), None, 0),
        (Version(), spray_headers, 5),
        (Version(), send_slow_rows, 20),
        (Version(), send_nan, 5),
        (Version(poison_fails=True), send_poison, 4),
    ],
)
def test_a_good_canary_is_kept(version: Version, trick: Trick | None, hostile: int) -> None:
    assert run_scenario(Scenario("good", version, trick, hostile), TRIALS)["stopped"] == 0


@pytest.mark.parametrize("version", [Version(slowdown=4.0), Version(failure_rate=0.2), Version(drift=0.66)])
@pytest.mark.parametrize("hostile", [0, 5])
def test_a_bad_canary_is_found(version: Version, hostile: int) -> None:
    scenario = Scenario("bad", version, send_easy if hostile else None, hostile, True, BAD_REQUESTS)
    assert run_scenario(scenario, TRIALS)["stopped"] == TRIALS
