"""Tensors that lie in the store, and every way that somebody might reach something else by them.

Each rule is broken on purpose in a copy of the code, and then one of the attacks gets through.
"""

import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from pilotlight.api import http, large_tensors, v2, v2_binary
from pilotlight.contracts import upload
from pilotlight.contracts.manifest import Datatype, TensorSpec
from pilotlight.contracts.tenant import tenant_folder
from pilotlight.errors import InvalidInputError, NotFoundError, PilotlightError, TooLargeError, UnsupportedError
from pilotlight.registry.registry import Registry
from pilotlight.runtime.datatypes import Array
from pilotlight.storage.object_store import ObjectStore, open_store
from tests import fakes

MANIFEST = fakes.stepped(None, of=((TensorSpec("x", "FP32", ("n", 3)),), (TensorSpec("y", "FP32", ("n", 3)),)))
PAIR = fakes.stepped(
    None,
    of=(
        tuple(TensorSpec(name, "FP32", ("n", 3)) for name in ("x", "z")),
        (TensorSpec("y", "FP32", ("n", 3)),),
    ),
)
NUMBERS = np.arange(6, dtype="<f4").reshape(2, 3)
BUDGET = 200_000


class Watched(ObjectStore):
    """A store that tells which paths were asked for, and how many bytes were held."""

    def __init__(self) -> None:
        inner = open_store("memory://")
        super().__init__("s3://bucket/prefix", inner._store)
        self.asked: list[str] = []
        self.held = 0
        self.swapped: dict[str, bytes] = {}  # what lies there once its size was told

    def get_size_and_e_tag(self, path: str) -> tuple[int, str]:
        self.asked.append(path)
        found = super().get_size_and_e_tag(path)
        if path in self.swapped:
            self.put(path, self.swapped.pop(path))
        return found

    def iterate_blocks(self, path: str, start: int, end: int, e_tag: str) -> Iterator[bytes]:
        self.asked.append(path)
        self.held += end - start
        yield from super().iterate_blocks(path, start, end, e_tag)


def place() -> Watched:
    """A store with tensors, and with things that are nobody's business."""
    store = Watched()
    store.put("uploads/raw", NUMBERS.tobytes())
    store.put("uploads/a/b/tensor.npy", npy(NUMBERS))
    store.put("uploads/short", b"123")
    store.put("uploads/huge", bytes(300_000))
    store.put("uploads/half", bytes(150_000))
    store.put("uploads/padded", bytes(100_000))
    store.put("uploads/other.npy", npy(NUMBERS.reshape(3, 2)))
    store.put("uploads/wide.npy", npy(NUMBERS.astype("<f8")[:, :]))
    store.put("uploads/changed", NUMBERS.tobytes())
    store.swapped["uploads/changed"] = bytes(24)
    for secret in ("models/m/versions/1/model.onnx", "inbox/x", "uploads-secret/x", "secret", "outbox/messages/x"):
        store.put(secret, NUMBERS.tobytes())
    return store


def npy(array: Any) -> bytes:  # noqa: ANN401 - of any type
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def body(uri: object, shape: tuple[int, ...] = (2, 3), name: str = "x", **more: object) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": "FP32", "parameters": {"s3_uri": uri}, **more}


def asked(
    store: ObjectStore, *inputs: dict[str, Any], of: ModuleType = large_tensors, tenant: str = ""
) -> v2.InferenceRequest:
    manifest = MANIFEST if len(inputs) == 1 else PAIR
    found = of.UploadedTensors(Registry(store), BUDGET).for_tenant(tenant)
    return v2.decode_infer_request(json.dumps({"inputs": inputs}).encode(), {}, manifest, found)


@pytest.mark.parametrize("name", ["raw", "a/b/tensor.npy"])
def test_a_tensor_that_lies_in_the_store_is_the_tensor(name: str) -> None:
    found = asked(place(), body(f"s3://bucket/prefix/uploads/{name}")).tensors["x"]
    np.testing.assert_array_equal(found, NUMBERS)
    assert found.dtype == np.float32


