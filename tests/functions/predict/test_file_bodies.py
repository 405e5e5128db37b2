"""Files as bodies: a photograph in, a name out, under both protocols, alone or in a form."""

import base64
import gzip
import io
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from functions.predict.handler import build_predict_handler
from pilotlight.api import file_bodies
from pilotlight.api.multipart_form import parse_form
from pilotlight.contracts.manifest import TensorSpec
from pilotlight.contracts.processing import ClassificationPostprocessing, ImagePreprocessing, TextPreprocessing
from pilotlight.errors import InvalidInputError
from pilotlight.registry.registry import Registry
from pilotlight.settings import Settings
from pilotlight.storage.object_store import open_store
from tests import fakes

PIXELS = TensorSpec("pixels", "FP32", ("batch", 3, "height", "width"))
SCORES, SAME = TensorSpec("scores", "FP32", ("batch", 3)), TensorSpec("same", "FP32", PIXELS.shape)
BOUNDARY = "----limit"
INFER, INVOCATIONS = "/v2/models/photographs/infer", "/invocations?model=photographs"
JPEG = {"content-type": "image/jpeg"}


def photograph(colour: tuple[int, int, int], kind: str = "JPEG", size: tuple[int, int] = (9, 7)) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", size, colour).save(target, kind)
    return target.getvalue()


WARM = (250, 3, 2)
RED, BLUE = photograph(WARM), photograph((1, 2, 250))


def form(*parts: tuple[str, str, str, bytes]) -> tuple[bytes, dict[str, str]]:
    """A form as curl -F writes it: (field, file name, media type, bytes)."""
    lines = []
    for name, filename, kind, data in parts:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"'
        head += f'; filename="{filename}"\r\nContent-Type: {kind}' if filename else ""
        lines.append(head.encode() + b"\r\n\r\n" + data + b"\r\n")
    return b"".join(lines) + f"--{BOUNDARY}--\r\n".encode(), {
        "content-type": f"multipart/form-data; boundary={BOUNDARY}"
    }


class Function:
    """The predict function over a store with a model of photographs, one of numbers and one of texts."""

    def __init__(self, url: str) -> None:
        self.registry = Registry(open_store(url))
        draft = msgspec.structs.replace(
            fakes.draft("photographs", (PIXELS,), (SCORES, SAME)),
            task="image",
            preprocess=ImagePreprocessing(input="pixels", resize=(4, 4), max_pixels=10_000),
            postprocess=ClassificationPostprocessing(output="scores"),
            labels=("red", "green", "blue"),
        )
        self.registry.publish_version(draft, {"model.onnx": fakes.graph("colours")})
        fakes.publish(self.registry, of="double")
        fakes.publish_echo(self.registry, "BYTES")
        self.handle = build_predict_handler(Settings(store=url))

    def __call__(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, Any]:
        route, _, query = path.partition("?")
        named = dict([query.split("=")]) if query else None
        answer = self.handle(fakes.event(self.handle._routes, "POST", route, body, headers, named), None)
        return answer["statusCode"], json.loads(answer["body"])

    def names(self, path: str, body: bytes, headers: Mapping[str, str]) -> list[str]:
        """The names that are answered for the images of a body."""
        status, answer = self(path, body, headers)
        assert status == 200, answer
        return list(answer["predictions"]["label"] if "predictions" in answer else answer["outputs"][0]["data"])

    def refusal(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, str]:
        """The status and the sentence of a refusal."""
        status, answer = self(path, body, headers)
        return status, answer.get("message") or answer.get("error")


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Function:
    return Function(str(tmp_path_factory.mktemp("store")))


@pytest.mark.parametrize("path", [INFER, INVOCATIONS, "/v2/models/photographs/versions/1/infer"])
def test_a_photo_goes_in_and_its_name_comes_out(call: Function, path: str) -> None:
    for kind, body in (("image/jpeg", RED), ("image/png", photograph(WARM, "PNG")), ("Image/JPEG; q=1", RED)):
        assert call.names(path, body, {"content-type": kind}) == ["red"]
    assert call.names(path, BLUE, {"content-type": "application/octet-stream"}) == ["blue"]
    assert call.names(path, gzip.compress(BLUE), JPEG | {"content-encoding": "gzip"}) == ["blue"]


def test_the_answers_are_those_of_their_protocols(call: Function) -> None:
    status, answer = call(INFER, RED, JPEG)
    assert status == 200
    assert [(given["name"], given["datatype"], given["shape"]) for given in answer["outputs"]] == [
        ("label", "BYTES", [1]),
        ("probability", "FP32", [1]),
    ]
    assert list(call(INVOCATIONS, RED, JPEG)[1]["predictions"]) == ["label", "probability"]


