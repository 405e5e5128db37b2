"""Files, uploads and batches as the function answers them; what the openai client makes of it is in conformance."""

import base64
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest

from functions.batch_api import uploads
from functions.batch_api.file_store import FileStore
from functions.batch_api.files import MAX_INLINE_BYTES
from functions.batch_worker import caution, file_job
from pilotlight.aws.presigned_urls import Presigner
from pilotlight.storage.object_store import DiskStore, open_store
from tests import fakes
from tests.core.local.http_client import Reply, ask
from tests.functions.batch_api.conftest import FORM, Place, calls, form


def test_a_batch_goes_through_its_states(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caution, "PART_BYTES", 400)
    ordered = place.order(calls(5))
    assert ordered["status"] == "validating"
    assert ordered["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert place.word.told == [("pilotlight.batches", ordered["id"])]
    seen: list[dict[str, Any]] = []
    inner, joined = file_job.FileJob._write, file_job.FileJob._iterate_part_bytes

    def written(*given: Any) -> Any:  # noqa: ANN401 - as it is
        after = inner(*given)
        seen.append(place.show(ordered["id"]))
        return after

    def joining(*given: Any) -> Any:  # noqa: ANN401 - as it is
        seen.append(place.show(ordered["id"]))
        return joined(*given)

    monkeypatch.setattr(file_job.FileJob, "_write", written)
    monkeypatch.setattr(file_job.FileJob, "_iterate_part_bytes", joining)
    place.work()
    assert [each["status"] for each in seen[:-1]] == ["in_progress"] * (len(seen) - 1)
    assert seen[-1]["status"] == "finalizing"
    counts = [each["request_counts"]["completed"] for each in seen]
    assert counts == sorted(counts)
    assert counts[0] < 5
    assert {each["request_counts"]["total"] for each in seen} == {5}
    done = place.show(ordered["id"])
    assert (done["status"], done["request_counts"]) == ("completed", {"total": 5, "completed": 5, "failed": 0})
    assert done["created_at"] <= done["in_progress_at"] <= done["finalizing_at"] <= done["completed_at"]
    assert done["error_file_id"] is None
    status, answer = place.ask("GET", f"/v1/files/{done['output_file_id']}")
    assert (status, answer["purpose"], answer["filename"].rpartition("_")[2]) == (200, "batch_output", "output.jsonl")


def test_refusals_stand_in_a_file_of_their_own(place: Place) -> None:
    lines = calls(2) + calls(1, custom_id="bad", body={"inputs": []}) + calls(1, custom_id="last")
    ordered = place.order(lines)
    assert place.work().endswith("is answered: outbox/batches/" + ordered["id"][6:] + "/output.jsonl.")
    done = place.show(ordered["id"])
    assert done["request_counts"] == {"total": 4, "completed": 3, "failed": 1}
    folder = f"outbox/batches/{ordered['id'][6:]}"
    said = [json.loads(line) for line in place.store.get(f"{folder}/output.jsonl").data.splitlines()]
    assert [each["custom_id"] for each in said] == ["n0", "n1", "last"]
    (refused,) = [json.loads(line) for line in place.store.get(f"{folder}/errors.jsonl").data.splitlines()]
    assert refused["custom_id"] == "bad"
    assert refused["response"]["status_code"] == 400
    assert "x" in refused["response"]["body"]["error"]
    assert len({each["id"] for each in (*said, refused)}) == 4


def test_a_batch_that_is_cancelled_stops_in_the_middle(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_job, "WATCH_S", -1.0)  # look before each line
    ordered = place.order(calls(50))
    inner, count = file_job.FileJob._add, list[int]()

    def counted(*given: Any) -> None:  # noqa: ANN401 - as it is
        inner(*given)
        count.append(1)
        if len(count) == 7:
            status, said = place.ask("POST", f"/v1/batches/{ordered['id']}/cancel")
            assert (status, said["status"]) == (200, "cancelling")

    monkeypatch.setattr(file_job.FileJob, "_add", counted)
    assert "is cancelled" in place.work()
    assert len(count) == 7
    stopped = place.show(ordered["id"])
    assert (stopped["status"], stopped["request_counts"]["completed"]) == ("cancelled", 7)
    assert stopped["cancelling_at"] <= stopped["cancelled_at"]
    kept = place.store.get(f"outbox/batches/{ordered['id'][6:]}/output.jsonl").data
    assert [json.loads(line)["custom_id"] for line in kept.splitlines()] == [f"n{number}" for number in range(7)]
    assert place.ask("POST", f"/v1/batches/{ordered['id']}/cancel")[1]["status"] == "cancelled"
    place.work()
    assert place.store.get(f"outbox/batches/{ordered['id'][6:]}/output.jsonl").data == kept


def test_a_batch_that_nobody_has_begun_is_cancelled_by_who_is_told(place: Place) -> None:
    ordered = place.order(calls(5))
    assert place.ask("POST", f"/v1/batches/{ordered['id']}/cancel")[1]["status"] == "cancelling"
    assert len(place.word.told) == 2
    place.work()
    assert place.show(ordered["id"])["status"] == "cancelled"
    assert place.show(ordered["id"])["request_counts"]["completed"] == 0


def test_a_batch_whose_file_is_gone_has_failed(place: Place) -> None:
    file = place.upload(calls(3))
    ordered = place.batch_of(file)
    place.ask("DELETE", f"/v1/files/{file}")
    assert "is not there any more" in place.work()
    failed = place.show(ordered["id"])
    assert (failed["status"], failed["errors"]["data"][0]["code"]) == ("failed", "invalid_file")


def test_what_is_done_cannot_be_cancelled(place: Place) -> None:
    ordered = place.order(calls(1))
    place.work()
    status, said = place.ask("POST", f"/v1/batches/{ordered['id']}/cancel")
    assert (status, said["error"]["type"]) == (409, "conflict_error")
    assert "is completed already" in said["error"]["message"]


def test_a_batch_expires_and_keeps_what_was_answered(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    ordered = place.batch_of(place.upload(calls(3)), completion_window="1h")
    assert ordered["expires_at"] - ordered["created_at"] == 3600
    later = time.time() + 3601
    for module in ("functions.batch_worker.inbox_file", "functions.batch_api.batches"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(time=lambda: later))
    assert place.show(ordered["id"])["status"] == "expired"
    place.work()
    expired = place.show(ordered["id"])
    assert expired["status"] == "expired"
    assert expired["expired_at"] is not None


def test_an_idempotency_key_makes_one_batch_and_one_file(place: Place) -> None:
    key = {"idempotency-key": "monday"}
    file = place.upload(calls(2), **key)
    assert place.upload(calls(2), **key) == file
    assert place.ask("POST", "/v1/files", form(calls(3)), FORM | key)[0] == 409
    first = place.batch_of(file, key)
    place.work()
    again = place.batch_of(file, key)
    assert again["id"] == first["id"]
    assert again["status"] == "completed"
    assert len(place.word.told) == 1
    status, said = place.ask("POST", "/v1/batches", {"input_file_id": file, "endpoint": "/v2/models/other/infer"}, key)
    assert (status, "was used for another request" in said["error"]["message"]) == (409, True)
    assert place.batch_of(file)["id"] != first["id"]


def test_an_order_that_nobody_could_be_told_of_is_taken_back(place: Place) -> None:
    file, key = place.upload(calls(1)), {"idempotency-key": "k"}
    place.word.away = True
    body = {"input_file_id": file, "endpoint": "/v2/models/double/infer"}
    assert place.ask("POST", "/v1/batches", body, key)[0] == 503
    assert place.ask("GET", "/v1/batches")[1]["data"] == []
    place.word.away = False
    assert place.batch_of(file, key, completion_window="24h")["status"] == "validating"
    place.work()


@pytest.mark.parametrize(
    ("lines", "codes"),
    [
        (b"", ["empty_file"]),
        (b"\n\n", ["empty_file"]),
        (b"[1]\n", ["invalid_json_line"]),
        (b'{"custom_id": "a", "url": "/v2/models/double/infer"}', ["invalid_json_line"]),
        (calls(1) + calls(2), ["duplicate_custom_id"]),
        (calls(1, method="GET"), ["invalid_method"]),
        (calls(1, url="/v2/models/double/versions/1/infer"), ["mismatched_url"]),
        (b'"' + b"x" * 6_000_001 + b'"', ["line_too_long"]),
    ],
)
def test_a_batch_that_is_wrong_is_refused_before_a_line_is_answered(
    place: Place, lines: bytes, codes: list[str]
) -> None:
    ordered = place.order(lines)
    assert "is refused" in place.work()
    failed = place.show(ordered["id"])
    assert (failed["status"], failed["output_file_id"]) == ("failed", None)
    assert [each["code"] for each in failed["errors"]["data"]] == codes
    assert failed["request_counts"]["completed"] == 0


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        ({"endpoint": "/v2/models/double/infer"}, "input_file_id"),
        ({"input_file_id": "f", "endpoint": "/invocations"}, "is not an endpoint of batches"),
        ({"input_file_id": "f", "endpoint": "/v2/models/../infer"}, "is not a"),
        ({"input_file_id": "f", "endpoint": "/v2/models/double/infer", "completion_window": "1d"}, "completion_window"),
        ({"input_file_id": "f", "endpoint": "/v2/models/double/infer", "metadata": {"a": "b" * 513}}, "metadata"),
        (b"{", "The body is not JSON"),
    ],
)
def test_an_order_that_is_wrong_is_refused_at_once(place: Place, body: Any, hint: str) -> None:  # noqa: ANN401 - any JSON
    status, said = place.ask("POST", "/v1/batches", body)
    assert (status, said["error"]["type"]) == (400, "invalid_request_error")
    assert hint in said["error"]["message"]


