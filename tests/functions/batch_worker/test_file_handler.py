"""What becomes of files of the inbox: every line is answered once, whatever dies on the way."""

import gzip
import hashlib
import io
import json
import time
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import hypothesis.strategies as st
import numpy as np
import pytest
import soundfile
from hypothesis import example, given
from msgspec.structs import replace
from PIL import Image as Pillow

from functions.batch_worker import caution, file_job, handler, record_reader
from functions.batch_worker.inbox_file import InboxFile, name_results, parse_inbox_uri
from functions.batch_worker.inputs import BYTE_ORDER_MARK
from pilotlight.api.request_context import RequestContext
from pilotlight.contracts.batch import BatchRequest, FileProgress
from pilotlight.contracts.codec import encode_document
from pilotlight.contracts.manifest import TensorSpec
from pilotlight.contracts.processing import (
    AudioPreprocessing,
    ConstantInput,
    DetectionPostprocessing,
    ImagePreprocessing,
    StateInput,
    TableColumn,
    TablePreprocessing,
)
from pilotlight.errors import InvalidInputError, NotFoundError, StoreError, UnavailableError
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.core.processing.test_text import tokenizer_with
from tests.functions.batch_worker.conftest import Place
from tests.functions.predict.test_hostile_inputs import publish_text
from tests.load import file as load


def body(number: float) -> bytes:
    x = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [number, 0, 1]}
    return json.dumps({"id": str(number), "inputs": [x]}).encode()


def jsonl(count: int) -> bytes:
    return b"".join(body(number) + b"\n" for number in range(count))


def test_every_line_is_answered_or_says_what_is_wrong(place: Place) -> None:
    data = b"\n".join(
        [b"\xef\xbb\xbf" + body(0), b"{", b"", b'{"x": [1, 2, 3]}\r', b"[4, 5, 6]", b"[4]", b"\xff", body(7)]
    )
    assert place.upload("double/a.jsonl", data) == "inbox/double/a.jsonl is answered: outbox/double/a.jsonl."
    said = place.result("double/a.jsonl")
    assert [each["line"] for each in said] == [1, 2, 4, 5, 6, 7, 8]
    assert [each["outputs"][0]["data"] for each in said if "outputs" in each] == [
        [0, 0, 2], [2, 4, 6], [8, 10, 12], [14, 0, 2],
    ]  # fmt: skip
    manifest = place.document("double/a/manifest.json")
    assert (manifest["lines"], manifest["answered"], manifest["failed"]) == (7, 4, 3)
    assert [each["line"] for each in manifest["errors"]] == [2, 6, 7]
    assert manifest["errors"] == [each for each in said if "error" in each]
    assert manifest["sha256"] == hashlib.sha256(data).hexdigest()
    assert manifest["versions"] == ["double:1"]


def test_a_recorded_event_of_s3_is_answered(bucket_url: str) -> None:
    place = Place(open_store(bucket_url))
    fakes.publish_digits(place.registry)
    event = json.loads((Path(__file__).parents[2] / "events" / "batch-created.json").read_text())
    bucket, prefix = bucket_url.removeprefix("s3://").split("/", 1)
    event["detail"]["bucket"]["name"] = bucket
    event["detail"]["object"]["key"] = f"{prefix}/inbox/digits/monday and ümlaut.jsonl"
    images, labels = fakes.digits()
    x = {"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32"}
    asked = [json.dumps({"inputs": [x | {"data": image.ravel().tolist()}]}) for image in images[:20]]
    place.store.put("inbox/digits/monday and ümlaut.jsonl", "\n".join(asked).encode())
    place.handle(event, None)
    said = [np.argmax(each["outputs"][0]["data"]) for each in place.result("digits/monday and ümlaut.jsonl")]
    assert said == labels[:20]
    assert place.document("digits/monday and ümlaut/manifest.json")["answered"] == 20


def test_a_recorded_notification_of_s3_is_answered(bucket_url: str) -> None:
    """Of a bucket that tells the function itself: its keys are encoded, those of EventBridge are not."""
    place = Place(open_store(bucket_url))
    fakes.publish(place.registry)
    event = json.loads((Path(__file__).parents[2] / "events" / "batch-notified.json").read_text())
    (record,) = event["Records"]
    bucket, prefix = bucket_url.removeprefix("s3://").split("/", 1)
    record["s3"]["bucket"]["name"] = bucket
    record["s3"]["object"]["key"] = f"{prefix}/{record['s3']['object']['key']}"
    name = "digits/monday and ümlaut+1"
    place.store.put(f"inbox/{name}.jsonl", jsonl(3))
    assert place.handle(event, None) == {"done": [f"inbox/{name}.jsonl is answered: outbox/{name}.jsonl."]}
    assert len(place.result(f"{name}.jsonl")) == 3


