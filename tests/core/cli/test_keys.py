"""`pilotlight keys`: what is printed where, and the meters that are made and deleted with keys."""

import json
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from typer.testing import CliRunner, Result

from pilotlight.api_keys.key_store import KeyStore
from pilotlight.cli import commands
from pilotlight.contracts.api_key import parse_key_id
from pilotlight.errors import InvalidInputError, NotFoundError
from pilotlight.storage.object_store import open_store


def run(store: Path, *words: str) -> Result:
    done = CliRunner().invoke(commands, ["keys", *words, "--store", str(store)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def test_the_key_stands_alone_on_standard_output(store: Path) -> None:
    done = run(store, "create", "ci", "--scopes", "batch,infer", "--expires", "90d", "--tenant", "acme")
    key_id = parse_key_id(done.stdout.strip())
    assert key_id is not None
    assert f"ci ({key_id}) opens infer, batch until 20" in done.stderr
    assert "This is shown once" in done.stderr
    listed = run(store, "list").stdout
    assert "infer,batch acme valid" in " ".join(listed.split())
    assert done.stdout.strip().split("_", 2)[2] not in listed


def test_scripts_get_one_document(store: Path) -> None:
    created = json.loads(run(store, "create", "ci", "--scopes", "infer", "--json").stdout)
    assert parse_key_id(created["key"]) == created["id"]
    listed = json.loads(run(store, "list", "--json").stdout)
    assert [one["name"] for one in listed["keys"]] == ["ci"]
    assert not {"key", "sha256", "usage_key"} & listed["keys"][0].keys()
    assert listed["broken"] == []


def test_revoking_and_rotating(store: Path) -> None:
    old = json.loads(run(store, "create", "ci", "--scopes", "infer", "--json").stdout)
    new = json.loads(run(store, "rotate", "ci", "--json").stdout)
    assert new["id"] != old["id"]
    assert "is revoked, and opens nothing within a minute" in run(store, "revoke", "ci").stdout
    states = {one["id"]: one["state"] for one in json.loads(run(store, "list", "--json").stdout)["keys"]}
    assert states == {old["id"]: "revoked", new["id"]: "revoked"}
    with pytest.raises(NotFoundError, match="no longer valid"):
        run(store, "rotate", "ci")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--scopes", "root"), "'root' is no scope"),
        (("--scopes", "infer", "--expires", "soon"), "'soon' is not a duration"),
        (("--scopes", "infer", "--tenant", "a/b"), "'a/b' is no name of a tenant"),
        (("--scopes", "infer", "--plan", "p", "--meter", "m"), "give one of them"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(store: Path, words: tuple[str, ...], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        run(store, "create", "ci", *words)
    assert KeyStore(open_store(str(store))).list_keys() == ([], [])


# --- meters -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def plan(aws_environment: dict[str, str]) -> Iterator[str]:
    """A usage plan, such as a tenant's."""
    gateway = boto3.client("apigateway")
    made = gateway.create_usage_plan(name="acme")["id"]
    yield made
    for key in gateway.get_api_keys()["items"]:
        gateway.delete_api_key(apiKey=key["id"])


def meters() -> dict[str, str]:
    """The keys of API Gateway: values by ids."""
    return {key["id"]: key["value"] for key in boto3.client("apigateway").get_api_keys(includeValues=True)["items"]}


def test_a_key_in_a_usage_plan_has_a_meter_that_goes_with_it(store: Path, plan: str) -> None:
    created = json.loads(run(store, "create", "ci", "--scopes", "infer", "--plan", plan, "--json").stdout)
    ((meter, value),) = meters().items()
    (metered,) = boto3.client("apigateway").get_usage_plan_keys(usagePlanId=plan)["items"]
    assert metered["id"] == meter
    (stored,), _ = KeyStore(open_store(str(store))).list_keys()
    assert (stored.usage_key, stored.usage_key_id) == (value, meter)
    assert value not in created["key"]
    run(store, "rotate", "ci")
    assert meters() == {meter: value}
    run(store, "revoke", created["id"])  # the old one, whose meter is the new one's
    assert meters() == {meter: value}
    run(store, "revoke", "ci")
    assert meters() == {}


def test_keys_of_a_tenant_share_his_meter_which_stays(store: Path, plan: str) -> None:
    shared = boto3.client("apigateway").create_api_key(name="acme", enabled=True)
    for name in ("one", "two"):
        run(store, "create", name, "--scopes", "infer", "--tenant", "acme", "--meter", shared["id"])
    found, _ = KeyStore(open_store(str(store))).list_keys()
    assert {(one.usage_key, one.usage_key_id) for one in found} == {(shared["value"], "")}
    run(store, "revoke", "one")
    assert shared["id"] in meters()


@pytest.mark.parametrize("option", ["--plan", "--meter"])
def test_a_meter_that_is_not_there_is_said_and_nothing_is_left(store: Path, plan: str, option: str) -> None:
    with pytest.raises(InvalidInputError, match=r"There is no (usage plan|API Gateway key) 'nothing'"):
        run(store, "create", "ci", "--scopes", "infer", option, "nothing")
    assert meters() == {}
    assert KeyStore(open_store(str(store))).list_keys() == ([], [])


def test_a_store_that_fails_leaves_no_meter(store: Path, plan: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise NotFoundError("The bucket is gone.")

    monkeypatch.setattr(KeyStore, "create_key", fail)
    with pytest.raises(NotFoundError):
        run(store, "create", "ci", "--scopes", "infer", "--plan", plan)
    assert meters() == {}