def test_lists_are_pages_the_newest_first(place: Place) -> None:
    made = [place.order(calls(1))["id"] for _ in range(5)]
    seen, last = list[str](), ""
    while True:
        _, page = place.ask("GET", "/v1/batches", query={"limit": "2"} | ({"after": last} if last else {}))
        seen += [each["id"] for each in page["data"]]
        last = page["last_id"]
        if not page["has_more"]:
            break
    assert seen == sorted(made, reverse=True)
    newest, oldest = (place.ask("GET", "/v1/files", query={"order": order})[1]["data"] for order in ("desc", "asc"))
    assert (len(newest), newest) == (5, oldest[::-1])
    assert place.ask("GET", "/v1/files")[1]["data"] == newest
    assert place.ask("GET", "/v1/files", query={"order": "size"})[0] == 400
    assert place.ask("GET", "/v1/files", query={"purpose": "vision"})[1]["data"] == []
    assert place.ask("GET", "/v1/batches", query={"limit": "0"})[0] == 400
    assert place.ask("GET", "/v1/batches", query={"limit": "x"})[0] == 400


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{}", {"content-type": "application/json"}, 415),
        (form(b"x")[:-30], FORM, 400),
        (form(b"x", "data"), FORM, 400),
        (form(b"x", purpose=""), FORM, 400),
        (b"", FORM, 400),
    ],
)
def test_a_form_that_is_wrong_is_refused(place: Place, body: bytes, headers: dict[str, str], status: int) -> None:
    assert place.ask("POST", "/v1/files", body, headers)[0] == status


