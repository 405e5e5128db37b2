"""The registry's routes as Lambda calls them, over stores of every kind."""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from functions.promote.events import parse_events
from functions.promote.policy import PromotionPolicy
from functions.promote.promoter import Promoter
from functions.registry_api.aliases import AliasEndpoints
from functions.registry_api.versions import VersionEndpoints
from pilotlight.api.powertools_router import ResolverRouter
from pilotlight.aws.lambda_invoke import LambdaFunction
from pilotlight.errors import UnavailableError
from pilotlight.gate.evaluation import QualityGate
from pilotlight.registry.approval import blocking_reason, load_approval, record_decision
from pilotlight.registry.registry import Registry, version_path
from pilotlight.storage.object_store import ObjectStore, open_store
from tests import fakes

MODEL = "/registry/models/double"
CHAMPION = f"{MODEL}/aliases/champion"


class Taken(LambdaFunction):
    """A promote function that keeps what it is sent until it is told to run it."""

    def __init__(self) -> None:
        super().__init__("promote")
        self.events: list[dict[str, Any]] = []
        self.away = False

    def invoke_async(self, **event: Struct) -> None:
        if self.away:
            raise UnavailableError("promote could not be started: throttled.")
        self.events.append(json.loads(json.dumps(event, default=lambda struct: struct_of(struct))))

    def run(self, registry: Registry) -> list[str]:
        """See to everything that was sent, as functions/promote does."""
        duties = Promoter(QualityGate(registry, 1769), PromotionPolicy.parse("off"))
        said = [sentence for event in self.events for one in parse_events(event) for sentence in duties.handle(one)]
        self.events.clear()
        return said


def struct_of(struct: Struct) -> dict[str, Any]:
    return {field: getattr(struct, field) for field in struct.__struct_fields__}


