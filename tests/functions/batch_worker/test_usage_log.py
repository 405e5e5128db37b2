"""What is noted of messages and files: one id from sender to result, a price, and no byte of what was asked."""

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from functions.batch_worker import caution, file_job
from functions.batch_worker.file_handler import FileHandler
from functions.batch_worker.handler import BatchWorker
from functions.batch_worker.inbox_file import parse_inbox_uri
from functions.batch_worker.usage_log import BatchUsageLog
from pilotlight.api.call_cost import CostMeter
from pilotlight.api.usage_log import UsageLog
from pilotlight.costs.usage_report import build_usage_report
from pilotlight.observability import correlation, emf
from tests import fakes
from tests.core.observability.test_emf import directives
from tests.functions.batch_worker.conftest import Place
from tests.functions.batch_worker.test_message_handler import BODY, record

Written = Callable[[], str]


class Noted(Place):
    """A place whose function keeps books."""

    def environment(self) -> BatchWorker:
        plain = super().environment()
        books = BatchUsageLog(CostMeter(1769, {}), UsageLog(60))
        return BatchWorker(
            plain._message_handler,
            FileHandler(self.store, plain._message_handler.predictor, self.post, usage_log=books),
            self.post,
            books,
        )


@pytest.fixture
def place() -> Noted:
    found = Noted(fakes.FaultyStore())
    fakes.publish(found.registry)
    return found


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    """The log's lines of calls since the last look."""
    lines: list[str] = []
    kept = logging.getLogRecordFactory()
    monkeypatch.setattr(emf, "write_line", lines.append)
    monkeypatch.setattr(emf, "FUNCTION", "Batch")
    correlation.install_log_record_factory()

    def taken() -> str:
        text = "".join(lines)
        lines.clear()
        return text

    yield taken
    logging.setLogRecordFactory(kept)
    correlation.set_correlation_id("")


def each(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_message_has_one_id_from_its_sender_to_its_answer_and_its_log(
    place: Noted, written: Written, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = record("a", BODY, correlation_id="order-17"), record("b", {"inputs": 471147}, correlation_id="order-18")
    good["attributes"]["SenderId"] = bad["attributes"]["SenderId"] = "AIDA1"
    assert place.handle({"Records": [good, bad]}, None) == {"batchItemFailures": [{"itemIdentifier": "b"}]}
    assert place.document("messages/a.json")["parameters"] == {"correlation_id": "order-17"}
    first, second = each(written())
    assert [(line["status"], line["correlation_id"], line["request"]) for line in (first, second)] == [
        (200, "order-17", "a"),
        (400, "order-18", "b"),
    ]
    assert (first["tenant"], first["model"], first["version"], first["route"]) == ("AIDA1", "double", "1", "queue")
    assert {"LoadMs", "DecodeMs", "InferMs", "StoreMs"} <= set(directives(first)[1][0])
    assert second["ClientErrors"] == 1
    (failure,) = [line for line in caplog.records if line.levelname == "ERROR"]
    assert vars(failure)["correlation_id"] == "order-18"
    assert "471147" not in json.dumps(second) + caplog.text


def test_messages_of_one_invocation_share_its_fee(place: Noted, written: Written) -> None:
    place.handle({"Records": [record(str(key), BODY) for key in range(10)]}, None)
    lines = each(written())
    assert sum(line["calls"] for line in lines) == 10  # all of them, though a busy function holds its lines
    fees = [line["usd"] - line["gb_seconds"] * 0.0000166667 for line in lines[1:]]
    assert sum(fees) == pytest.approx(0.9 * 0.2e-6, abs=0.2e-7)  # but for what rounding takes


def test_a_file_has_the_id_of_its_upload_and_a_line_for_each_part(
    place: Noted, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caution, "PART_BYTES", 300)
    text = json.dumps(BODY).encode() + b"\n"
    place.store.put("inbox/monday.jsonl", (text * 3 + b"{\n") * 3)
    detail = {"bucket": {"name": "b"}, "object": {"key": "inbox/monday.jsonl"}, "requester": "me", "request-id": "R1"}
    monkeypatch.setattr(place.store, "url", "s3://b")
    place.handle({"detail-type": "Object Created", "id": "e-1", "detail": detail}, None)
    assert place.document("monday/manifest.json")["correlation"] == "R1"
    assert place.document("monday/progress.json")["correlation"] == "R1"
    lines = each(written())
    assert sum(line.get("LinesAnswered", 0) for line in lines) == 9
    assert sum(line.get("LinesFailed", 0) for line in lines) == 3
    assert {(line["tenant"], line["correlation_id"]) for line in lines} == {("me", "R1")}
    assert all(directives(line) for line in lines)
    assert len(lines) > 2
    bill = build_usage_report("\n".join(json.dumps(line) for line in lines))
    assert {(account.model, account.calls, account.failed) for account in bill.accounts} == {
        ("double", 9, 0),
        ("-", 3, 3),
    }


def test_another_invocation_goes_on_under_the_same_id(place: Noted, written: Written) -> None:
    place.store.put("inbox/monday.jsonl", json.dumps(BODY).encode())
    uri = f"{place.store.url}/inbox/monday.jsonl"
    found = parse_inbox_uri(place.store.url, uri)
    file_job.FileJob(
        place.store, place.handle._message_handler.predictor, found, 0.0, origin=("me", "R1")
    ).load_or_create_progress()
    assert place.tell(uri).startswith("inbox/monday.jsonl is answered")
    assert place.document("monday/manifest.json")["correlation"] == "R1"
    assert each(written())[0]["tenant"] == "me"