@pytest.mark.parametrize("path", [INFER, INVOCATIONS])
def test_files_of_a_form_are_a_batch(call: Function, path: str) -> None:
    for field in ("image", "file"):  # the input's name, or any other
        body, headers = form((field, "a.jpg", "image/jpeg", RED), (field, "b.jpg", "image/jpeg", BLUE))
        assert call.names(path, body, headers) == ["red", "blue"]
    body, headers = form(("image", "a.webpage", "application/octet-stream", BLUE), ("threshold", "", "", b"0.5"))
    assert call.names(path, body, headers) == ["blue"]


def test_json_under_any_media_type_is_still_json(call: Function) -> None:
    body = msgspec.json.encode({"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]})
    for kind in ("", "text/plain", "application/x-www-form-urlencoded", "application/octet-stream"):
        for sent in (body, b" \n" + body):
            status, answer = call("/v2/models/double/infer", sent, {"content-type": kind})
            assert (status, answer["outputs"][0]["data"]) == (200, [2, 4, 6])
    compressed = {"content-type": "text/plain", "content-encoding": "gzip"}
    assert call("/v2/models/double/infer", gzip.compress(body), compressed)[0] == 200
    status, sentence = call.refusal("/v2/models/double/infer", b"[1, 2, 3]", {"content-type": ""})
    assert (status, sentence[:32]) == (400, "The body is not an infer request")


def test_an_object_whose_type_does_not_tell_is_json_of_mlflow_too(call: Function) -> None:
    """As curl -d sends it, which says that it is a form."""
    path, body = "/invocations?model=double", b' {"instances": [[1, 2, 3]]}'
    for kind in ("application/x-www-form-urlencoded", "application/octet-stream"):
        assert call(path, body, {"content-type": kind}) == (200, {"predictions": [[2, 4, 6]]})
        compressed = {"content-type": kind, "content-encoding": "gzip"}
        assert call(path, gzip.compress(body), compressed) == (200, {"predictions": [[2, 4, 6]]})
    assert call.refusal(path, b"a=1&b=2", {"content-type": "application/x-www-form-urlencoded"})[0] == 415


def test_a_form_brings_numbers_too(call: Function) -> None:
    body, headers = form(("x", "", "", b"[[1, 2, 3], [4, 5, 6]]"))
    assert call("/v2/models/double/infer", body, headers)[1]["outputs"][0]["data"] == [2, 4, 6, 8, 10, 12]
    assert call("/invocations?model=double", body, headers)[1] == {"predictions": [[2, 4, 6], [8, 10, 12]]}


@pytest.mark.parametrize("path", [INFER, INVOCATIONS])
def test_a_field_may_have_its_file_in_base64(call: Function, path: str) -> None:
    encoded = base64.b64encode(RED)
    for sent in (encoded, b"data:image/jpeg;base64," + encoded):
        assert call.names(path, *form(("image", "", "", sent))) == ["red"]
    name = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n'
    for kind, sent in (("base64", base64.encodebytes(RED)), ("Binary", RED)):
        body = f"{name}Content-Transfer-Encoding: {kind}\r\n\r\n".encode() + sent + f"\r\n--{BOUNDARY}--\r\n".encode()
        assert call.names(path, body, {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}) == ["red"]


def test_texts_are_of_the_charset_that_they_declare(call: Function) -> None:
    path, text = "/v2/models/echo-bytes/infer", '[["žluť"]]'
    for charset in ("utf-8", "utf-16", "utf-16le"):
        head = (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="x"\r\nContent-Type: text/plain; charset={charset}'
        )
        body = head.encode() + b"\r\n\r\n" + text.encode(charset) + f"\r\n--{BOUNDARY}--\r\n".encode()
        status, answer = call(path, body, {"content-type": f"multipart/form-data; boundary={BOUNDARY}"})
        assert (status, answer["outputs"][0]["data"]) == (200, ["žluť"])


@pytest.mark.parametrize("charset", ["utf-8", "utf-16", "utf-16le", "iso-8859-1"])
def test_a_text_is_of_the_charset_that_its_type_declares(charset: str) -> None:
    model = fakes.stepped(
        TextPreprocessing(tokenizer="tokenizer.json"),
        of=((TensorSpec("x", "INT64", ("batch", 2)),), fakes.ROW[1]),
    )
    request = file_bodies.decode_file_request("Müller".encode(charset), f"text/plain; charset={charset}", model)
    assert request.tensors["text"].tolist() == ["Müller"]


def test_a_form_has_nan_and_any_boundary(call: Function) -> None:
    body = b'--=_/x\r\nContent-Disposition: form-data; name="x"\r\n\r\n[[NaN, 2, 3]]\r\n--=_/x--\r\n'
    status, answer = call("/v2/models/double/infer", body, {"content-type": "multipart/form-data; boundary==_/x"})
    assert (status, answer["outputs"][0]["data"]) == (200, [None, 4, 6])


REFUSALS = [
    (INFER, b"\xff\xd8\xff", {"content-type": "image/jpeg"}, 400, "Image 0 cannot be read"),
    (INFER, b"", JPEG, 400, "The body is empty; send the bytes of a file"),
    (
        INFER,
        RED,
        {"content-type": "audio/wav"},
        415,
        "The body is 'audio/wav', which photographs does not take",
    ),
    (INFER, RED, {"content-type": "application/x-www-form-urlencoded"}, 415, "does not tell what else it is: say so"),
    (INFER, RED, {"content-type": ""}, 415, "its Content-Type (there is none) does not tell"),
    (INFER, RED, {"content-type": "multipart/form-data"}, 415, "multipart/form-data without a boundary"),
    (INFER, b"--x--", {"content-type": "multipart/form-data; boundary=y"}, 400, "The body is no multipart form"),
    (INFER, *form(("image", "", "", b"hello")), 400, "Image 0 is neither PNG nor JPEG"),
    (INFER, *form(("image", "", "", b"aGVsbG8=")), 400, "Image 0 is neither PNG nor JPEG: its 5 bytes"),
    (INFER, RED, JPEG | {"content-encoding": "br"}, 415, "Content-Encoding 'br' is not served; use gzip, deflate"),
    (INFER, *form(("a", "a.jpg", "image/jpeg", RED), ("b", "b.jpg", "image/jpeg", RED)), 400, "'image' is missing"),
    (INFER, *form(("image", "a.wav", "audio/wav", RED)), 415, "The form's file 'a.wav' is 'audio/wav'"),
    (INVOCATIONS, RED, {"content-type": "text/html"}, 415, "The body is 'text/html', which photographs does not take"),
    ("/invocations?model=double", RED, JPEG, 415, "double takes no file: its inputs are 'x' (FP32 [-1, 3])"),
    ("/v2/models/double/infer", RED, {"content-type": ""}, 415, "The body is no JSON, but double takes no file"),
    ("/v2/models/double/infer", *form(("x", "", "", b"[[1, 2")), 400, "Input 'x' is not FP32"),
    ("/v2/models/double/infer", *form(("y", "", "", b"1")), 400, "double has the inputs ['x']; 'x' is missing"),
    (INFER, photograph(WARM, size=(200, 100)), JPEG, 413, "more than 10,000; send smaller ones"),
]


@pytest.mark.parametrize(("path", "body", "headers", "status", "hint"), REFUSALS)
def test_each_refusal_is_a_sentence(
    call: Function, path: str, body: bytes, headers: Mapping[str, str], status: int, hint: str
) -> None:
    found, sentence = call.refusal(path, body, headers)
    assert hint in sentence
    assert found == status


def test_more_files_than_a_request_may_have_are_refused_before_they_are_opened(call: Function) -> None:
    body, headers = form(*(("image", "a.jpg", "image/jpeg", b"") for _ in range(1001)))
    status, sentence = call.refusal(INFER, body, headers)
    assert (status, sentence[:29]) == (400, "The body is no multipart form")
    body = gzip.compress(b"\xff\xd8\xff" + b"\0" * 70_000_000)
    status, sentence = call.refusal(INFER, body, JPEG | {"content-encoding": "gzip"})
    assert (status, "once decompressed" in sentence) == (413, True)


@given(parts=st.lists(st.binary(max_size=40), max_size=4), cut=st.integers(0, 400))
def test_any_form_is_parsed_or_refused(parts: list[bytes], cut: int) -> None:
    body, headers = form(*(("image", f"{place}.jpg", "image/jpeg", part) for place, part in enumerate(parts)))
    if not any(b"--" + BOUNDARY.encode() in part for part in parts):
        assert [part.data for part in parse_form(body, headers["content-type"])] == parts
    with suppress(InvalidInputError):
        assert [part.data for part in parse_form(body[:cut], headers["content-type"])] == parts
