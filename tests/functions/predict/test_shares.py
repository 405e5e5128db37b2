"""Shares of an alias through the predict function's door: whatever protocol a caller speaks, and whatever they do."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from functions.predict import handler
from pilotlight.contracts.alias import AliasDocument, Canary, TrafficShare
from pilotlight.registry import alias_updates
from pilotlight.registry.registry import Registry
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.settings import Settings
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.functions.predict.test_overload import Context

V2 = "/v2/models/double/infer", {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}
MLFLOW = "/invocations", {"inputs": [[1, 2, 3]]}
FAR = "2100-01-01T00:00:00+00:00"


class Function:
    """The predict function over a model's versions, each a kept graph."""

    def __init__(self, folder: Path, *graphs: str) -> None:
        store = open_store(str(folder))
        self.registry = Registry(store)
        for graph in graphs:
            fakes.publish(self.registry, of=graph)
        settings = Settings(store=str(folder), alias_seconds=0.0)
        self.catalog = ModelManager.from_settings(settings, store)
        self.handle = handler.build_router(settings, self.catalog)

    def change(self, of: Callable[[AliasDocument], AliasDocument]) -> None:
        """Change the alias, and let the function see it and open what it names, whomever chance sends there."""
        document = self.registry.update_alias("double", "champion", lambda old: fakes.with_fixed_salt(of(old)))
        self.post(V2, "somebody")
        for share in filter(None, (*document.shares, document.shadow)):
            self.catalog.load_beside(("double", share.version), ("double", document.version))
            self.catalog.wait_for_background()

    def post(
        self, asked: tuple[str, Any], caller: str, context: object = None, *, identified: bool = True
    ) -> tuple[int, str, Any]:
        """Status, version and body, for a user of an authenticated caller or for somebody who only says so."""
        path, body = asked
        event = fakes.event(self.handle._routes, "POST", path, json.dumps(body).encode())
        event["headers"] = {**event["headers"], "X-Pilotlight-Caller": caller}
        event["requestContext"] |= {"authorizer": {"principalId": "backend"}} if identified else {}
        answer = self.handle(event, context)
        return answer["statusCode"], answer["headers"].get("x-pilotlight-version", ""), json.loads(answer["body"])


@pytest.mark.parametrize("asked", [V2, MLFLOW])
def test_a_caller_meets_the_same_version_in_every_protocol(tmp_path: Path, asked: tuple[str, Any]) -> None:
    function = Function(tmp_path, "double", "square")
    function.change(lambda old: alias_updates.set_traffic_split(old, (TrafficShare(2, 3000),), "ann", "try"))
    met = {str(caller): function.post(asked, str(caller)) for caller in range(300)}
    assert {status for status, _, _ in met.values()} == {200}
    assert 60 < Counter(version for _, version, _ in met.values())["2"] < 120
    assert all(function.post(V2, caller)[1] == version for caller, (_, version, _) in met.items())
    for _, version, body in met.values():
        given = body["predictions"][0] if asked is MLFLOW else body["outputs"][0]["data"]
        assert given == ([2, 4, 6] if version == "1" else [1, 4, 9])


@pytest.mark.parametrize("asked", [V2, MLFLOW])
def test_who_is_not_authenticated_chooses_no_side_by_header_or_request_id(
    tmp_path: Path, asked: tuple[str, Any]
) -> None:
    """A client sets the gateway's request id too, by x-amzn-RequestId; it is the same in all of these events."""
    function = Function(tmp_path, "double", "square")
    function.change(lambda old: alias_updates.start_canary(old, Canary(2, FAR), 5000, "ann", "try"))
    assert {function.post(asked, "1", identified=False)[1] for _ in range(100)} == {"1", "2"}


@pytest.mark.parametrize(("authorizer", "met"), [({"key": ""}, 1), ({"key": "backend"}, 2), ({}, 1)])
def test_a_split_keeps_the_subject_of_a_token_and_not_all_users_of_a_key(
    tmp_path: Path, authorizer: dict[str, str], met: int
) -> None:
    function = Function(tmp_path, "double", "square")
    function.change(lambda old: alias_updates.set_traffic_split(old, (TrafficShare(2, 5000),), "ann", "try"))
    event = fakes.event(function.handle._routes, "POST", V2[0], json.dumps(V2[1]).encode())
    event["requestContext"] |= {"authorizer": {"principalId": "one", **authorizer}}
    versions = {function.handle(event, None)["headers"]["x-pilotlight-version"] for _ in range(60)}
    assert len(versions) == met


def test_headers_and_large_batches_stop_no_identical_canary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Finding A7: a batch for every header with which the canary answered before, and one row for all others."""
    function = Function(tmp_path, "double", "double")
    function.change(lambda old: alias_updates.start_canary(old, Canary(2, FAR), 5000, "mallory", "try"))
    batch = V2[0], {"inputs": [{"name": "x", "shape": [15000, 3], "datatype": "FP32", "data": [1] * 45_000}]}
    met = {name: function.post(V2, name, identified=False)[1] for name in map(str, range(40))}
    for name in [*met, *met, *met]:
        assert function.post(batch if met[name] == "2" else V2, name, identified=False)[0] == 200
    assert "Canary" not in capsys.readouterr().out


@pytest.mark.parametrize("asked", [V2, MLFLOW])
def test_a_canary_that_does_not_end_fails_nobody_and_is_stopped(
    tmp_path: Path, asked: tuple[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither by taking the time of the champion."""
    function = Function(tmp_path, "double", "square", "endless")
    trial = Canary(3, FAR)
    function.change(
        lambda old: alias_updates.set_traffic_split(old, (TrafficShare(2, 1),), "ann", "so that it is not asked yet")
    )
    function.registry.update_alias(
        "double", "champion", lambda old: alias_updates.start_canary(old, trial, 9999, "ann", "try")
    )
    for _ in range(2):  # one that has the alias read, and one that has the canary opened beside it
        function.post(asked, "0", Context(1.5))
        function.catalog.wait_for_background()
    answers = [function.post(asked, str(caller), Context(1.5)) for caller in range(6)]
    assert [(status, version) for status, version, _ in answers] == [(200, "1")] * 6
    lines = [line for line in capsys.readouterr().out.splitlines() if "CanaryStopped" in line]
    assert len(lines) == 1
    assert "requests failed, 100.00% where 1.00% are let through: DeadlineError" in lines[0]


def test_a_shadow_sees_what_mlflows_callers_ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    function = Function(tmp_path, "double", "square")
    function.change(lambda old: alias_updates.set_shadow(old, TrafficShare(2, 9999), "ann", "look"))
    capsys.readouterr()
    assert {function.post(MLFLOW, str(caller))[:2] for caller in range(5)} == {(200, "1")}
    fakes.eventually(lambda: "ShadowDiffered" in capsys.readouterr().out)
