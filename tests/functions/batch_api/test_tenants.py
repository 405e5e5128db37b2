"""Tenants: what belongs to another one is not there, by every route, and nobody is told more about it.

The machine lets four callers do whatever the routes allow, with their own ids and with those of the others. Each of
them writes texts of his own; none may be seen by anybody else, and what a caller hears of a foreign id is to the letter
what he hears of one that never was.
"""

import json
import re
import secrets
from contextlib import AbstractContextManager
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, multiple, rule

from pilotlight.api.large_tensors import StoredOutputs
from pilotlight.contracts.batch import generate_sortable_id, results_folder
from pilotlight.contracts.tenant import encode_tenant, tenant_folder
from pilotlight.contracts.upload import content_path
from pilotlight.observability import emf
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import ObjectStore, open_store
from tests import fakes
from tests.functions.batch_api.conftest import BY_ID, CALLERS, FORM, Caller, Place, announce, calls, form, order

callers = st.sampled_from(CALLERS)
HEX = re.compile(r"[0-9a-f]{32}")


class Tenants(RuleBasedStateMachine):
    """Four callers at one place."""

    ids = Bundle("ids")  # (tenant, id)

    @initialize()
    def open(self) -> None:
        self.place = Place(open_store("memory://"))
        self.secrets: dict[str, set[str]] = {tenant: set() for tenant in CALLERS}

    def own(self, tenant: str, *texts: str) -> None:
        self.secrets[tenant].update(HEX.findall(" ".join(texts)) or texts)

    def ask(self, tenant: str, method: str, path: str, body: bytes | None = None, **more: Any) -> tuple[int, str]:  # noqa: ANN401
        """Ask, and look for everything that is somebody else's in the answer, but for what was asked for by name."""
        status, said = Caller(self.place, tenant).ask(method, path, body, **more)
        sent = f"{path} {body!r} {more}"
        foreign = [text for owner in CALLERS if owner != tenant for text in self.secrets[owner] if text not in sent]
        assert not [text for text in foreign if text in said], (tenant, method, path, said)
        return status, said

    def make(self, tenant: str, path: str, body: bytes, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
        status, said = self.ask(tenant, "POST", path, body, **more)
        assert status == 200, said
        return dict(json.loads(said[said.index("}") + 1 :]))

    @rule(target=ids, tenant=callers, key=st.sampled_from(["", "monday"]))
    def upload_file(self, tenant: str, key: str) -> Any:  # noqa: ANN401 - hypothesis' own
        mark = f"mark{secrets.token_hex(6)}" if not key else f"{encode_tenant(tenant) or 'own'}-monday"
        headers = FORM | ({"idempotency-key": key} if key else {})
        made = self.make(tenant, "/v1/files", form(calls(2, custom_id=mark)), headers=headers)
        if not key:
            self.own(tenant, mark)
        self.own(tenant, made["id"])
        assert made["id"] in self.ask(tenant, "GET", "/v1/files")[1]
        return multiple((tenant, made["id"]))

    @rule(target=ids, tenant=callers, ends=st.sampled_from(["complete", "cancel", ""]))
    def upload_parts(self, tenant: str, ends: str) -> Any:  # noqa: ANN401 - hypothesis' own
        name, data = f"name{secrets.token_hex(6)}", secrets.token_hex(20).encode()
        made = self.make(tenant, "/v1/uploads", announce(name, len(data)))
        self.own(tenant, name)
        self.own(tenant, data.decode())
        self.own(tenant, made["id"])
        to = f"/v1/uploads/{made['id']}"
        part = self.make(tenant, f"{to}/parts", form(data, "data"), headers=FORM)["id"]
        self.own(tenant, part)
        if ends:
            self.make(tenant, f"{to}/{ends}", json.dumps({"part_ids": [part]} if ends == "complete" else {}).encode())
        return multiple((tenant, made["id"]), (tenant, made["id"].replace("upload_", "file-")))

    @rule(target=ids, tenant=callers, found=ids, answer=st.booleans())
    def request_batch(self, tenant: str, found: tuple[str, str], answer: bool) -> Any:  # noqa: ANN401
        told = len(self.place.word.told)
        status, said = self.ask(tenant, "POST", "/v1/batches", order(found[1]))
        if status != 200:
            assert len(self.place.word.told) == told
            return multiple()
        assert found[0] == tenant
        batch = json.loads(said[said.index("}") + 1 :])["id"]
        self.own(tenant, batch)
        assert batch in self.ask(tenant, "GET", "/v1/batches")[1]
        if answer:
            self.place.work()
        number = batch.removeprefix("batch_")
        return multiple(*((tenant, each) for each in (batch, f"file-{number}-output", f"file-{number}-errors")))

    @rule(tenant=callers, path=st.sampled_from(["/v1/files", "/v1/batches"]))
    def list_all(self, tenant: str, path: str) -> None:
        status, said = self.ask(tenant, "GET", path)
        assert status == 200
        assert set(HEX.findall(said)) <= self.secrets[tenant]

    @rule(tenant=callers, found=ids, call=st.sampled_from(BY_ID))
    def ask_by_id(self, tenant: str, found: tuple[str, str], call: tuple[str, str]) -> None:
        method, path = call
        owner, name = found
        real = self.by_id(tenant, method, path, name)
        if owner != tenant:
            (number,), never = HEX.findall(name), generate_sortable_id()
            status, said = self.by_id(tenant, method, path, name.replace(number, never))
            assert real == (status, said.replace(never, number))
            assert real[0] in (404, 405) or "after" in path

    def by_id(self, tenant: str, method: str, path: str, name: str) -> tuple[int, str]:
        query = {"after": name} if "after" in path else None
        body, headers = b"{}" if method == "POST" else None, {}
        if path.endswith("parts"):
            body, headers = form(b"abc", "data"), FORM
        if path == "/v1/batches":
            body = order(name)
        return self.ask(tenant, method, path.partition("?")[0].format(name), body, headers=headers, query=query)

    def teardown(self) -> None:
        """Nothing lies outside its tenant's folders, and everybody still has what is his own."""
        for path in self.place.store.list_paths(""):
            for tenant in CALLERS:
                if any(text in path for text in self.secrets[tenant]):
                    folder = "outbox/batches" if path.startswith("outbox") else path.partition("/")[0]
                    assert re.fullmatch(f"{tenant_folder(folder, tenant)}/[0-9a-f]{{32}}/.*", path), (tenant, path)


TestTenants = Tenants.TestCase
TestTenants.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)