@pytest.mark.parametrize(
    "name",
    [
        "a b", "a+b", "ü", "a%20b", "a#b", "a?b", "a~b", "a*b", "{a}", 'a"b', "a&b=c", "日本", "a:b", "a'b", "a%b",
        "Screenshot 10.32.07\u202fAM", "u\u0308ber", "👩\u200d💻", "a\u00a0b", "\ufeffa", "מ\u200fb", "\uf022a",
        "-a", "a.", " a ", "a;b", "$(a)", "<a>", "a|b", "a^`b", "a@b,c", "\uff41", "\U0001fae9", "%00", "a\u00adb",
        "CON", "\u3000a", "a\\b", "日" * 70, "a" * 229,
    ],
)  # fmt: skip
def test_a_file_may_have_any_name(name: str, bucket_url: str, tmp_path: Path) -> None:
    for store in (open_store(bucket_url), open_store(str(tmp_path / "store"))):
        place = Place(store)
        fakes.publish(place.registry)
        assert place.upload(f"double/{name}.jsonl", jsonl(2)) == (
            f"inbox/double/{name}.jsonl is answered: outbox/double/{name}.jsonl."
        )
        assert [each["line"] for each in place.result(f"double/{name}.jsonl")] == [1, 2]
        assert place.document(f"double/{name}/manifest.json")["answered"] == 2


