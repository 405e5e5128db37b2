"""`pilotlight publish --url`: the command against the local gateway, beside the same with rights in the store."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from pilotlight.cli.serve import build_gateway
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.core.cli.conftest import Run

DOUBLE = str(Path(__file__).parents[2] / "models" / "double.onnx")


@pytest.fixture
def url(store: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.delenv("PILOTLIGHT_KEY", raising=False)
    with build_gateway(store, host="127.0.0.1", port=0, workers=1).serve_in_background() as address:
        yield address


@pytest.fixture
def locked_url(store: str) -> Iterator[str]:
    gateway = build_gateway(store, host="127.0.0.1", port=0, workers=1, parameters={"Auth": "keys"})
    with gateway.serve_in_background() as address:
        yield address


def test_the_version_is_the_same_as_with_rights_in_the_store(run: Run, url: str, store: str) -> None:
    code, out, err = run("publish", DOUBLE, "--name", "double", "--url", f"{url}/prod", "--precision", "fp32")
    assert (code, out) == (0, "double:1\n"), err
    assert f"Sent model.fp32.onnx ({len(fakes.graph('double')):,} bytes)." in err
    assert run("publish", DOUBLE, "--name", "double", "--store", store)[1] == "double:2\n"
    registry = Registry(open_store(store))
    over_http, direct = registry.load_manifest("double", 1), registry.load_manifest("double", 2)
    measured = {"created": "", "nonce": "", "version": 1, "request_cost": None}
    assert structs.replace(over_http, **measured) == structs.replace(direct, **measured)
    assert [file.path for file in over_http.files] == [file.path for file in direct.files]
    assert over_http.graph_file == direct.graph_file
    assert run("predict", "double", "--input", request(store), "--url", url)[0] == 0


def request(store: str) -> str:
    path = Path(store).with_name("request.json")
    path.write_text('{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}')
    return str(path)


def test_in_json_nothing_else_is_said(run: Run, url: str) -> None:
    code, out, err = run("publish", DOUBLE, "--name", "double", "--url", url, "--json")
    said = json.loads(out)
    assert (code, said["reference"], said["store"], err) == (0, "double:1", url, "")


@pytest.mark.parametrize(("scopes", "code"), [(("infer", "batch", "train"), 1), (("admin",), 0)])
def test_a_key_needs_the_scope_admin(
    run: Run, locked_url: str, store: str, monkeypatch: pytest.MonkeyPatch, scopes: tuple[str, ...], code: int
) -> None:
    """Another one is refused before the model is examined, and so is none."""
    assert run("publish", "no such file", "--name", "double", "--url", locked_url)[0] == 1
    created = json.loads(run("keys", "create", "ci", "--scopes", ",".join(scopes), "--store", store, "--json")[1])
    monkeypatch.setenv("PILOTLIGHT_KEY", created["key"])
    answered, _, err = run("publish", DOUBLE, "--name", "double", "--url", locked_url)
    assert answered == code, err
    registry = Registry(open_store(store))
    assert registry.list_versions("double") == ([1] if code == 0 else [])
    if code == 0:
        assert registry.load_manifest("double", 1).by == "ci"


def test_a_server_that_is_not_there_is_noticed_first(run: Run) -> None:
    code, _, err = run("publish", "no such file", "--name", "double", "--url", "http://127.0.0.1:9")
    assert (code, "Nothing answers at http://127.0.0.1:9" in err) == (1, True)