def test_texts_lie_there_as_they_are_sent() -> None:
    store, manifest = place(), fakes.stepped(None, of=((TensorSpec("x", "BYTES", ("n",)),), fakes.ROW[1]))
    store.put("uploads/texts", b"\x02\0\0\0hi\0\0\0\0")
    uri, below = "s3://bucket/prefix/uploads/texts", large_tensors.UploadedTensors(Registry(store), 20)
    given = {"name": "x", "shape": [2], "datatype": "BYTES", "parameters": {"s3_uri": uri}}
    found = v2.decode_infer_request(json.dumps({"inputs": [given]}).encode(), {}, manifest, below)
    assert found.tensors["x"].tolist() == ["hi", ""]


def test_an_address_is_one_of_three_ways_to_bring_a_tensor() -> None:
    uri = "s3://bucket/prefix/uploads/raw"
    with pytest.raises(InvalidInputError, match="either an s3_uri, or data"):
        asked(place(), body(uri, data=[0, 1, 2, 3, 4, 5]))
    both = body(uri)
    both["parameters"]["binary_data_size"] = 24
    with pytest.raises(InvalidInputError, match="either an s3_uri, or data"):
        asked(place(), both)
    with pytest.raises(UnsupportedError, match="is not read here"):
        v2.decode_infer_request(json.dumps({"inputs": [body(uri)]}).encode(), {}, MANIFEST)


def test_what_is_not_there_is_told_by_its_place() -> None:
    with pytest.raises(NotFoundError, match="uploads/nothing"):
        asked(place(), body("s3://bucket/prefix/uploads/nothing"))


@pytest.mark.parametrize("text", [b"\x93NUMPY\x01\x00\xff\xff" + bytes(9), b"\x93NUMPY\x09\x00" + bytes(40), bytes(40)])
def test_a_broken_npy_file_is_refused(text: bytes) -> None:
    store = place()
    store.put("uploads/broken", text)
    with pytest.raises(InvalidInputError, match="neither raw bytes of its shape nor a"):
        asked(store, body("s3://bucket/prefix/uploads/broken", (1, 3)))


def test_columns_first_is_refused() -> None:
    store = place()
    store.put("uploads/columns", npy(np.asfortranarray(NUMBERS)))
    with pytest.raises(InvalidInputError, match="column by column"):
        asked(store, body("s3://bucket/prefix/uploads/columns"))


def test_an_answer_that_cannot_be_sent_is_refused_or_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_RESPONSE_BYTES", 100)
    store = place()
    given = body(None, data=[0, 1, 2, 3, 4, 5], parameters={})
    request = v2.decode_infer_request(json.dumps({"inputs": [given]}).encode(), {}, MANIFEST)
    with pytest.raises(TooLargeError, match="POST /v1/batches"):
        v2.encode_infer_response(
            MANIFEST, request, {"y": NUMBERS}, "", large_tensors.StoredOutputs(Registry(store), enabled=False)
        )
    kept = large_tensors.StoredOutputs(Registry(store), enabled=True)
    (said,) = json.loads(v2.encode_infer_response(MANIFEST, request, {"y": NUMBERS}, "", kept).body)["outputs"]
    assert (said["shape"], said["datatype"], said["parameters"]["bytes"]) == ([2, 3], "FP32", 24)
    path = said["parameters"]["s3_uri"].removeprefix("s3://bucket/prefix/")
    assert path.startswith("answers/")
    assert store.get(path).data == NUMBERS.tobytes()
    assert json.loads(v2.encode_infer_response(MANIFEST, request, {"y": NUMBERS}).body)["outputs"][0]["data"]


def test_an_answer_that_is_small_once_compressed_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_RESPONSE_BYTES", 2000)
    given = body(None, shape=(500, 3), data=[1] * 1500, parameters={})
    request = v2.decode_infer_request(json.dumps({"inputs": [given]}).encode(), {}, MANIFEST)
    nowhere, zeros = large_tensors.StoredOutputs(Registry(place()), enabled=False), np.zeros((500, 3), np.float32)
    sent = v2.encode_infer_response(MANIFEST, request, {"y": zeros}, "gzip", nowhere)
    assert (sent.headers["content-encoding"], len(sent.body) < 2000) == ("gzip", True)
    noise = np.random.default_rng(7).random((500, 3), np.float32)
    with pytest.raises(TooLargeError, match="POST /v1/batches"):
        v2.encode_infer_response(MANIFEST, request, {"y": noise}, "gzip", nowhere)