class Api:
    """The routes over a store, called as the gateway would."""

    def __init__(self, store: ObjectStore, *, approval: bool = False) -> None:
        self.registry = Registry(store)
        self.promoter = Taken()
        parts = (
            VersionEndpoints(self.registry),
            AliasEndpoints(self.registry, self.promoter, approval_required=approval),
        )
        self._handle = ResolverRouter({resource: verbs for part in parts for resource, verbs in part.routes().items()})

    def __call__(
        self, method: str, path: str, body: object = None, *, by: str = "arn:aws:iam::1:user/ann", **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        where, _, query = path.partition("?")
        sent = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        asked = dict([query.split("=")]) if query else None
        event = fakes.event(self._handle._routes, method, where, sent, named, asked)
        event["requestContext"] = {"identity": {"userArn": by, "sourceIp": "192.0.2.7"}}
        answer = self._handle(event, None)
        return answer["statusCode"], json.loads(answer["body"]), answer["headers"]


@pytest.fixture
def api(store: ObjectStore) -> Api:
    """Three versions of one model in a store of each kind; the first is champion."""
    made = Api(store)
    for _ in range(3):
        fakes.publish(made.registry)
    return made


@pytest.fixture
def near(tmp_path: Path) -> Api:
    """The same on disk, where the kind of store makes no difference but the gate's own process must reach it."""
    made = Api(open_store((tmp_path / "near").as_uri()))
    for _ in range(3):
        fakes.publish(made.registry)
    return made


def test_models_versions_and_documents_are_shown(api: Api) -> None:
    assert api("GET", "/registry/models")[1] == {
        "models": [{"name": "double", "versions": ["1", "2", "3"], "champion": "1"}]
    }
    status, shown, _ = api("GET", f"{MODEL}?newest=2")
    assert status == 200
    assert [(one["version"], one["aliases"], one["approval"]) for one in shown["versions"]] == [
        ("3", ["candidate"], "pending"),
        ("2", [], "pending"),
    ]
    assert (shown["total"], shown["aliases"]["champion"]["version"]) == (3, 1)
    assert api("GET", f"{MODEL}/versions/champion")[1]["version"] == "1"
    assert api("GET", f"{MODEL}/versions/2/manifest")[1]["version"] == 2
    (file,) = api("GET", f"{MODEL}/versions/2/files")[1]
    assert (file["path"], file["bytes"]) == ("model.onnx", len(fakes.graph("double")))


def test_a_report_is_what_was_published() -> None:
    api = Api(Registry(fakes.FaultyStore()).store)
    manifest = fakes.publish_digits(api.registry)
    assert manifest.report is None or api("GET", "/registry/models/digits/versions/1/report")[0] == 200


def test_a_promotion_goes_from_asking_to_champion(near: Api) -> None:
    status, asked, headers = near("POST", f"{CHAMPION}/promote", {"version": "2", "why": "better"})
    assert (status, asked["state"], asked["by"]) == (202, "asked", "arn:aws:iam::1:user/ann")
    assert headers["location"] == f"../../promotions/{asked['id']}"
    where = f"{MODEL}/promotions/{asked['id']}"
    assert near("GET", where)[1] == asked
    assert near("GET", CHAMPION)[1]["version"] == 1
    near.promoter.run(near.registry)
    done = near("GET", where)[1]
    assert (done["state"], done["said"].endswith("checks passed; not checked: golden.")) == ("promoted", True)
    status, document, headers = near("GET", CHAMPION)
    assert (document["version"], document["by"], headers["etag"]) == (2, "arn:aws:iam::1:user/ann", '"2"')
    assert near("GET", f"{MODEL}/versions/2/verdict")[1]["passed"] is True
    history = near("GET", f"{CHAMPION}/history")[1]
    assert [(one["version"], one["number"]) for one in history] == [(1, 1), (2, 2)]


def test_the_same_promotion_twice_is_one_move(near: Api) -> None:
    for _ in range(2):
        assert near("POST", f"{CHAMPION}/promote", {"version": 2})[0] == 202
    near.promoter.run(near.registry)
    assert near.registry.load_alias("double", "champion").number == 2
    status, done, _ = near("POST", f"{CHAMPION}/promote", {"version": 2})
    assert (status, done["state"]) == (200, "promoted")
    assert near.promoter.events == []


def test_without_a_version_the_candidate_is_meant_and_a_new_alias_is_made(near: Api) -> None:
    asked = near("POST", f"{MODEL}/aliases/stable/promote")[1]
    assert asked["version"] == 3
    near.promoter.run(near.registry)
    assert near.registry.load_alias("double", "stable").version == 3


def test_what_the_gate_refuses_is_said_and_force_overrules_it_by_name(near: Api) -> None:
    near.registry.store.put(version_path("double", 2, "model.onnx"), b"no graph")
    asked = near("POST", f"{CHAMPION}/promote", {"version": 2})[1]
    near.promoter.run(near.registry)
    done = near("GET", f"{MODEL}/promotions/{asked['id']}")[1]
    assert done["state"] == "refused"
    assert done["said"].startswith("It does not open:")
    assert near.registry.load_alias("double", "champion").version == 1
    near("POST", f"{CHAMPION}/promote", {"version": 2, "force": True, "why": "I know"}, by="ann")
    near.promoter.run(near.registry)
    assert near.registry.load_alias("double", "champion").reason == "forced by ann: I know"


def test_a_promotion_of_what_is_gone_ends_as_failed(near: Api) -> None:
    fakes.publish(near.registry)
    asked = near("POST", f"{MODEL}/aliases/champion/promote", {"version": 2})[1]
    near("DELETE", f"{MODEL}/versions/2")
    near.promoter.run(near.registry)
    done = near("GET", f"{MODEL}/promotions/{asked['id']}")[1]
    assert (done["state"], "has no version 2" in done["said"]) == ("failed", True)


def test_a_promotion_that_nobody_takes_is_not_left_open(near: Api) -> None:
    near.promoter.away = True
    assert near("POST", f"{CHAMPION}/promote", {"version": 2})[0] == 503
    (path,) = near.registry.store.list_paths("models/double/promotions")
    assert json.loads(near.registry.store.get(path).data)["state"] == "failed"


def test_without_a_promote_function_the_command_is_named(registry: Registry) -> None:
    fakes.publish(registry)
    fakes.publish(registry)
    handle = ResolverRouter(AliasEndpoints(registry, LambdaFunction("")).routes())
    answer = handle(fakes.event(handle._routes, "POST", f"{CHAMPION}/promote", b'{"version": 2}'), None)
    assert answer["statusCode"] == 501
    assert "pilotlight promote --store" in answer["body"]


def test_canary_split_shadow_and_rollback(api: Api) -> None:
    status, document, headers = api("POST", f"{CHAMPION}/canary", {"version": "2", "percent": 10, "bake": "30m"})
    assert (status, headers["etag"], document["shares"]) == (200, '"2"', [{"version": 2, "weight": 1000}])
    assert document["canary"]["version"] == 2
    assert api("POST", f"{CHAMPION}/rollback", {"why": "enough"})[1]["shares"] == []
    split = {"shares": [{"version": 2, "percent": 25}, {"version": 3, "percent": 0.5}]}
    assert [one["weight"] for one in api("POST", f"{CHAMPION}/split", split)[1]["shares"]] == [2500, 50]
    assert api("POST", f"{CHAMPION}/split", {"shares": []})[1]["shares"] == []
    assert api("POST", f"{CHAMPION}/shadow", {"version": 3, "percent": 5})[1]["shadow"] == {"version": 3, "weight": 500}
    assert api("POST", f"{CHAMPION}/shadow", {"version": 3, "percent": 0})[1]["shadow"] is None
    assert api("POST", f"{CHAMPION}/canary", {"version": 2, "percent": 0})[1]["canary"] is None
    assert [one["reason"] for one in api("GET", f"{CHAMPION}/history")[1]][:3] == ["first version", "trial", "enough"]


def test_a_change_is_made_to_what_was_seen_or_not_at_all(api: Api) -> None:
    etag = api("GET", CHAMPION)[2]["etag"]
    assert api("POST", f"{CHAMPION}/canary", {"version": 2}, if_match=etag)[0] == 200
    status, answer, _ = api("POST", f"{CHAMPION}/rollback", {}, if_match=etag)
    assert status == 412
    assert answer["error"] == (
        'The alias \'champion\' is at number "2", version 1, and If-Match names "1"; read it again and decide anew.'
    )
    assert api("POST", f"{CHAMPION}/promote", {"version": 2}, if_match=etag)[0] == 412
    assert api("POST", f"{MODEL}/aliases/new/promote", {"version": 2}, if_match="*")[0] == 412
    assert api("POST", f"{CHAMPION}/rollback", {}, if_match='W/"2"')[0] == 412
    assert api("POST", f"{CHAMPION}/rollback", {}, if_match='"7", "2"')[0] == 200


def test_a_rejected_version_is_neither_tried_nor_promoted_unless_forced(near: Api) -> None:
    status, decided, _ = near("PUT", f"{MODEL}/versions/2/approval", {"state": "rejected", "why": "biased"}, by="ann")
    assert (status, decided["state"], decided["by"], decided["number"]) == (200, "rejected", "ann", 1)
    assert near("PUT", f"{MODEL}/versions/2/approval", {"state": "rejected", "why": "again"})[1] == decided
    said = "double:2 was rejected by ann: biased. Approve it first."
    for verb, body in (("canary", {"version": 2}), ("promote", {"version": 2})):
        status, answer, _ = near("POST", f"{CHAMPION}/{verb}", body)
        assert (status, answer["error"]) == (409, said)
    assert "was rejected by ann" in str(blocking_reason(near.registry, "double", 2, required=False))
    near("POST", f"{CHAMPION}/promote", {"version": 2, "force": True, "why": "I know"})
    near.promoter.run(near.registry)
    assert near.registry.load_alias("double", "champion").version == 2
    assert near("PUT", f"{MODEL}/versions/2/approval", {"state": "approved", "why": "mended"})[1]["number"] == 2


def test_a_version_that_was_rejected_since_is_not_gone_back_to(near: Api) -> None:
    near.registry.move_alias("double", "champion", 2, actor="test", reason="test")
    near("PUT", f"{MODEL}/versions/1/approval", {"state": "rejected", "why": "leaks"}, by="ann")
    status, answer, _ = near("POST", f"{CHAMPION}/rollback", {})
    assert (status, answer["error"]) == (409, "double:1 was rejected by ann: leaks. Approve it first.")
    near("POST", f"{CHAMPION}/split", {"shares": []})
    assert near.registry.load_alias("double", "champion").version == 2
    near("PUT", f"{MODEL}/versions/1/approval", {"state": "approved", "why": "it does not"})
    assert near("POST", f"{CHAMPION}/rollback", {})[1]["version"] == 1


def test_where_approval_is_asked_for_a_version_waits(near: Api) -> None:
    registry = near.registry
    api = Api(registry.store, approval=True)
    assert api("POST", f"{CHAMPION}/promote", {"version": 2})[0] == 409
    waiting = QualityGate(registry, 1769, requires_approval=True).evaluate("double", 2, "champion", actor="test")
    assert (waiting.passed, waiting.is_awaiting_approval) == (False, True)
    record_decision(registry, "double", 2, "approved", actor="ann", reason="good")
    assert blocking_reason(registry, "double", 2, required=True) is None
    assert api("POST", f"{CHAMPION}/promote", {"version": 2})[0] == 202


def test_what_an_alias_needs_is_not_deleted(api: Api) -> None:
    fakes.publish(api.registry)  # else the candidate would go back to version 2
    status, answer, _ = api("DELETE", f"{MODEL}/versions/1")
    assert (status, answer["error"]) == (409, "double:1 cannot be deleted: the alias 'champion' points to it.")
    record_decision(api.registry, "double", 2, "approved", actor="ann", reason="good")
    assert api("DELETE", f"{MODEL}/versions/2")[1] == {"deleted": "double:2"}
    assert api.registry.list_versions("double") == [1, 3, 4]
    assert load_approval(api.registry, "double", 2).state == "pending"


def test_pruning_says_first_and_does_when_told(api: Api) -> None:
    fakes.publish(api.registry)
    plan = api("POST", f"{MODEL}/prune", {"keep": 1})[1]
    assert (plan["versions"], plan["done"], sorted(plan["kept"])) == (["2"], False, ["1", "3", "4"])
    assert plan["kept"]["1"] == "the alias 'champion' points to it"
    assert api.registry.list_versions("double") == [1, 2, 3, 4]
    assert api("POST", f"{MODEL}/prune", {"keep": 1, "dry_run": False})[1]["done"] is True
    assert api.registry.list_versions("double") == [1, 3, 4]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "hint"),
    [
        ("GET", "/registry/models/nothing", None, 404, "There is no model 'nothing'"),
        ("GET", "/registry/models/nothing/aliases", None, 404, "There is no model 'nothing'"),
        ("GET", f"{MODEL}?newest=x", None, 400, "newest='x': Input should be a valid integer"),
        ("GET", f"{MODEL}/versions/9/manifest", None, 404, "has no version 9; it has 1, 2, 3, candidate, champion."),
        ("GET", f"{MODEL}/versions/2/report", None, 404, "published without a report"),
        ("GET", f"{MODEL}/versions/2/verdict", None, 404, "has not been examined"),
        ("GET", f"{MODEL}/aliases/nobody", None, 404, "has no version or alias 'nobody'"),
        ("GET", f"{MODEL}/aliases/3", None, 400, "nor an alias, which has letters too"),
        ("GET", f"{MODEL}/promotions/none", None, 404, "There is no promotion 'none'"),
        ("DELETE", f"{MODEL}/versions/champion", None, 400, "'champion' is not a version; here it takes a number"),
        ("PUT", f"{MODEL}/versions/2/approval", {"state": "maybe", "why": "x"}, 400, "$.state"),
        ("PUT", f"{MODEL}/versions/2/approval", {"state": "approved"}, 400, "$.why: Field required"),
        ("PUT", f"{MODEL}/versions/9/approval", {"state": "approved", "why": "x"}, 404, "has no version 9"),
        ("POST", f"{CHAMPION}/promote", {"version": 9}, 404, "has no version 9"),
        ("POST", f"{CHAMPION}/promote", {"version": "two"}, 400, "$.version"),
        ("POST", f"{CHAMPION}/promote", {"version": 2, "force": True}, 400, "say why"),
        ("POST", f"{CHAMPION}/promote", {"versoin": 2}, 400, "$.versoin: Unexpected keyword argument"),
        ("POST", f"{CHAMPION}/promote", b"{", 400, "The body is not JSON"),
        ("POST", f"{CHAMPION}/canary", {}, 400, "$.version: Field required"),
        ("POST", f"{CHAMPION}/canary", {"version": 1}, 400, "Version 1 is what the alias points to"),
        ("POST", f"{CHAMPION}/canary", {"version": 2, "bake": "soon"}, 400, "'soon' is not a duration"),
        ("POST", f"{CHAMPION}/canary", {"version": 2, "percent": 100}, 400, "$.percent"),
        ("POST", f"{CHAMPION}/split", {"shares": [{"version": 9, "percent": 5}]}, 404, "has no version 9"),
        ("POST", f"{CHAMPION}/shadow", {"version": 1}, 400, "Version 1 serves already"),
        ("POST", f"{CHAMPION}/rollback", b"", 400, "there is nothing to go back to"),
        ("POST", f"{MODEL}/prune", {"keep": 0}, 400, "$.keep"),
        ("POST", "/registry/models/nothing/prune", {}, 404, "There is no model 'nothing'"),
        ("POST", f"{MODEL}/versions/2", None, 405, "use GET, DELETE"),
    ],
)
def test_what_is_wrong_is_said(near: Api, method: str, path: str, body: object, status: int, hint: str) -> None:
    found, answer, _ = near(method, path, body)
    assert found == status, answer
    assert hint in answer["error"]
    assert near.promoter.events == []