def test_a_large_file_is_fetched_in_ranges_where_nobody_can_be_sent_elsewhere(tmp_path: Path) -> None:
    place = Place(open_store(str(tmp_path / "store")))
    assert isinstance(place.store, DiskStore)
    data = bytes(range(256)) * (MAX_INLINE_BYTES // 256 + 100)
    file = place.upload(data)
    status, said = place.ask("GET", f"/v1/files/{file}/content")
    assert (status, f"Range: bytes=0-{MAX_INLINE_BYTES - 1}" in said["error"]["message"]) == (413, True)
    got, place_ = b"", 0
    while place_ < len(data):
        status, answer = place.ask("GET", f"/v1/files/{file}/content", headers={"range": f"bytes={place_}-"})
        assert (status, answer["headers"]["content-type"]) == (206, "application/octet-stream")
        got += base64.b64decode(answer["body"])
        place_ = len(got)
    assert got == data
    assert answer["headers"]["content-range"].endswith(f"/{len(data)}")
    assert place.ask("GET", f"/v1/files/{file}/content", headers={"range": f"bytes={len(data)}-"})[0] == 400


def test_an_upload_in_parts_is_what_was_announced_or_nothing(place: Place) -> None:
    asked = {"filename": "a.bin", "bytes": 6, "purpose": "user_data", "mime_type": "x"}
    _, upload = place.ask("POST", "/v1/uploads", asked)
    assert (upload["status"], upload["presigned"]) == ("pending", None)
    to = f"/v1/uploads/{upload['id']}/parts"
    parts = [place.ask("POST", to, form(data, "data"), FORM)[1]["id"] for data in (b"def", b"abc")]
    complete = f"/v1/uploads/{upload['id']}/complete"
    assert place.ask("POST", complete, {"part_ids": parts[:1]})[0] == 400
    assert place.ask("POST", complete, {"part_ids": ["part_" + "0" * 32]})[0] == 400
    assert place.ask("POST", complete, {"part_ids": ["../x"]})[0] == 400
    assert place.ask("POST", complete, {"part_ids": parts[::-1], "md5": "0" * 32})[0] == 400
    assert place.ask("GET", "/v1/files")[1]["data"] == []
    status, done = place.ask("POST", complete, {"part_ids": parts[::-1]})
    assert (status, done["status"], done["file"]["bytes"]) == (200, "completed", 6)
    assert place.store.get(place.path(done["file"]["s3_uri"])).data == b"abcdef"
    assert not list(place.store.list_paths(f"uploads/{upload['id'][7:]}/parts"))
    assert place.ask("POST", "/v1/uploads/upload_1/complete", {})[0] == 404


def test_what_has_become_a_file_stays_one(place: Place) -> None:
    """A client that lost the answer asks again; one that gives up too late is told so, and loses nothing."""
    _, upload = place.ask("POST", "/v1/uploads", {"filename": "a.bin", "bytes": 3, "purpose": "user_data"})
    to = f"/v1/uploads/{upload['id']}"
    part = place.ask("POST", f"{to}/parts", form(b"abc", "data"), FORM)[1]["id"]
    _, done = place.ask("POST", f"{to}/complete", {"part_ids": [part]})
    assert place.ask("POST", f"{to}/complete", {"part_ids": [part]}) == (200, done)
    for path, body, headers in ((f"{to}/cancel", {}, {}), (f"{to}/parts", form(b"xyz", "data"), FORM)):
        status, said = place.ask("POST", path, body, headers)
        assert (status, f"its file is {done['file']['id']}" in said["error"]["message"]) == (409, True)
    assert place.store.get(place.path(done["file"]["s3_uri"])).data == b"abc"


def test_an_upload_can_be_given_up(place: Place) -> None:
    _, upload = place.ask("POST", "/v1/uploads", {"filename": "a", "bytes": 3, "purpose": "batch"})
    place.ask("POST", f"/v1/uploads/{upload['id']}/parts", form(b"abc", "data"), FORM)
    assert place.ask("POST", f"/v1/uploads/{upload['id']}/complete", {"part_ids": []})[0] == 400
    place.store.put(f"uploads/{upload['id'][7:]}/content", b"too much")  # by its presigned URL, say
    assert place.ask("POST", f"/v1/uploads/{upload['id']}/cancel")[1]["status"] == "cancelled"
    assert list(place.store.list_paths("uploads")) == [f"uploads/{upload['id'][7:]}/file.json"]  # that it was
    assert place.ask("POST", f"/v1/uploads/{upload['id']}/complete", {})[0] == 404
    assert place.ask("GET", "/v1/files")[1]["data"] == []


def test_bytes_go_straight_to_the_bucket_and_come_from_there(bucket_url: str) -> None:
    place = Place(open_store(bucket_url), bucket_url)
    data = calls(40_000)
    assert len(data) > MAX_INLINE_BYTES
    _, upload = place.ask("POST", "/v1/uploads", {"filename": "a.jsonl", "bytes": len(data), "purpose": "batch"})
    signed = upload["presigned"]
    assert "content-length" in signed["url"].lower()
    assert place.ask("POST", f"/v1/uploads/{upload['id']}/complete", {})[0] == 400
    assert followed("PUT", signed["url"], data, signed["headers"]).status == 200
    _, done = place.ask("POST", f"/v1/uploads/{upload['id']}/complete", {})
    assert done["file"]["s3_uri"] == f"{place.store.url}/uploads/{upload['id'][7:]}/content"
    status, answer = place.ask("GET", f"/v1/files/{done['file']['id']}/content")
    assert status == 302
    assert followed("GET", answer["headers"]["location"]).body == data


def test_a_presigned_url_writes_once_and_changes_no_file(bucket_url: str) -> None:
    """The URL lives for an hour: it may be used after the upload is complete, and after the file is deleted."""
    place = Place(open_store(bucket_url), bucket_url)
    data, other = calls(2), calls(2, custom_id="another")
    other = other[: len(data)].ljust(len(data))
    upload = place.ask("POST", "/v1/uploads", {"filename": "a", "bytes": len(data), "purpose": "batch"})[1]
    signed, complete = upload["presigned"], f"/v1/uploads/{upload['id']}/complete"
    assert signed["headers"] == {"content-length": str(len(data)), "if-none-match": "*"}
    assert "if-none-match" in signed["url"]  # is signed, so that it cannot be left out
    assert followed("PUT", signed["url"], data, signed["headers"]).status == 200
    assert followed("PUT", signed["url"], other, signed["headers"]).status == 412
    file = place.ask("POST", complete, {})[1]["file"]["id"]
    ordered = place.batch_of(file)
    assert followed("PUT", signed["url"], other, signed["headers"]).status == 412
    assert base64.b64decode(place.ask("GET", f"/v1/files/{file}/content")[1]["body"]) == data
    place.work()
    assert place.show(ordered["id"])["request_counts"]["completed"] == 2
    late = place.batch_of(file)
    place.ask("DELETE", f"/v1/files/{file}")
    assert followed("PUT", signed["url"], other, signed["headers"]).status == 200  # nothing is there any more
    assert "is not there any more" in place.work()
    assert place.show(late["id"])["status"] == "failed"
    assert place.ask("GET", f"/v1/files/{file}")[0] == 404
    assert place.ask("POST", complete, {})[0] == 404


def test_bytes_that_are_replaced_behind_a_file_are_not_answered(place: Place) -> None:
    """By a store that takes a signed condition for none: the state that was complete is the one that is read."""
    ordered = place.order(calls(2))
    place.store.put(f"uploads/{ordered['input_file_id'][5:]}/content", calls(2, custom_id="other"))
    assert "is not there any more" in place.work()
    assert place.show(ordered["id"])["status"] == "failed"


def test_bytes_that_are_replaced_while_a_batch_runs_end_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caution, "PART_BYTES", 400)
    ordered = place.order(calls(5))
    path, inner = f"uploads/{ordered['input_file_id'][5:]}/content", file_job.FileJob._answer_parts

    def replaced(*given: Any) -> Any:  # noqa: ANN401 - as it is
        place.store.put(path, calls(5, custom_id="other"))
        return inner(*given)

    monkeypatch.setattr(file_job.FileJob, "_answer_parts", replaced)
    assert "is not there any more" in place.work()
    assert place.show(ordered["id"])["status"] == "failed"