@pytest.mark.parametrize(
    "name",
    ["日" * 79, "a" * 245, *("/".join(["b" * 200] * 4) + "/" + "c" * size for size in (95, 130, 180))],
)
def test_a_file_whose_name_leaves_no_room_is_answered_under_its_hash(
    name: str, bucket_url: str, tmp_path: Path
) -> None:
    """A key of S3 has 1,024 bytes, a name on a disk 255; parts and manifest need some of both."""
    for store in (open_store(bucket_url), open_store(str(tmp_path / "store"))):
        place = Place(store)
        fakes.publish(place.registry)
        path = f"inbox/double/{name}.jsonl"
        result = f"long-names/{hashlib.sha256(path.encode()).hexdigest()}"
        assert place.upload(f"double/{name}.jsonl", jsonl(2)) == f"{path} is answered: outbox/{result}.jsonl."
        assert [each["line"] for each in place.result(f"{result}.jsonl")] == [1, 2]
        assert place.document(f"{result}/manifest.json")["input"] == path


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a\nb", "U+000A"), ("a\x00", "U+0000"), ("a\x7f", "U+007F"), ("a\x9b", "U+009B"), ("a\u2028b", "U+2028"),
        ("a\u2029b", "U+2029"), ("a\ud800", "U+D800"), ("../a", "one of dots"), ("a/../../b", "one of dots"),
        ("..\\a", "one of dots"), ("a\\..\\..\\models\\b", "one of dots"), ("a/..\\b", "one of dots"),
        ("\\\\host\\a", "an empty part"), ("a//b", "an empty part"), ("/a", "an empty part"),
        ("./a", "one of dots"), ("long-names/a", "hold answers to others"),
        ("messages/a", "hold answers to others"),
    ],
)  # fmt: skip
def test_a_name_that_is_a_trap_is_refused_in_a_sentence(place: Place, name: str, says: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        place.tell(f"memory:///inbox/{name}.jsonl")
    assert says in str(raised.value)
    assert str(raised.value).endswith(".")
    assert str(raised.value).isprintable()


def test_a_cell_may_be_as_long_as_a_line(place: Place) -> None:
    fakes.publish_echo(place.registry, "BYTES")
    rows = [
        f'"{"é" * 200_000}"',
        '"two\r\nlines"',
        "x" * 5_999_998,
        '"' + "y" * 3_000_000 + "\n" + "y" * 3_000_000,
        "z",
    ]
    place.upload("echo-bytes/a.csv", "\r\n".join(["text", *rows]).encode())
    long, two, longest, *wrong = place.result("echo-bytes/a.csv.jsonl")
    assert [len(each["outputs"][0]["data"][0]) for each in (long, two, longest)] == [200_000, 10, 5_999_998]
    assert wrong[0]["error"] == "The row is longer than 6,000,000 bytes; is a quote not closed?"


def test_a_byte_order_mark_before_each_joined_file(place: Place) -> None:
    mark = "\ufeff".encode()
    place.upload("double/a.jsonl", mark + body(0) + b"\r\n" + mark + body(1) + b"\n")
    assert [each["outputs"][0]["data"][0] for each in place.result("double/a.jsonl")] == [0, 2]
    place.upload("double/b.json", mark + body(2))
    assert place.result("double/b.json.jsonl")[0]["outputs"][0]["data"][0] == 4
    event = {"messageId": "m", "body": (mark + body(3)).decode(), "attributes": {}, "messageAttributes": {}}
    assert place.handle({"Records": [event]}, None) == {"batchItemFailures": []}


def test_tables_of_excel_and_r_are_read_or_told(place: Place) -> None:
    draft = replace(fakes.draft("table"), task="tabular", preprocess=TablePreprocessing(
        input="x", columns=(TableColumn(name="size"), TableColumn(name="colour", categories=("red", "blue")))
    ))  # fmt: skip
    place.registry.publish_version(draft, {"model.onnx": fakes.graph("double")})
    place.upload("table/r.csv", b'"","size","colour"\n"1",1.5,"red"\n"2",TRUE,"blue"\n')
    assert [each["outputs"][0]["data"] for each in place.result("table/r.csv.jsonl")] == [[3, 2, 0], [2, 0, 2]]
    place.upload("table/e.csv", b"\xef\xbb\xbfsize;colour\r\n1,5;red\r\n")
    assert "'size;colour', with semicolons in it" in place.document("table/e.csv/manifest.json")["refused"]
    place.upload("table/n.jsonl", b'{"size": "1.5", "colour": "red"}\n{"colour": "blue", "size": true}\n')
    assert [each["outputs"][0]["data"] for each in place.result("table/n.jsonl")] == [[3, 2, 0], [2, 0, 2]]


@pytest.mark.parametrize(
    "text",
    [
        '"size","colour"\n"1",NA,"red"\n"2",2,NA\n',  # R's write.table(sep = ",")
        "\n \nsize,colour\nNA,red\n2,\n",
        "sep=,\r\nsize,colour\r\n,red\r\n2,null\r\n",
        "size,colour\n,red,\n2,,\n",
    ],
)
def test_the_inbox_reads_tables_as_a_body_is_read(place: Place, text: str) -> None:
    columns = (
        TableColumn(name="size", missing=1.0),
        TableColumn(name="colour", categories=("red", "blue"), missing="blue"),
    )
    draft = replace(fakes.draft("table"), task="tabular", preprocess=TablePreprocessing(input="x", columns=columns))
    place.registry.publish_version(draft, {"model.onnx": fakes.graph("double")})
    place.upload("table/a.csv", text.encode())
    assert [each["outputs"][0]["data"] for each in place.result("table/a.csv.jsonl")] == [[2, 2, 0], [4, 0, 2]]


def test_row_names_are_no_feature_where_the_model_has_room_for_them(place: Place) -> None:
    place.upload("double/a.csv", b'"a","b"\n"1",2,3\n"2",4,5\n')
    assert all("shape [1, 2], expected [batch, 3]" in each["error"] for each in place.result("double/a.csv.jsonl"))


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.csv", "a,b,c\n1,2,3\n".encode("utf-16"), "The file is UTF-16; save it as UTF-8"),
        ("a.jsonl", "[1, 2, 3]\n".encode("utf-16"), "The file is UTF-16; save it as UTF-8"),
        ("a.csv", gzip.compress(b"a,b,c\n1,2,3\n", mtime=0), "compressed with gzip; unpack it"),
        ("a.csv", b"PK\x03\x04", "as a workbook of Excel is; save it as CSV UTF-8"),
        ("a.csv", b"a,b,c\r1,2,3\r", "a carriage return without a line feed"),
    ],
)
def test_a_file_that_is_no_text_is_told_for_what_it_is(place: Place, name: str, data: bytes, says: str) -> None:
    place.upload(f"double/{name}", data)
    assert says in place.document(f"double/{name.removesuffix('.jsonl')}/manifest.json")["refused"]


def test_a_table_without_names_is_told_row_by_row(place: Place) -> None:
    place.upload("double/a.csv", b"1,2,3\n4,5,6\n")
    assert "put a line of names before it" in place.result("double/a.csv.jsonl")[0]["error"]


