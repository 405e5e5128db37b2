"""What `pilotlight serve` asks callers for, by its options and its address, and what it says of that."""

import pytest

from pilotlight.cli.serve import choose_auth, describe_auth
from pilotlight.errors import InvalidInputError

LOOPBACK, EVERYWHERE = "127.0.0.1", "0.0.0.0"  # noqa: S104 - what this is about


@pytest.mark.parametrize(
    ("parameters", "auth", "host", "chosen"),
    [
        ({}, None, LOOPBACK, {}),
        ({}, None, "localhost", {}),
        ({}, "keys", LOOPBACK, {"Auth": "keys"}),
        ({}, None, EVERYWHERE, {"Auth": "keys"}),
        ({}, None, "192.0.2.7", {"Auth": "keys"}),
        ({}, "open", EVERYWHERE, {"Auth": "open"}),
        ({"Auth": "jwt"}, None, EVERYWHERE, {"Auth": "jwt"}),
        ({"Auth": "jwt"}, "jwt", LOOPBACK, {"Auth": "jwt"}),
    ],
)
def test_beyond_loopback_keys_are_the_default(
    parameters: dict[str, str], auth: str | None, host: str, chosen: dict[str, str]
) -> None:
    assert choose_auth(parameters, auth, host) == chosen


@pytest.mark.parametrize(
    ("parameters", "auth", "said"),
    [
        ({"Auth": "jwt"}, "keys", "--auth keys and --parameter Auth=jwt differ"),
        ({}, "iam", "'iam' cannot be asked for here"),
        ({"Auth": "admin-key"}, None, "'admin-key' cannot be asked for here; --auth takes keys, jwt, open"),
        ({}, "none", "'none' cannot be asked for here"),
    ],
)
def test_what_cannot_be_asked_for_is_said(parameters: dict[str, str], auth: str | None, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        choose_auth(parameters, auth, EVERYWHERE)


def test_it_says_who_may_call() -> None:
    assert describe_auth(None, LOOPBACK, "s").startswith("No key is asked for, since only this machine can call")
    assert describe_auth("open", EVERYWHERE, "s").startswith("WARNING: Anybody who reaches 0.0.0.0 may call models")
    assert not describe_auth("open", LOOPBACK, "s").startswith("WARNING")
    assert "pilotlight keys create NAME --scopes infer --store s" in describe_auth("keys", EVERYWHERE, "s")