@pytest.mark.parametrize("owner", CALLERS)
def test_a_batch_is_answered_for_its_tenant_and_below_his_folder(owner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[str] = []
    monkeypatch.setattr(emf, "write_line", logged.append)
    place = Place(open_store("memory://"))
    caller = Caller(place, owner)
    file = caller.make("/v1/files", form(calls(2)), headers=FORM)["id"]
    batch = caller.make("/v1/batches", order(file))["id"]
    place.work()
    done = json.loads(caller.ask("GET", f"/v1/batches/{batch}")[1].partition("}")[2])
    assert done["request_counts"] == {"total": 2, "completed": 2, "failed": 0}
    folder = results_folder(batch, owner)
    assert f"{folder}/output.jsonl" in set(place.store.list_paths("outbox"))
    assert set(place.store.list_paths("outbox")) == set(place.store.list_paths(folder))
    assert caller.ask("GET", f"/v1/files/{done['output_file_id']}/content")[0] == 200
    lines = [json.loads(line) for line in logged if '"inbox"' in line]
    assert [line["tenant"] for line in lines] == [owner or fakes.EVENT["requestContext"]["identity"]["sourceIp"]]


def test_a_line_of_a_batch_reads_its_tenants_uploads_alone() -> None:
    place = Place(open_store("memory://"))
    rows = {}
    for tenant in CALLERS:
        file = Caller(place, tenant).make("/v1/files", form(bytes(12), purpose="user_data"), headers=FORM)
        rows[tenant] = file["s3_uri"]
    x = {"name": "x", "shape": [1, 3], "datatype": "FP32"}
    lines = [
        {"custom_id": f"n{place}", "method": "POST", "url": "/v2/models/double/infer",
         "body": {"inputs": [x | {"parameters": {"s3_uri": uri}}]}}
        for place, uri in enumerate(rows.values())
    ]  # fmt: skip
    data = "\n".join(map(json.dumps, lines)).encode()
    for number, tenant in enumerate(CALLERS):
        caller = Caller(place, tenant)
        batch = caller.make("/v1/batches", order(caller.make("/v1/files", form(data), headers=FORM)["id"]))["id"]
        place.work()
        folder = results_folder(batch, tenant)
        answered = [json.loads(line) for line in place.store.get(f"{folder}/output.jsonl").data.splitlines()]
        refused = [json.loads(line) for line in place.store.get(f"{folder}/errors.jsonl").data.splitlines()]
        assert [each["custom_id"] for each in answered] == [f"n{number}"]
        assert {each["response"]["status_code"] for each in refused} == {400}
        assert len(refused) == len(CALLERS) - 1


def test_an_answer_that_was_too_large_is_its_tenants() -> None:
    place = Place(open_store("memory://"))
    stored = StoredOutputs(Registry(place.store), enabled=True)
    for tenant in CALLERS:
        (output,) = stored.for_tenant(tenant).store_outputs({"y": tenant.encode() or b"own"}, 9_000_000).values()
        folder = tenant_folder("answers", tenant)
        assert re.fullmatch(f"{place.store.url}/{folder}/[0-9a-f]{{32}}/0", output["s3_uri"])
        for other in CALLERS:
            for path in (f"/v1/files/{output['file_id']}", f"/v1/files/{output['file_id']}/content"):
                status, said = Caller(place, other).ask("GET", path)
                assert status == (200 if other == tenant else 404)
                assert status == 200 or f"There is no file '{output['file_id']}'" in said
            status = Caller(place, other).ask("DELETE", f"/v1/files/{output['file_id']}")[0]
            assert status == (409 if other == tenant else 404)


class Counted(ObjectStore):
    """A store that notes what it is asked for."""

    def __init__(self) -> None:
        inner = open_store("memory://")
        super().__init__(inner.url, inner._store)
        self.asked: list[str] = []

    def _translate_errors(self, path: str) -> AbstractContextManager[None]:  # of every request
        self.asked.append(path)
        return super()._translate_errors(path)


@pytest.mark.parametrize(("method", "path"), BY_ID)
def test_a_foreign_id_takes_the_same_requests_as_one_that_never_was(method: str, path: str) -> None:
    """So that its time says nothing either: what is asked for lies below the caller's own folder."""
    store = Counted()
    place = Place(store)
    owner, other = Caller(place, "acme"), Caller(place, "beta")
    file = owner.make("/v1/files", form(calls(1)), headers=FORM)["id"]
    batch = owner.make("/v1/batches", order(file))["id"]
    place.work()
    upload = owner.make("/v1/uploads", announce("a", 3))["id"]
    for name in (file, upload, batch, f"file-{batch[6:]}-output", f"file-{batch[6:]}-0"):
        seen = []
        never = HEX.sub(generate_sortable_id(), name)
        for each in (name, never):
            store.asked.clear()
            body, headers = (form(b"abc", "data"), FORM) if path.endswith("parts") else (b"{}", {})
            body = order(each) if path == "/v1/batches" else body if method == "POST" else b""
            query = {"after": each} if "after" in path else None
            other.ask(method, path.partition("?")[0].format(each), body, headers=headers, query=query)
            seen.append([asked.replace(HEX.findall(each)[0], "") for asked in store.asked])
        assert seen[0] == seen[1]
        assert all("tenant=beta" in asked for asked in seen[0])


def test_an_order_that_lies_in_another_tenants_folder_is_not_answered() -> None:
    place = Place(open_store("memory://"))
    caller = Caller(place, "acme")
    batch = caller.make("/v1/batches", order(caller.make("/v1/files", form(calls(1)), headers=FORM)["id"]))["id"]
    number = batch.removeprefix("batch_")
    moved = place.store.get(f"batches/tenant=acme/{number}/order.json").data
    for folder in ("batches", "batches/tenant=beta"):
        place.store.put(f"{folder}/{number}/order.json", moved)
        target = f"{folder}/{batch}".removeprefix("batches/")
        with pytest.raises(Exception, match="is the order of tenant=acme/"):
            place.batch({"detail-type": "Pilotlight Inference", "detail": {"batch": target}}, None)
    assert not list(place.store.list_paths("outbox"))
    assert Caller(place, "beta").ask("GET", f"/v1/batches/{batch}")[0] == 404
    assert Caller(place, "").ask("GET", f"/v1/batches/{batch}")[0] == 404


def test_objects_of_a_store_from_before_tenants_stay_where_they_are() -> None:
    place = Place(open_store("memory://"))
    name = "0123456789abcdef" * 2
    old = {"id": name, "filename": "a.jsonl", "purpose": "batch", "bytes": len(calls(1)), "created_at": 1, "by": "ann"}
    place.store.put(f"uploads/{name}/file.json", json.dumps(old).encode())
    place.store.put(content_path(f"file-{name}"), calls(1))
    asked: dict[str, object] = {"id": f"batch_{name}", "endpoint": "/v2/models/double/infer"}
    asked |= {"input_file_id": f"file-{name}"}
    asked |= {"completion_window": "24h", "created_at": 1, "expires_at": 4_000_000_000, "by": "ann"}
    place.store.put(f"batches/{name}/order.json", json.dumps(asked).encode())
    event = {"detail-type": "Pilotlight Inference", "detail": {"batch": f"batch_{name}"}}
    assert f"outbox/batches/{name}/output.jsonl" in str(place.batch(event, None)["done"])
    assert place.show(f"batch_{name}")["status"] == "completed"
    assert place.ask("GET", f"/v1/files/file-{name}")[1]["filename"] == "a.jsonl"
    assert [each["id"] for each in place.ask("GET", "/v1/files")[1]["data"]] == [f"file-{name}"]
    assert Caller(place, "ann").ask("GET", f"/v1/files/file-{name}")[0] == 404