@pytest.mark.parametrize("folder", ["double/", "", "a/b/"])
def test_a_folder_that_the_console_makes_is_no_dead_letter(place: Place, folder: str) -> None:
    """An object without bytes whose name ends in a slash; the event of its upload is S3's own."""
    uri = f"{place.store.url}/inbox/{folder}"
    assert place.tell(uri) == f"{uri} is a folder, in which there is nothing to answer."
    assert not list(place.store.list_paths("outbox"))


def test_nan_in_a_line_is_missing(place: Place) -> None:
    """As python's json.dumps writes it."""
    row = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, float("nan"), 2]}
    lines = [json.dumps(each) for each in ({"inputs": [row]}, {"x": [1, float("nan"), 2]}, [1, float("nan"), 2])]
    place.upload("double/a.jsonl", "\n".join([*lines, "[1, Infinity, 2]"]).encode())
    *said, wrong = place.result("double/a.jsonl")
    assert [each["outputs"][0]["data"] for each in said] == [[2, None, 4]] * 3
    assert "no Infinity" in wrong["error"]


class Killed(BaseException):
    """What no handler catches."""


class Dying(fakes.FaultyStore):
    """A store whose worker dies around one of its writes."""

    def __init__(self) -> None:
        super().__init__()
        self.writes, self.dies_at = 0, 0

    def _count(self) -> None:
        self.writes += 1
        if self.writes == self.dies_at:
            raise Killed

    def put(self, path: str, data: bytes | Path) -> None:
        self._count()
        super().put(path, data)
        self._count()

    def put_chunks(self, path: str, chunks: Iterable[bytes | memoryview]) -> None:
        super().put_chunks(path, chunks)
        self._count()

    def replace(self, path: str, data: bytes, e_tag: str) -> None:
        super().replace(path, data, e_tag)
        self._count()

    def delete(self, path: str) -> None:
        self._count()
        super().delete(path)


@pytest.mark.parametrize("dies_at", range(1, 14))
def test_a_worker_that_dies_at_any_write_is_followed_without_a_gap_or_a_double(
    dies_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caution, "PART_BYTES", 300)
    store = Dying()
    place = Place(store)
    fakes.publish(place.registry)
    store.put("inbox/a.jsonl", jsonl(12))
    store.writes, store.dies_at = 0, dies_at
    with pytest.raises(Killed):
        place.tell("memory:///inbox/a.jsonl")
    store.dies_at = 0
    place.handle = place.environment()
    place.tell("memory:///inbox/a.jsonl")
    assert [(each["line"], each["id"]) for each in place.result("a.jsonl")] == [(n + 1, str(n)) for n in range(12)]
    assert place.document("a/manifest.json")["answered"] == 12


def test_a_file_that_takes_longer_goes_on_in_another_invocation(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = fakes.Clock()
    clock.tick(time.monotonic() + 1e6)  # far from what the catalog reads, so that only this module is short of time

    def ticking() -> float:
        clock.tick(1)
        return clock.now

    monkeypatch.setattr(file_job, "time", SimpleNamespace(monotonic=ticking))
    monkeypatch.setattr(
        handler, "RequestContext", SimpleNamespace(from_event=lambda event, context: RequestContext(clock.now + 25))
    )
    place.upload("a.jsonl", jsonl(30))
    seen = []
    while place.post.resumed:
        assert place.post.resumed == ["memory:///inbox/a.jsonl"]
        seen.append(place.document("a/progress.json")["percent"])
        assert "outbox/a/manifest.json" not in set(place.store.list_paths("outbox"))
        place.tell(place.post.resumed.pop())
    assert len(seen) >= 2
    assert seen == sorted(set(seen))
    assert [each["line"] for each in place.result("a.jsonl")] == list(range(1, 31))
    assert place.document("a/manifest.json")["invocations"] >= 3


def test_an_invocation_that_does_not_come_on_fails(place: Place) -> None:
    class Late:
        def get_remaining_time_in_millis(self) -> int:
            return 1000

    with pytest.raises(UnavailableError, match="does not come on"):
        place.upload("a.jsonl", jsonl(3), Late())
    assert place.post.resumed == []


def test_a_file_is_answered_once_however_often_it_is_told(place: Place) -> None:
    place.upload("a.jsonl", jsonl(3))
    before = {path: place.store.get(path).e_tag for path in place.store.list_paths("outbox")}
    assert place.tell("memory:///inbox/a.jsonl") == "inbox/a.jsonl is answered already."
    assert {path: place.store.get(path).e_tag for path in place.store.list_paths("outbox")} == before


def test_a_file_that_is_replaced_is_answered_anew(place: Place) -> None:
    place.upload("a.jsonl", jsonl(3))
    place.upload("a.jsonl", jsonl(5))
    assert len(place.result("a.jsonl")) == place.document("a/manifest.json")["lines"] == 5


def test_two_workers_do_not_both_go_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caution, "PART_BYTES", 300)
    place.store.put("inbox/a.jsonl", jsonl(12))
    inner = file_job.FileJob._write
    told: list[str] = []

    def interrupted(this: file_job.FileJob, progress: FileProgress, part: file_job.ResultBuffer) -> FileProgress:
        if not told:
            told.append("once")
            told.append(str(place.environment()(EVENT, None)["done"][0]))
        return inner(this, progress, part)

    monkeypatch.setattr(file_job.FileJob, "_write", interrupted)
    assert "left to somebody else" in str(place.handle(EVENT, None)["done"][0])
    assert told[1] == "inbox/a.jsonl is answered: outbox/a.jsonl."
    assert [each["line"] for each in place.result("a.jsonl")] == list(range(1, 13))