def bf16(*values: float) -> Array:
    """The upper halves of their floats, which is how BF16 is held."""
    bits: Array = (np.array([values], np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return bits


CLASSIFIED: list[tuple[Datatype, Array, list[list[str]]]] = [
    ("BF16", bf16(-2, 1, 3), [["3.0:2", "1.0:1"]]),
    ("BF16", np.concatenate([bf16(-2, 1, 3), bf16(0.5, -0.0, -8)]), [["3.0:2", "1.0:1"], ["0.5:0", "-0.0:1"]]),
    ("BF16", bf16(np.nan, -np.inf, -3), [["-3.0:2", "-inf:1"]]),
    ("BF16", bf16(np.nan, 2, np.nan), [["2.0:1", "nan:0"]]),
    ("FP16", np.array([[-2, 1, 3]], np.float16), [["3.0:2", "1.0:1"]]),
    ("FP16", np.array([[np.nan, 1, -3]], np.float16), [["1.0:1", "-3.0:2"]]),
    ("FP32", np.array([[np.nan, 1, np.inf]], np.float32), [["inf:2", "1.0:1"]]),
    ("FP64", np.array([[-2, 1, 3], [3, 1, -2]], np.float64), [["3.0:2", "1.0:1"], ["3.0:0", "1.0:1"]]),
    ("INT8", np.array([[-2, 1, 3]], np.int8), [["3:2", "1:1"]]),
    ("UINT16", np.array([[49152, 16256, 16448]], np.uint16), [["49152:0", "16448:2"]]),
]


@pytest.mark.parametrize("form", ["json", "binary", "stored", "stored binary"])
@pytest.mark.parametrize(("datatype", "array", "expected"), CLASSIFIED)
def test_classes_are_of_values_wherever_they_go(
    datatype: Datatype, array: Array, expected: list[list[str]], form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if form.startswith("stored"):
        monkeypatch.setattr(http, "MAX_RESPONSE_BYTES", 10)
    manifest = fakes.stepped(None, of=(MANIFEST.inputs, (TensorSpec("y", datatype, ("n", 3)),)))
    requested = v2.RequestedOutput("y", binary="binary" in form, classes=2)
    request, store = v2.InferenceRequest(None, {}, [requested]), place()
    stored_outputs = large_tensors.StoredOutputs(Registry(store), enabled=True)
    response = v2.encode_infer_response(manifest, request, {"y": array}, "", stored_outputs)
    length = int(response.headers.get(v2.JSON_LENGTH_HEADER, len(response.body)))
    (output,) = json.loads(response.body[:length])["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [len(expected), 2])
    texts = [text for row in expected for text in row]
    if form == "json":
        assert output["data"] == texts
        return
    path = output["parameters"].get("s3_uri", "").removeprefix("s3://bucket/prefix/")
    assert bool(path) == form.startswith("stored")
    data = store.get(path).data if path else response.body[length:]
    assert data == v2_binary.encode_binary_tensor(np.array(texts, object))


@pytest.mark.parametrize("form", ["binary", "stored"])
def test_bf16_without_classes_stays_bits(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if form == "stored":
        monkeypatch.setattr(http, "MAX_RESPONSE_BYTES", 10)
    manifest = fakes.stepped(None, of=(MANIFEST.inputs, (TensorSpec("y", "BF16", ("n", 3)),)))
    request, store = v2.InferenceRequest(None, {}, [v2.RequestedOutput("y", binary=True)]), place()
    stored_outputs = large_tensors.StoredOutputs(Registry(store), enabled=True)
    response = v2.encode_infer_response(manifest, request, {"y": bf16(-2, 1, 3)}, "", stored_outputs)
    length = int(response.headers.get(v2.JSON_LENGTH_HEADER, len(response.body)))
    (output,) = json.loads(response.body[:length])["outputs"]
    assert (output["datatype"], output["shape"]) == ("BF16", [1, 3])
    path = output["parameters"].get("s3_uri", "").removeprefix("s3://bucket/prefix/")
    data = store.get(path).data if path else response.body[length:]
    assert data == b"\x00\xc0\x80\x3f\x40\x40"


# --- attacks ----------------------------------------------------------------------------------------------------------

ELSEWHERE = [
    "s3://other/prefix/uploads/raw",
    "s3://bucket/uploads/raw",
    "s3://bucket/prefix/models/m/versions/1/model.onnx",
    "s3://bucket/prefix/uploads/../models/m/versions/1/model.onnx",
    "s3://bucket/prefix/uploads/..%2fmodels/m/versions/1/model.onnx",
    "s3://bucket/prefix/uploads/%2e%2e/secret",
    "s3://bucket/prefix/uploads/./raw",
    "s3://bucket/prefix/uploads/a/../../models/m/versions/1/model.onnx",
    "s3://bucket/prefix/uploads/a/../raw",
    "s3://bucket/prefix/uploads/a//raw",
    "s3://bucket/prefix/uploads/a/raw?versionId=1",
    "s3://bucket/prefix/uploads//raw",
    "s3://bucket/prefix/uploads/.hidden",
    "s3://bucket/prefix/uploads/",
    "s3://bucket/prefix/uploads",
    "s3://bucket/prefix/uploads-secret/x",
    "s3://bucket/prefix/inbox/x",
    "s3://bucket/prefix/outbox/messages/x",
    "s3://bucket/prefix/secret",
    "s3://bucket/prefix/uploads/raw?versionId=1",
    "s3://bucket/prefix/uploads/raw#x",
    "s3://bucket/prefix/uploads/raw\n",
    "s3://bucket/prefix/uploads/raw\0",
    "s3://bucket/prefix/uploads\\raw",
    "s3://bucket/prefix/uploads/rаw",  # noqa: RUF001 - a Cyrillic letter
    "s3://bucket/prefix/uploads/" + "a/" * 600 + "a",
    "s3://bucket.evil.example/prefix/uploads/raw",
    "s3://bucket@evil.example/prefix/uploads/raw",
    "s3://bucket:80@evil.example/prefix/uploads/raw",
    "S3://bucket/prefix/uploads/raw",
    "s3:bucket/prefix/uploads/raw",
    "https://bucket.s3.amazonaws.com/prefix/uploads/raw",
    "http://169.254.169.254/latest/meta-data/iam/security-credentials/",
    "http://127.0.0.1:9001/2018-06-01/runtime/invocation/next",
    "http://[::ffff:169.254.169.254]/",
    "file:///etc/passwd",
    "/etc/passwd",
    "memory:///uploads/raw",
    "uploads/raw",
    "s3://uploads/raw",
    "",
    None,
    1,
    ["s3://bucket/prefix/uploads/raw"],
    {"bucket": "other"},
]


def attacks(of: ModuleType = large_tensors) -> list[str]:
    """What got through that must not."""
    return [*reached_elsewhere(of), *reached_another_tenant(of), *held_too_much(of), *believed_a_lie(of)]


def reached_elsewhere(of: ModuleType) -> Iterator[str]:
    for uri in ELSEWHERE:
        store = place()
        try:
            asked(store, body(uri), of=of)
        except InvalidInputError as exc:
            if store.asked or isinstance(exc, TooLargeError):
                yield f"{uri!r} was looked for: {store.asked}"
        except PilotlightError as exc:
            yield f"{uri!r} was looked for: {exc}"
        except Exception as exc:  # noqa: BLE001 - any other failure is one too
            yield f"{uri!r} broke the reader: {exc!r}"
        else:
            yield f"{uri!r} was read"


TENANTS = ("", "acme", "Acme", "acme/raw", "acme|raw", "a", "acme_2fraw")


def reached_another_tenant(of: ModuleType) -> Iterator[str]:
    """By the very address that the other one would use, and by what reads like it."""
    for caller, owner in itertools.product(TENANTS, repeat=2):
        for name in ("raw", "tenant=acme/raw", "../tenant=acme/raw"):
            store, path = place(), f"{tenant_folder('uploads', owner)}/{name}"
            for tenant in TENANTS:
                store.put(f"{tenant_folder('uploads', tenant)}/raw", NUMBERS.tobytes())
            is_own = path == f"{tenant_folder('uploads', caller)}/raw"
            try:
                asked(store, body(f"s3://bucket/prefix/{path}"), of=of, tenant=caller)
            except InvalidInputError:
                if is_own or store.asked:
                    yield f"{path!r} was looked for by {caller!r}"
            except PilotlightError as exc:
                yield f"{path!r} was looked for by {caller!r}: {exc}"
            else:
                if not is_own:
                    yield f"{path!r} was read by {caller!r}"


def held_too_much(of: ModuleType) -> Iterator[str]:
    below = "s3://bucket/prefix/uploads"
    rows = {"huge": (25_000, 3), "padded": (2, 3), "raw": (1_000_000, 3), "short": (2, 3)}
    for name, shape in rows.items():
        store = place()
        if not refused(store, of, body(f"{below}/{name}", shape)) or store.held:
            yield f"{store.held} bytes of {name} were held for {shape}"
    store = place()
    both = body(f"{below}/half", (12_500, 3)), body(f"{below}/half", (12_500, 3), "z")
    if not refused(store, of, *both) or store.held > BUDGET:
        yield f"{store.held} bytes were held for one request"


def believed_a_lie(of: ModuleType) -> Iterator[str]:
    below = "s3://bucket/prefix/uploads"
    for name in ("other.npy", "wide.npy", "changed"):
        if not refused(place(), of, body(f"{below}/{name}")):
            yield f"{name} passed for what it is not"


def refused(store: ObjectStore, of: ModuleType, *inputs: dict[str, Any]) -> bool:
    try:
        asked(store, *inputs, of=of)
    except (PilotlightError, ValueError):
        return True
    return False


def test_no_attack_gets_through() -> None:
    assert attacks() == []


# --- and each rule, broken on purpose ---------------------------------------------------------------------------------

Mutation = tuple[ModuleType, str, str]
MUTATIONS: list[Mutation] = [
    (upload, "isinstance(uri, str) and uri.startswith(below)", "isinstance(uri, str)"),
    (upload, "isinstance(uri, str) and uri.startswith(below)", "uri.startswith(below)"),
    (upload, 'below = f"{store}/{folder}/"', 'below = "s3://"'),
    (upload, 'below = f"{store}/{folder}/"', 'below = f"{store}/"'),
    (upload, "KEY_PATTERN.fullmatch(key)", "KEY_PATTERN.match(key)"),
    (upload, "KEY_PATTERN.fullmatch(key)", "key"),
    (upload, '[A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*"', '[A-Za-z0-9._-]*(?:/[A-Za-z0-9._-]*)*"'),
    (upload, '[A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*"', '[A-Za-z0-9._-]*(?:/[^.][^/]*)*"'),
    (upload, 'r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?:', 'r"[A-Za-z0-9=_-][A-Za-z0-9=._-]*(?:'),
    (upload, "len(folder) + 1 + len(key) > MAX_KEY_LENGTH or ", ""),
    (upload, "folder = tenant_folder(UPLOADS_FOLDER, tenant)", "folder = UPLOADS_FOLDER"),
    (large_tensors, "self._registry.store.url, uri, self._tenant)", "self._registry.store.url, uri)"),
    (large_tensors, "if size > remaining_bytes:", "if False:"),
    (large_tensors, "not expected_bytes <= size <= expected_bytes + MAX_NPY_HEADER_BYTES", "size < expected_bytes"),
    (large_tensors, "not expected_bytes <= size <= expected_bytes + MAX_NPY_HEADER_BYTES", "False"),
    (large_tensors, "(*stored_shape,) != (*shape,)", "False"),
    (large_tensors, "or dtype.newbyteorder", "and dtype.newbyteorder"),
    (
        large_tensors,
        "blocks(path, 0, size, e_tag)",
        "blocks(path, 0, size, self._registry.store.get_size_and_e_tag(path)[1])",
    ),
    (v2, "self._uploads.budget_bytes - self._fetched_bytes", "self._uploads.budget_bytes"),
    (v2, "self._fetched_bytes += len(data)", "len(data)"),
]


@pytest.mark.parametrize("number", range(len(MUTATIONS)))
def test_code_that_breaks_a_rule_is_found(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module, right, wrong = MUTATIONS[number]
    text = Path(str(module.__file__)).read_text()
    assert text.count(right) == 1, right
    broken = ModuleType(module.__name__)
    broken.__dict__.update(__file__=module.__file__)
    exec(compile(text.replace(right, wrong), module.__name__, "exec"), broken.__dict__)  # noqa: S102 - our own code
    if module is upload:
        monkeypatch.setattr(large_tensors, "upload", broken)
    if module is v2:
        monkeypatch.setattr(v2, "BinaryPayload", broken.BinaryPayload)
    assert attacks(broken if module is large_tensors else large_tensors) != []
