import json
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.contracts.alias import AliasDocument
from pilotlight.contracts.codec import decode_document, encode_document
from pilotlight.contracts.manifest import Manifest, ManifestDraft, TensorSpec
from pilotlight.contracts.names import ModelReference, check_name
from pilotlight.contracts.processing import (
    EmbeddingPostprocessing,
    RegressionPostprocessing,
    TableColumn,
    TablePreprocessing,
    TextPreprocessing,
)
from pilotlight.contracts.version_files import describe_file
from pilotlight.errors import InvalidInputError
from pilotlight.registry.registry import build_manifest
from tests import fakes

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True).filter(lambda name: name != "stats")


@given(names, st.integers(1, 10**17))
def test_references_read_back(name: str, version: int) -> None:
    assert ModelReference.parse(f"{name}:{version}") == ModelReference(name, version)
    assert ModelReference.parse(str(ModelReference(name, version))) == ModelReference(name, version)
    assert ModelReference.parse(name) == ModelReference(name, None, "champion")


@given(names, names.filter(lambda alias: not alias.isdecimal()))
def test_aliases_read_back(name: str, alias: str) -> None:
    assert str(ModelReference.parse(f"{name}@{alias}")) == str(ModelReference(name, None, alias))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "not a model name"),
        ("-x", "not a model name"),
        ("a b", "not a model name"),
        ("a/b", "not a model name"),
        ("stats", "not a model name"),
        ("x" * 65, "not a model name"),
        ("digits:", "write name, name:3 or name@alias"),
        ("digits:0", "follow ':'"),
        ("digits:01", "follow ':'"),
        ("digits:-1", "follow ':'"),
        ("digits:three", "follow ':'"),
        ("digits@3", "aliases '@'"),
        ("digits@0", "neither a version"),
        ("digits@", "write name, name:3 or name@alias"),
        ("digits@a b", "not a version or alias"),
        ("digits\n", "not a model name"),
    ],
)
def test_wrong_references_say_what_is_right(text: str, hint: str) -> None:
    with pytest.raises(InvalidInputError, match=hint):
        ModelReference.parse(text)


@given(st.text(string.printable, max_size=20))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        reference = ModelReference.parse(text)
    except InvalidInputError:
        return
    assert check_name(reference.name, "model name") == reference.name


def wrong_manifest(**changes: object) -> bytes:
    manifest = json.loads(encode_document(valid_manifest()))
    return json.dumps({key: value for key, value in (manifest | changes).items() if value != "absent"}).encode()


def valid_manifest() -> Manifest:
    return build_manifest(fakes.draft(), (describe_file("model.onnx", b"graph"),))


def test_a_manifest_reads_back() -> None:
    manifest = valid_manifest()
    assert decode_document(encode_document(manifest), Manifest, "here") == manifest


def test_steps_have_other_names_in_json() -> None:
    """Manifests in stores, and callers of the API, have `prepare` and `finish`."""
    table = TablePreprocessing(input="x", columns=(TableColumn(name="age"),))
    manifest = fakes.stepped(table, RegressionPostprocessing(output="y"))
    fields = json.loads(encode_document(manifest))
    assert (fields["prepare"]["kind"], fields["finish"]["kind"]) == ("tabular", "regression")
    assert not {"preprocess", "postprocess"} & fields.keys()
    assert [*fields][4:8] == ["prepare", "finish", "labels", "variants"]
    assert decode_document(encode_document(manifest), Manifest, "here") == manifest


def test_an_old_manifest_keeps_its_steps() -> None:
    files = [{"path": path, "bytes": 1, "sha256": "0" * 64} for path in ("model.onnx", "tokenizer.json")]
    steps = {"prepare": {"kind": "text"}, "finish": {"kind": "embedding", "output": "y"}}
    manifest = decode_document(wrong_manifest(task="text", files=files, **steps), Manifest, "here")
    assert manifest.preprocess == TextPreprocessing()
    assert manifest.postprocess == EmbeddingPostprocessing(output="y")


def test_an_error_names_the_field_in_json() -> None:
    with pytest.raises(InvalidInputError, match=r"`\$\.prepare\.kind`"):
        decode_document(wrong_manifest(prepare={"kind": "sound"}), Manifest, "here")


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"version": 0}, r"\$\.version"),
        ({"version": "1"}, r"\$\.version"),
        ({"schema_version": 2}, r"\$\.schema_version"),
        ({"outputs": []}, r"\$\.outputs"),
        ({"inputs": "absent"}, "inputs"),
        ({"serve": "int8"}, "serves 'int8'"),
        ({"variants": {"fp64": {"graph": "model.onnx"}}}, r"\$\.variants"),
        ({"variants": {"fp32": {"graph": "other.onnx"}}}, "not among its files"),
        ({"report": "report.json"}, "not among its files"),
        ({"files": [{"path": "../../etc/passwd", "bytes": 1, "sha256": "0" * 64}]}, r"\$\.files\[0\]\.path"),
        ({"files": [{"path": "/etc/passwd", "bytes": 1, "sha256": "0" * 64}]}, r"\$\.files\[0\]\.path"),
        ({"files": [{"path": "a/../b", "bytes": 1, "sha256": "0" * 64}]}, r"\$\.files\[0\]\.path"),
        ({"files": [{"path": "model.onnx", "bytes": -1, "sha256": "0" * 64}]}, r"\$\.files\[0\]\.bytes"),
        ({"files": [{"path": "model.onnx", "bytes": 1, "sha256": "short"}]}, r"\$\.files\[0\]\.sha256"),
    ],
)
def test_wrong_manifests_name_the_field(changes: dict[str, Any], hint: str) -> None:
    with pytest.raises(InvalidInputError, match=hint):
        decode_document(wrong_manifest(**changes), Manifest, "models/double/versions/1/manifest.json")


def test_newer_fields_are_let_through() -> None:
    assert decode_document(wrong_manifest(signature="later"), Manifest, "here").name == "double"


@given(st.binary(max_size=200))
def test_garbage_is_refused_with_its_place(data: bytes) -> None:
    with pytest.raises(InvalidInputError, match="over there is not a AliasDocument"):
        decode_document(data, AliasDocument, "over there")


def test_free_dimensions_print_as_minus_one() -> None:
    assert TensorSpec("x", "FP32", ("batch", 3, "width")).v2_shape == [-1, 3, -1]


def test_a_draft_is_no_manifest() -> None:
    with pytest.raises(InvalidInputError, match="is not a Manifest"):
        decode_document(encode_document(fakes.draft()), Manifest, "here")
    assert decode_document(encode_document(fakes.draft()), ManifestDraft, "here") == fakes.draft()