EVENT = {"detail-type": "Pilotlight Inference", "detail": {"s3_uri": "memory:///inbox/a.jsonl"}}


def test_a_version_answers_its_file_to_the_end(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caution, "PART_BYTES", 300)
    fakes.publish(place.registry, of="square")
    place.store.put("inbox/double/a.jsonl", jsonl(12))
    inner = file_job.FileJob._write

    def promoted(this: file_job.FileJob, progress: FileProgress, part: file_job.ResultBuffer) -> FileProgress:
        if place.registry.load_alias("double", "champion").version == 1:
            place.registry.move_alias("double", "champion", 2, actor="ann", reason="test")
        return inner(this, progress, part)

    monkeypatch.setattr(file_job.FileJob, "_write", promoted)
    place.tell("memory:///inbox/double/a.jsonl")
    assert place.document("double/a/manifest.json")["versions"] == ["double:1"]


def test_lines_may_name_their_own_models(place: Place) -> None:
    fakes.publish(place.registry, "other", of="square")
    named = json.loads(body(3)) | {"model_name": "other", "model_version": 1}
    place.upload("2026/11/a.jsonl", json.dumps(named).encode() + b"\n" + body(3))
    first, second = place.result("2026/11/a.jsonl")
    assert (first["model_name"], first["outputs"][0]["data"]) == ("other", [9, 0, 1])
    assert "No model is named" in second["error"]


def test_a_store_that_is_away_is_tried_again_from_where_it_stood(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caution, "PART_BYTES", 300)
    fakes.publish(place.registry, "other")
    other = json.dumps(json.loads(body(9)) | {"model_name": "other"}).encode()
    store = place.store
    assert isinstance(store, fakes.FaultyStore)
    store.fail("models/other")
    with pytest.raises(StoreError):
        place.upload("double/a.jsonl", jsonl(9) + other)
    assert place.document("double/a/progress.json")["line"] == 9
    store.heal()
    place.tell("memory:///inbox/double/a.jsonl")
    assert [each["line"] for each in place.result("double/a.jsonl")] == list(range(1, 11))


def test_a_table_is_answered_row_by_row(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caution, "PART_BYTES", 10)  # so that each row is read by a new start
    place.upload("t.csv", b'a,b,c\r\n1,2,3\r\n4,5\r\n"6",7,8\n\n9,"1\n0",11\n1,x,2\n')
    said = place.result("t.csv.jsonl")
    assert [each["line"] for each in said] == [2, 3, 4, 7, 8]
    assert said[0]["outputs"][0]["data"] == [2, 4, 6]
    assert said[1]["error"] == "The row has 2 values, but there are 3 columns."
    assert place.document("t.csv/manifest.json")["failed"] == 3


def test_a_table_of_columns_with_steps_is_answered() -> None:
    place = Place(open_store("memory://"))
    columns = (
        TableColumn(name="size", mean=1.0),
        TableColumn(name="colour", categories=("red", "blue"), unknown="refuse"),
    )
    steps = TablePreprocessing(input="x", columns=columns)
    place.registry.publish_version(
        replace(fakes.draft(), task="tabular", preprocess=steps), {"model.onnx": fakes.graph("double")}
    )
    place.upload("t.csv", b"colour,size\nblue,3\ngreen,3\n")
    place.upload("t.jsonl", b'{"size": 3, "colour": "red"}\n[3, "blue"]\n{"size": [1], "colour": "red"}\n')
    first, second = place.result("t.csv.jsonl")
    assert first["outputs"][0]["data"] == [4, 0, 2]
    assert "'green'" in second["error"]
    assert [each.get("outputs", [{}])[0].get("data") for each in place.result("t.jsonl")] == [
        [4, 2, 0],
        [4, 0, 2],
        None,
    ]