@pytest.mark.parametrize(
    ("method", "path", "what"),
    [
        ("POST", f"{CHAMPION}/promote", "not an order to promote"),
        ("POST", f"{CHAMPION}/rollback", "not an order to roll back"),
        ("POST", f"{CHAMPION}/canary", "not a canary"),
        ("POST", f"{CHAMPION}/split", "not a split"),
        ("POST", f"{CHAMPION}/shadow", "not a shadow"),
        ("PUT", f"{MODEL}/versions/1/approval", "not a decision about a version"),
        ("POST", f"{MODEL}/prune", "not an order to prune"),
    ],
)
def test_a_body_of_another_form_is_named_in_words(near: Api, method: str, path: str, what: str) -> None:
    assert near(method, path, b"{")[:2] == (400, {"error": "The body is not JSON: Input data was truncated."})
    assert near(method, path, b"[]")[:2] == (400, {"error": "The body is not a JSON object: []."})
    status, answer, _ = near(method, path, {"surprise": 1})
    assert (status, answer["error"].partition(": ")[0]) == (400, f"The body is {what}")
    assert "$.surprise: Unexpected keyword argument" in answer["error"]


def test_decisions_and_aliases_that_do_not_read_are_the_stores_fault(api: Api) -> None:
    """503, and never what the caller has sent."""
    api.registry.store.put("approvals/double/2.json", b'{"state": "maybe"}')
    said = "approvals/double/2.json is not a Approval: Invalid enum value 'maybe' - at `$.state`."
    for method, body in (("GET", None), ("PUT", {"state": "approved", "why": "good"})):
        assert api(method, f"{MODEL}/versions/2/approval", body)[:2] == (503, {"error": said})
    api.registry.store.put("models/double/aliases/champion.json", b"{")
    said = "models/double/aliases/champion.json is not a AliasDocument: Input data was truncated. "
    said += "`pilotlight promote double:VERSION --force` replaces it."
    assert api("GET", CHAMPION)[:2] == (503, {"error": said})
    assert api("POST", f"{CHAMPION}/rollback", {"why": "worse"})[:2] == (503, {"error": said})