def test_a_file_that_is_deleted_while_its_batch_runs_ends_the_batch(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordered = place.order(calls(5))
    inner = file_job.FileJob._answer_parts

    def deleted(*given: Any) -> Any:  # noqa: ANN401 - as it is
        assert place.ask("DELETE", f"/v1/files/{ordered['input_file_id']}")[0] == 200
        return inner(*given)

    monkeypatch.setattr(file_job.FileJob, "_answer_parts", deleted)
    assert "is not there any more" in place.work()
    assert place.show(ordered["id"])["status"] == "failed"
    monkeypatch.undo()
    for step in ("split", "answer", "join"):  # as the state machine would try again
        said = place.batch({"step": step, "job": ordered["id"]}, None)
        assert said == {"done": True, "said": said["said"]} if step != "split" else said["spans"] == 0


def test_a_batch_that_has_ended_stays_so_when_its_file_goes(place: Place) -> None:
    """Its event may be delivered twice, and hours later."""
    ordered = place.order(calls(2))
    place.work()
    place.ask("DELETE", f"/v1/files/{ordered['input_file_id']}")
    assert "answered already" in place.work()
    assert place.show(ordered["id"])["status"] == "completed"
    assert place.ask("GET", f"/v1/files/{place.show(ordered['id'])['output_file_id']}/content")[0] == 200


def test_an_answer_is_no_input_of_a_batch(place: Place) -> None:
    ordered = place.order(calls(1))
    place.work()
    output = place.show(ordered["id"])["output_file_id"]
    status, said = place.ask("POST", "/v1/batches", {"input_file_id": output, "endpoint": "/v2/models/double/infer"})
    assert (status, "is an answer" in said["error"]["message"]) == (400, True)


def test_a_cancellation_whose_event_was_lost_is_repeated(place: Place) -> None:
    ordered = place.order(calls(2))
    place.word.away = True
    assert place.ask("POST", f"/v1/batches/{ordered['id']}/cancel")[0] == 503
    place.word.away, told = False, len(place.word.told)
    assert place.ask("POST", f"/v1/batches/{ordered['id']}/cancel")[1]["status"] == "cancelling"
    assert len(place.word.told) == told + 1
    place.work()
    assert place.show(ordered["id"])["status"] == "cancelled"


def begin(place: Place, *parts: bytes) -> tuple[str, list[str]]:
    """An upload that is announced and whose parts are sent: its route, and their ids."""
    asked = {"filename": "a", "bytes": sum(map(len, parts)), "purpose": "user_data"}
    to = f"/v1/uploads/{place.ask('POST', '/v1/uploads', asked)[1]['id']}"
    return to, [place.ask("POST", f"{to}/parts", form(data, "data"), FORM)[1]["id"] for data in parts]


def test_parts_are_counted_before_any_is_read() -> None:
    place = Place(fakes.FaultyStore())
    to, parts = begin(place, b"abc", b"def")
    unknown = [f"part_{number:032x}" for number in range(9_998)]
    store = place.store
    assert isinstance(store, fakes.FaultyStore)
    store.reads.clear()
    for named, hint in [
        ([parts[0]] * 20_000, "at most 10000 items"),
        ([parts[0]] * 20_001, "A list in the body has 20,001 items"),
        ([parts[0]] * 2, "is named twice"),
        ([*parts, *unknown], "9,998 are not there"),
        (parts[:1], "The parts have 3 bytes, but 6 were announced"),
        ([*parts, "part_" + "0" * 31], "should match pattern"),
        (["x"] * 9_000, "; and 8,990 more"),
    ]:
        status, said = place.ask("POST", f"{to}/complete", {"part_ids": named})
        assert (status in (400, 413), hint in said["error"]["message"]) == (True, True), said
        assert len(said["error"]["message"]) < 2000
    assert not [path for path in store.reads if "/parts/" in path]
    assert not [path for path in store.list_paths("uploads") if "/content" in path]
    assert place.ask("POST", f"{to}/complete", {"part_ids": parts})[0] == 200


def test_an_upload_of_too_many_parts_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_UPLOAD_PARTS", 3)
    to, parts = begin(place, b"a", b"b", b"c", b"d")
    status, said = place.ask("POST", f"{to}/complete", {"part_ids": parts})
    assert (status, "more than 3 parts" in said["error"]["message"]) == (413, True)
    assert place.ask("POST", f"{to}/cancel")[1]["status"] == "cancelled"


def test_of_two_that_complete_an_upload_at_once_one_counts(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    to, parts = begin(place, b"abc", b"def")
    inner, seen = uploads.UploadEndpoints._check_content, list[Any]()

    def overtaken(*given: Any) -> str:  # noqa: ANN401 - as it is
        if not seen:
            seen.append(None)
            seen[0] = place.ask("POST", f"{to}/complete", {"part_ids": parts[::-1]})
        return inner(*given)

    monkeypatch.setattr(uploads.UploadEndpoints, "_check_content", overtaken)
    assert place.ask("POST", f"{to}/complete", {"part_ids": parts}) == seen[0]
    file = seen[0][1]["file"]
    assert place.store.get(place.path(file["s3_uri"])).data == b"defabc"
    kept = [path.rpartition("/")[2] for path in place.store.list_paths("uploads")]
    assert sorted(kept) == sorted(["upload.json", "file.json", file["s3_uri"].rpartition("/")[2]])


@pytest.mark.parametrize("first", ["complete", "cancel"])
def test_of_two_that_end_an_upload_at_once_one_is_told(
    first: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one comes in between, after the first has looked and before it writes."""
    to, parts = begin(place, b"abc")
    second = {"complete": "cancel", "cancel": "complete"}[first]
    inner, seen = FileStore.end_upload, list[Any]()

    def overtaken(*given: Any) -> Any:  # noqa: ANN401 - as it is
        if not seen:
            seen.append(None)
            seen[0] = place.ask("POST", f"{to}/{second}", {"part_ids": parts})
        return inner(*given)

    monkeypatch.setattr(FileStore, "end_upload", overtaken)
    status, said = place.ask("POST", f"{to}/{first}", {"part_ids": parts})
    assert (seen[0][0], status) == (200, 409), said
    files = place.ask("GET", "/v1/files")[1]["data"]
    assert len(files) == (second == "complete")
    assert all(place.ask("GET", f"/v1/files/{file['id']}/content")[0] == 200 for file in files)


def test_a_file_that_is_deleted_stays_so_for_who_completes_it_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    to, parts = begin(place, b"abc")
    assert place.ask("POST", f"{to}/complete", {"part_ids": parts})[0] == 200
    file = to.rpartition("/")[2].replace("upload_", "file-")
    inner, seen = FileStore.end_upload, list[int]()

    def overtaken(this: FileStore, fresh: Any) -> Any:  # noqa: ANN401 - as it is
        seen.append(place.ask("DELETE", f"/v1/files/{file}")[0])
        return inner(this, fresh)

    monkeypatch.setattr(FileStore, "end_upload", overtaken)
    monkeypatch.setattr(uploads.UploadEndpoints, "_read_end", lambda *_: None)  # it looked before
    monkeypatch.setattr(uploads.UploadEndpoints, "_check_content", lambda *_: "an e_tag")
    place.store.put(f"uploads/{file[5:]}/content", b"abc")
    assert place.ask("POST", f"{to}/complete", {})[0] == 404
    assert seen == [200]
    assert place.ask("GET", f"/v1/files/{file}")[0] == 404
    assert not [path for path in place.store.list_paths("uploads") if path.endswith(".json")]


def test_a_repeated_upload_with_its_key_leaves_the_bytes_as_they_are(place: Place) -> None:
    key = {"idempotency-key": "monday"}
    file = place.upload(calls(2), **key)
    before = place.store.get_size_and_e_tag(f"uploads/{file[5:]}/content")
    ordered = place.batch_of(file)
    assert place.upload(calls(2), **key) == file
    assert place.store.get_size_and_e_tag(f"uploads/{file[5:]}/content") == before
    place.work()
    assert place.show(ordered["id"])["status"] == "completed"


def test_an_upload_that_was_given_up_is_told_so_to_who_repeats_its_announcement(place: Place) -> None:
    asked, key = {"filename": "a", "bytes": 3, "purpose": "batch"}, {"idempotency-key": "k"}
    upload = place.ask("POST", "/v1/uploads", asked, key)[1]
    place.ask("POST", f"/v1/uploads/{upload['id']}/cancel")
    again = place.ask("POST", "/v1/uploads", asked, key)[1]
    assert (again["id"], again["status"], again["presigned"]) == (upload["id"], "cancelled", None)


def followed(method: str, url: str, data: bytes | None = None, headers: dict[str, str] | None = None) -> Reply:
    """What somebody without credentials is answered at a signed URL."""
    parts = urlsplit(url)
    return ask(f"{parts.scheme}://{parts.netloc}", method, f"{parts.path}?{parts.query}", data, headers)


def test_a_signature_names_one_key_of_one_bucket() -> None:
    assert Presigner.from_store_url("memory://") is None
    assert Presigner.from_store_url("/a/folder") is None
    found = Presigner.from_store_url("s3://bucket/prefix?endpoint=http://127.0.0.1:9")
    assert found is not None
    assert (found._bucket, found._prefix, found._endpoint) == ("bucket", "prefix", "http://127.0.0.1:9")


def test_files_are_deleted_but_not_results(place: Place) -> None:
    ordered = place.order(calls(1))
    place.work()
    done = place.show(ordered["id"])
    assert place.ask("DELETE", f"/v1/files/{done['output_file_id']}")[0] == 409
    assert place.ask("DELETE", f"/v1/files/{done['input_file_id']}")[1]["deleted"]
    assert place.ask("GET", f"/v1/files/{done['input_file_id']}")[0] == 404
    assert place.ask("GET", f"/v1/files/{done['output_file_id']}/content")[0] == 200


@pytest.mark.parametrize(
    "name", ["file-1", "file-../x", "batch_1", "file-" + "0" * 32, "file-" + "0" * 32 + "-output", ""]
)
def test_what_is_no_file_is_not_there(place: Place, name: str) -> None:
    status, said = place.ask("GET", f"/v1/files/{name}/content")
    assert (status, said["error"]["type"]) == (404, "invalid_request_error")


def test_a_wrong_verb_is_answered_with_the_right_one(place: Place) -> None:
    status, said = place.ask("PUT", "/v1/files", b"x")
    assert (status, "use POST, GET" in said["error"]["message"]) == (405, True)


def test_a_body_of_another_form_is_named_in_words(place: Place) -> None:
    announced = place.ask("POST", "/v1/uploads", {"filename": "a", "purpose": "batch", "bytes": 3})[1]["id"]
    complete = f"/v1/uploads/{announced}/complete"
    wrong = {
        "/v1/batches": ("NewBatch", "endpoint"),
        "/v1/uploads": ("NewUpload", "bytes"),
        complete: ("Complete", "md5"),
    }
    for path, (what, field) in wrong.items():
        status, said = place.ask("POST", path, {field: []})
        assert (status, said["error"]["message"].partition(":")[0]) == (400, f"The body is no {what}")
        assert f"$.{field}: Input should be a valid " in said["error"]["message"]


def test_documents_that_are_not_there_or_do_not_read(place: Place) -> None:
    name = "0" * 32
    missing = {
        f"/v1/batches/batch_{name}": f"There is no batch 'batch_{name}'; GET /v1/batches lists them.",
        f"/v1/files/file-{name}": f"There is no file 'file-{name}'; GET /v1/files lists them.",
        f"/v1/uploads/upload_{name}/cancel": f"There is no upload 'upload_{name}'; POST /v1/uploads begins one.",
    }
    broken = {
        f"/v1/batches/batch_{name}": (f"batches/{name}/order.json", "BatchRequest"),
        f"/v1/files/file-{name}": (f"uploads/{name}/file.json", "Upload"),
        f"/v1/uploads/upload_{name}/cancel": (f"uploads/{name}/upload.json", "Upload"),
    }
    for path, text in missing.items():
        method = "POST" if path.endswith("cancel") else "GET"
        status, said = place.ask(method, path)
        assert (status, said["error"]["message"]) == (404, text)
        key, kind = broken[path]
        place.store.put(key, b"[]")
        status, said = place.ask(method, path)
        assert (status, said["error"]["message"]) == (503, f"{key} is not a {kind}: Expected `object`, got `array`.")


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('filename="a.jsonl"', "a.jsonl"),
        ("filename*=UTF-8''%C5%BElu%C5%A5%20b.jsonl", "žluť b.jsonl"),
        ("filename=\"zlut.jsonl\"; filename*=utf-8'cs'%C5%BElu%C5%A5.jsonl", "žluť.jsonl"),
        ("filename*=iso-8859-1''%A3.jsonl", "£.jsonl"),
        ('filename="=?UTF-8?B?xb5sdcWlLmpzb25s?="', "žluť.jsonl"),
        ('filename="=?utf-8?Q?=C5=BElu=C5=A5.jsonl?="', "žluť.jsonl"),
        ('filename="žluť 日本 👩\u200d💻 10.32.07\u202fAM.jsonl"', "žluť 日本 👩\u200d💻 10.32.07\u202fAM.jsonl"),
        ('filename="u\u0308ber+%.jsonl"', "u\u0308ber+%.jsonl"),
        ('filename="C:\\Users\\new\\a.jsonl"', "a.jsonl"),
        ('filename="../../etc/passwd"', "passwd"),
        ('filename="a%22b.jsonl"', 'a"b.jsonl'),
        ("filename=a.jsonl", "a.jsonl"),
        ('filename=""', "file"),
    ],
)
def test_a_file_keeps_its_name_however_it_is_written(place: Place, disposition: str, name: str) -> None:
    status, found = upload_as(place, disposition.encode())
    assert (status, found["filename"]) == (200, name)
    assert place.ask("GET", f"/v1/files/{found['id']}")[1]["filename"] == name


def test_a_name_in_a_western_charset(place: Place) -> None:
    status, found = upload_as(place, 'filename="Müller.jsonl"'.encode("latin-1"))
    assert (status, found["filename"]) == (200, "Müller.jsonl")


@pytest.mark.parametrize(
    ("disposition", "says"),
    [
        ('filename="a\x00b"', "has a control character"),
        ("filename*=UTF-8''a%0Ab", "has a control character"),
        ("filename*=UTF-8''%FF.jsonl", "does not decode"),
        ("filename*=klingon''a", "does not decode"),
        ('filename="=?klingon?B?eA==?="', "does not decode"),
    ],
)
def test_a_name_that_is_none_is_told(place: Place, disposition: str, says: str) -> None:
    status, said = upload_as(place, disposition.encode())
    assert (status, says in said["error"]["message"]) == (400, True)


def test_a_form_whose_fields_are_not_utf_8_is_read(place: Place) -> None:
    status, found = upload_as(place, b'filename="a.jsonl"', purpose=b"M\xfcller")
    assert (status, found["purpose"]) == (200, "Müller")


def upload_as(place: Place, disposition: bytes, purpose: bytes = b"batch") -> tuple[int, Any]:
    head = b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n' + purpose
    file = b'\r\n--b\r\nContent-Disposition: form-data; name="file"; ' + disposition + b"\r\n\r\n{}\r\n--b--\r\n"
    return place.ask("POST", "/v1/files", head + file, {"content-type": "multipart/form-data; boundary=b"})


def test_a_body_may_begin_with_a_byte_order_mark(place: Place) -> None:
    mark = "\ufeff".encode()
    body = mark + b'{"filename": "a", "purpose": "batch", "bytes": 3}'
    assert place.ask("POST", "/v1/uploads", body)[0] == 200
    ordered = place.order(mark + calls(2))
    place.work()
    assert place.show(ordered["id"])["status"] == "completed"


@pytest.mark.parametrize("name", ["nothing", f"upload_{'0' * 32}"])
@pytest.mark.parametrize("what", ["parts", "complete", "cancel"])
def test_an_upload_that_there_is_not_is_called_an_upload(place: Place, name: str, what: str) -> None:
    is_part = what == "parts"
    sent = form(b"x", "data") if is_part else b'{"part_ids": []}'
    status, said = place.ask("POST", f"/v1/uploads/{name}/{what}", sent, FORM if is_part else {})
    assert (status, said["error"]["message"]) == (404, f"There is no upload {name!r}; POST /v1/uploads begins one.")