def test_a_text_that_makes_the_tokenizer_panic_costs_its_own_line() -> None:
    place = Place(open_store("memory://"))
    publish_text(place.registry, "texts", tokenizer_with("(a+)+$"))
    texts = ["one", "two", "three", "a" * 105 + "!", "five", "six", "seven"]
    place.upload("texts/a.jsonl", "\n".join(map(json.dumps, texts)).encode())
    said = place.result("texts/a.jsonl")
    assert [each["line"] for each in said] == [1, 2, 3, 4, 5, 6, 7]
    assert [each["line"] for each in said if "error" in each] == [4]
    assert "The tokenizer refused the texts: tokenizers panicked: Onig" in said[3]["error"]


def test_numbers_that_int8_hides_are_refused_in_their_line() -> None:
    place = Place(open_store("memory://"))
    fakes.publish_digits(place.registry)
    image = {"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32"}
    numbers = ([0.0] * 64, [float("nan")] + [0.0] * 63)
    lines = [json.dumps({"inputs": [image | {"data": data}]}) for data in numbers]
    place.upload("digits/a.jsonl", "\n".join(lines).encode())
    right, wrong = place.result("digits/a.jsonl")
    assert "outputs" in right
    assert "Input 'image' has nan in row 0" in wrong["error"]


def test_an_image_is_answered() -> None:
    place = Place(open_store("memory://"))
    given = TensorSpec("pixels", "FP32", ("batch", 3, "height", "width"))
    answers = TensorSpec("scores", "FP32", ("batch", 3)), replace(given, name="same")
    draft = replace(
        fakes.draft("colours", (given,), answers),
        task="image",
        preprocess=ImagePreprocessing(input="pixels", scale=1.0),
    )
    place.registry.publish_version(draft, {"model.onnx": fakes.graph("colours")})
    picture = io.BytesIO()
    Pillow.new("RGB", (20, 10), (200, 100, 50)).save(picture, "png")
    place.upload("colours/red.PNG", picture.getvalue())
    (said,) = place.result("colours/red.PNG.jsonl")
    assert np.argmax(said["outputs"][0]["data"]) == 0
    place.upload("colours/broken.jpg", b"\xff\xd8\xff")
    assert "Image 0" in place.document("colours/broken.jpg/manifest.json")["errors"][0]["error"]


def test_a_sound_is_answered() -> None:
    place = Place(open_store("memory://"))
    specs = [TensorSpec(name, "FP32", ("batch", 1)) for name in ("sum", "total", "next")]
    inputs = (TensorSpec("samples", "FP32", ("batch", "time")), specs[0], TensorSpec("gain", "INT64", ()))
    steps = AudioPreprocessing(
        input="samples",
        rate=8000,
        window=2,
        constants=(ConstantInput(input="gain", value=4),),
        states=(StateInput(input="sum", output="next"),),
    )
    draft = replace(fakes.draft("sums", inputs, tuple(specs[1:])), task="audio", preprocess=steps)
    place.registry.publish_version(draft, {"model.onnx": fakes.graph("running")})
    sound = io.BytesIO()
    soundfile.write(sound, np.array([1, 2, 3, 4, 5]) / 8, 8000, format="WAV")
    place.upload("sums/steps.WAV", sound.getvalue())
    (said,) = place.result("sums/steps.WAV.jsonl")
    assert said["outputs"][0]["data"] == [1.5, 5, 7.5]
    place.upload("sums/broken.mp3", b"ID3")
    assert "Audio 0 is damaged" in place.document("sums/broken.mp3/manifest.json")["errors"][0]["error"]