def test_a_broken_alias_is_replaced_by_force_alone(near: Api) -> None:
    near.registry.store.put("models/double/aliases/champion.json", b"{")
    status, body, _ = near("POST", f"{CHAMPION}/promote", {"version": 2})
    assert (status, "--force` replaces it" in body["error"]) == (503, True)
    order = {"version": 2, "force": True, "why": "it was truncated"}
    assert near("POST", f"{CHAMPION}/promote", order, if_match='"1"')[0] == 412  # what it was is not known
    status, asked, _ = near("POST", f"{CHAMPION}/promote", order)
    assert status == 202
    near.promoter.run(near.registry)
    assert near("GET", f"{MODEL}/promotions/{asked['id']}")[1]["state"] == "promoted"
    mended = near("GET", CHAMPION)[1]
    assert (mended["number"], mended["version"]) == (2, 2)
    assert mended["reason"].startswith("replaces a broken document; ")
    first, current = near("GET", f"{CHAMPION}/history")[1]
    assert (first["number"], current["number"]) == (1, 2)
    assert "its bytes are in models/double/history/champion/1.broken" in first["error"]


def test_a_promotion_that_is_not_there_or_does_not_read(api: Api) -> None:
    where = f"{MODEL}/promotions/0a1b"
    missing = "There is no promotion '0a1b' of 'double'; POST .../promote gives its id."
    assert api("GET", where)[:2] == (404, {"error": missing})
    api.registry.store.put("models/double/promotions/0a1b.json", b"[]")
    broken = "models/double/promotions/0a1b.json is not a PromotionRequest: Expected `object`, got `array`."
    assert api("GET", where)[:2] == (503, {"error": broken})
