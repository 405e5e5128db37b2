"""Which server a command asks: never a deployed stack unless it is told so, and never with another one's key."""

from pathlib import Path

import pytest

from pilotlight.cli import remote_trainings
from pilotlight.cli.console import open_client
from pilotlight.cli.known_servers import LOCAL_URL, find_credentials, find_default_url, find_remote_url, resolve_url
from pilotlight.deployment.remembered_stacks import RememberedStack, RememberedStacks
from pilotlight.errors import InvalidInputError, UnavailableError
from tests.core.cli.conftest import Run

STACK = RememberedStack("shop", "http://127.0.0.1:9/prod", "bucket", "us-east-1", key="plk_secret")


@pytest.fixture
def remembered(config_folder: Path) -> RememberedStacks:
    stacks = RememberedStacks(config_folder)
    stacks.remember(STACK)
    return stacks


def test_a_name_stands_for_its_url(remembered: RememberedStacks) -> None:
    assert resolve_url("shop") == STACK.url
    for url in ("http://127.0.0.1:8080", "https://a.example.com/prod", "localhost:8080", "localhost", None, ""):
        assert resolve_url(url) == url
    with pytest.raises(InvalidInputError, match=r"'shop2' is not a URL such as .*; known are: shop\."):
        resolve_url("shop2")


def test_what_means_this_machine_never_asks_a_remembered_stack(
    remembered: RememberedStacks, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_default_url() == LOCAL_URL
    monkeypatch.setenv("PILOTLIGHT_URL", "shop")
    assert find_default_url() == STACK.url
    monkeypatch.setenv("PILOTLIGHT_URL", "https://other.example.com")
    assert find_default_url() == find_remote_url() == "https://other.example.com"


def test_what_only_a_remote_server_can_mean_asks_the_current_stack_and_says_so(
    remembered: RememberedStacks, capsys: pytest.CaptureFixture[str]
) -> None:
    assert find_remote_url() == STACK.url
    assert capsys.readouterr().err == f"Asking the stack shop, {STACK.url}; --url asks another.\n"


def test_a_stacks_key_goes_to_its_own_url_alone(remembered: RememberedStacks) -> None:
    assert find_credentials(STACK.url, {}).headers == {"authorization": "Bearer plk_secret"}
    assert find_credentials(f"{STACK.url}/", {}).headers == {"authorization": "Bearer plk_secret"}
    for url in (LOCAL_URL, "http://127.0.0.1:9", "http://127.0.0.1:9/prod/v2", "https://evil.example.com/prod"):
        assert not find_credentials(url, {}).headers
    assert find_credentials(STACK.url, {"PILOTLIGHT_KEY": "mine"}).headers == {"authorization": "Bearer mine"}


def test_nobody_at_home_names_the_stack_that_may_have_been_meant(remembered: RememberedStacks) -> None:
    """Port 8080 may be somebody's, so the address is asked by a client that reaches none."""
    with pytest.raises(UnavailableError, match=r"Gone\. To ask the stack shop: --url shop$"), open_client(LOCAL_URL):
        raise UnavailableError("Gone.")
    with pytest.raises(UnavailableError, match=r"^Gone\.$"), open_client("http://127.0.0.1:9"):
        raise UnavailableError("Gone.")


def test_commands_take_the_name(run: Run, remembered: RememberedStacks) -> None:
    for words in (["rollback", "double"], ["runs", "list"], ["promote", "double:1"]):
        code, _, err = run(*words, "--url", "shop")
        assert (code, "Nothing answers at http://127.0.0.1:9/prod" in err) == (1, True), err
    code, out, _ = run("doctor", "--url", "shop")
    assert (code, "Nothing answers at http://127.0.0.1:9/prod" in out) == (1, True)


def test_a_run_is_cancelled_and_followed_at_the_current_stack(
    run: Run, remembered: RememberedStacks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_trainings, "follow_training", lambda client, run, *, json: 0)  # it waits for a server
    for words, expected in ((["runs", "cancel", "tuesday"], 1), (["runs", "show", "tuesday", "--follow"], 0)):
        code, _, err = run(*words)
        assert (code, err.startswith("Asking the stack shop, ")) == (expected, True), err
    remembered.forget("shop")
    code, _, err = run("runs", "cancel", "tuesday")
    assert (code, "add --remote" in err) == (2, True), err


def test_a_store_is_never_left_for_a_server_by_the_environment(
    run: Run, remembered: RememberedStacks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PILOTLIGHT_URL says which server, not that one is asked."""
    monkeypatch.setenv("PILOTLIGHT_URL", STACK.url)
    code, out, _ = run("runs", "list")
    assert (code, out.startswith("No runs in ")) == (0, True)
    code, _, err = run("runs", "list", "--remote")
    assert (code, "Nothing answers at http://127.0.0.1:9/prod" in err) == (1, True), err