def test_the_objects_of_a_photo_are_answered() -> None:
    place = Place(open_store("memory://"))
    pixels = TensorSpec("pixels", "FP32", ("batch", 3, 16, 16))
    draft = replace(
        fakes.draft("spots", (pixels,), (TensorSpec("head", "FP32", ("batch", 7, 2)),)),
        task="image",
        preprocess=ImagePreprocessing(input="pixels", letterbox=(16, 16)),
        postprocess=DetectionPostprocessing(output="head"),
        labels=("red", "green", "blue"),
    )
    place.registry.publish_version(draft, {"model.onnx": fakes.graph("spots")})
    picture = io.BytesIO()
    Pillow.new("RGB", (32, 32), (0, 0, 250)).save(picture, "webp", lossless=True)
    place.upload("spots/blue.webp", picture.getvalue())
    (said,) = place.result("spots/blue.webp.jsonl")
    found = {output["name"]: output["data"] for output in said["outputs"]}
    assert (found["label"], found["count"]) == (["blue", "blue"], [2])
    assert found["box"] == [4, 4, 12, 12, 16, 0, 28, 8]


@pytest.mark.parametrize(
    ("name", "data", "hint"),
    [
        ("a.exe", b"MZ", "ends in '.exe'"),
        ("a", b"x", "ends in ''"),
        ("a.csv", b"", "The CSV is empty"),
        ("a.csv", b"a,a\n1,2\n", "name one twice"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_in_its_manifest(place: Place, name: str, data: bytes, hint: str) -> None:
    place.upload(name, data)
    manifest = place.document(f"{name_results(name)}/manifest.json")
    assert hint in manifest["refused"]
    assert manifest["result"] == ""


def test_an_empty_file_has_an_empty_result(place: Place) -> None:
    place.upload("a.jsonl", b"")
    place.upload("b.jsonl", b"\n\n")
    assert place.result("a.jsonl") == place.result("b.jsonl") == []
    assert place.document("b/manifest.json")["lines"] == 0


@pytest.mark.parametrize(
    "uri",
    [
        "s3://other/inbox/a.jsonl",
        "s3://bucket/prefix/models/a.jsonl",
        "s3://bucket/prefix/inbox/../models/a.jsonl",
        "s3://bucket/prefix/inbox/./a.jsonl",
        "s3://bucket/prefix/inbox//a.jsonl",
        "s3://bucket/prefix/inbox/",
        "s3://bucket/prefix/inbox/a\n.jsonl",
        "s3://bucket/prefix/inboxes/a.jsonl",
        "s3://bucket/inbox/a.jsonl",
        "s3://bucket.evil/prefix/inbox/a.jsonl",
        "s3://bucket/prefix/inbox/messages.jsonl",
        "s3://bucket/prefix/inbox/messages/a.jsonl",
        "s3://bucket/prefix/inbox/batches.jsonl",
        "s3://bucket/prefix/inbox/batches/0/a.jsonl",
        "s3://bucket/prefix/uploads/a/content",
        "s3://bucket/prefix/batches/a/order.json",
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "",
    ],
)
def test_only_the_inbox_is_read(uri: str) -> None:
    with pytest.raises(InvalidInputError, match="is refused"):
        parse_inbox_uri("s3://bucket/prefix", uri)


def test_results_are_called_as_their_files() -> None:
    names = {
        name: parse_inbox_uri("s3://b", f"s3://b/inbox/{name}") for name in ("x/a.jsonl", "a.csv", "digits:3/b/c.png")
    }
    assert [each.result_path for each in names.values()] == [
        "outbox/x/a.jsonl", "outbox/a.csv.jsonl", "outbox/digits:3/b/c.png.jsonl",
    ]  # fmt: skip
    assert [each.model for each in names.values()] == ["x", "", "digits:3"]


def written(name: str) -> set[str]:
    """Every object that answering a file of that name may write."""
    file = InboxFile(f"inbox/{name}")
    inner = ["progress.json", "manifest.json", "spans.json", f"parts/{PART}.jsonl", f"parts/{PART}.errors.jsonl"]
    inner += [ROWS] if file.suffix == ".parquet" else []
    return {file.result_path, *(f"{file.folder}/{each}" for each in inner)}


PART, ROWS = f"{0:015d}-{9:015d}", f"rows-{0:016x}.jsonl"
ENDS = (".jsonl", ".JSONL", ".csv", ".json", ".parquet", ".PARQUET", ".gz", ".results")
INNER = ("/parts", f"/parts/{PART}", f"/parts/{PART}.errors", "/manifest", "/progress", "/spans", f"/{ROWS}")
PIECES = st.sampled_from(["a", "A", "é", "e\u0301", "/", ".", *ENDS, *INNER])
NAMES = (
    st.lists(PIECES, min_size=1, max_size=4)
    .map("".join)
    .filter(lambda name: all(part not in ("", ".", "..") for part in name.split("/")))
)


@given(NAMES, NAMES)
@example("a.csv", "a.csv.jsonl")
@example("a", "a.jsonl")
@example("a.jsonl", f"a/parts/{PART}.jsonl")
@example("a.parquet", f"a.parquet/{ROWS}")
@example("a/.jsonl", "a.jsonl")
@example("a.csv.jsonl.results.jsonl", "a.csv.jsonl")
@example("e\u0301.jsonl", "é.jsonl")
def test_no_two_files_write_the_same_object(one: str, other: str) -> None:
    assert one == other or not written(one) & written(other)


@pytest.mark.parametrize("order", [1, -1])
def test_a_table_and_lines_of_its_name_have_answers_of_their_own(place: Place, order: int) -> None:
    for name, data in [("a.csv", b"x\n"), ("a.csv.jsonl", jsonl(3)), ("a", b"no"), ("a.jsonl", jsonl(2))][::order]:
        place.upload(f"double/{name}", data)
    assert len(place.result("double/a.csv.jsonl.results.jsonl")) == 3
    assert len(place.result("double/a.jsonl")) == 2
    assert place.result("double/a.csv.jsonl") == []
    assert place.document("double/a/manifest.json")["answered"] == 2
    assert "ends in ''" in place.document("double/a.results/manifest.json")["refused"]


def test_a_file_deletes_its_own_parts_alone(place: Place) -> None:
    other = f"outbox/a/parts/parts/{PART}.jsonl"  # of inbox/a/parts.jsonl, which is under way
    place.store.put(other, b"{}\n")
    place.upload("a.jsonl", jsonl(2))
    assert list(place.store.list_paths("outbox/a/parts")) == [other]


@given(st.lists(st.binary(max_size=30).map(lambda data: data.replace(b"\n", b"")), max_size=20), st.integers(1, 50))
def test_lines_are_what_they_are_however_the_bytes_come(texts: list[bytes], size: int) -> None:
    whole = b"\n".join(texts)
    chunks = [whole[at : at + size] for at in range(0, len(whole), size)]
    found = list(record_reader.split_lines(chunks))
    kept = whole.split(b"\n") if whole else []
    kept = kept[:-1] if kept and not kept[-1] else kept
    assert [line.data for line in found] == [text.removeprefix(BYTE_ORDER_MARK) for text in kept]
    for place, line in enumerate(found):
        rest = list(record_reader.split_lines([whole[line.end :]], line.end, line.number))
        assert [each.number for each in rest] == [each.number for each in found[place + 1 :]]
        assert [each.end for each in rest] == [each.end for each in found[place + 1 :]]


def test_a_line_beyond_the_limit_is_not_kept(place: Place) -> None:
    long = b"x" * (record_reader.MAX_LINE_BYTES + 1)
    found = list(record_reader.split_lines([body(1) + b"\n" + long[:4_000_000], long[4_000_000:], b"y\n" + body(2)]))
    assert [line.data for line in found] == [body(1), None, body(2)]
    assert found[1].end == len(body(1)) + 1 + len(long) + 2


def test_a_large_file_survives_two_kills() -> None:
    seen = load.run(0.4, (20.0, 60.0), 40_000)
    assert seen["failures"] == []
    assert seen["invocations"] == 3
    assert len(seen["progress seen"]) >= 3


def test_a_batch_that_is_not_here_is_done_since_no_other_try_would_find_it(place: Place) -> None:
    """It was withdrawn, or another stack of the account was told of it: no retry, no dead letter, no alarm."""
    unknown = "batch_0123456789abcdef0123456789abcdef"
    event = {"detail-type": "Pilotlight Inference", "id": "e-1", "detail": {"batch": unknown}}
    assert place.handle(event, None) == {
        "done": [f"There is no batch {unknown} here: it was withdrawn, or is of another stack."]
    }
    with pytest.raises(NotFoundError):
        place.handle(event | {"detail": {"batch": "batch_1"}}, None)


def test_an_order_of_another_batch_is_refused(place: Place) -> None:
    order = BatchRequest(
        id="batch_" + "1" * 32, endpoint="/v2/models/double/infer", input_file_id="file-" + "2" * 32,
        completion_window="24h", created_at=1, expires_at=2,
    )  # fmt: skip
    place.store.put(f"batches/{'3' * 32}/order.json", encode_document(order))
    event = {"detail-type": "Pilotlight Inference", "id": "e-1", "detail": {"batch": "batch_" + "3" * 32}}
    with pytest.raises(InvalidInputError, match="is the order of batch_1"):
        place.handle(event, None)
