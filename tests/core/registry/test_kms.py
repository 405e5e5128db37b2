"""Versions signed by KMS, which moto plays, and checked without it."""

import base64
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

from pilotlight.contracts.names import ModelReference
from pilotlight.errors import BrokenDocumentError, InvalidInputError, ModelRefusedError, UnavailableError
from pilotlight.registry.kms import KmsSigner
from pilotlight.registry.registry import Registry, signature_path, version_path
from pilotlight.registry.signing import PublicKey, build_signature
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.settings import Settings
from tests import fakes

ROOT = Path(__file__).parents[3]


@pytest.fixture
def key(aws_environment: dict[str, str]) -> str:
    """A key of KMS, by id."""
    made = boto3.client("kms").create_key(KeyUsage="SIGN_VERIFY", KeySpec="RSA_2048")
    return str(made["KeyMetadata"]["KeyId"])


@pytest.fixture
def trusting(registry: Registry, key: str) -> Registry:
    """A registry that serves what the key has signed, with two versions of which the first is signed."""
    for _ in range(2):
        fakes.publish(registry)
    registry.sign_manifest("double", 1, KmsSigner(key), actor="ann")
    return Registry(registry.store, PublicKey.parse(public(key)))


def public(key: str) -> str:
    return base64.b64encode(boto3.client("kms").get_public_key(KeyId=key)["PublicKey"]).decode()


def test_a_signed_version_is_served(trusting: Registry) -> None:
    assert trusting.load_manifest("double", 1).version == 1
    assert trusting.resolve_reference(ModelReference.parse("double")) == 1


def test_an_unsigned_version_is_refused(trusting: Registry) -> None:
    with pytest.raises(ModelRefusedError, match="double:2 is refused: it is not signed"):
        trusting.load_manifest("double", 2)


def test_a_function_with_the_key_opens_what_it_signed_alone(trusting: Registry, key: str) -> None:
    catalog = ModelManager.from_settings(Settings(signing_key=public(key)), trusting.store)
    assert catalog.get_model(ModelReference("double", 1)).manifest.version == 1
    with pytest.raises(ModelRefusedError, match="double:2 is refused: it is not signed"):
        catalog.get_model(ModelReference("double", 2))
    assert (
        ModelManager.from_settings(Settings(), trusting.store).get_model(ModelReference("double", 2)).manifest.version
        == 2
    )


def test_a_changed_manifest_is_refused(trusting: Registry) -> None:
    path = version_path("double", 1, "manifest.json")
    changed = trusting.store.get(path).data.replace(b'"double"', b'"dauble"')
    trusting.store.put(path, changed)
    with pytest.raises(ModelRefusedError, match="its signature was not made over this manifest"):
        trusting.load_manifest("double", 1)


def test_a_signature_of_another_version_is_refused(trusting: Registry) -> None:
    signature = trusting.store.get(signature_path("double", 1)).data
    trusting.store.put(signature_path("double", 2), signature)
    with pytest.raises(ModelRefusedError, match="its signature was not made over this manifest"):
        trusting.load_manifest("double", 2)


@pytest.mark.parametrize(("name", "version"), [("double", 7), ("other", 1)])
def test_a_signed_manifest_of_another_place_is_refused(trusting: Registry, name: str, version: int) -> None:
    """With its signature, and where former releases put it too; nor is it signed there."""
    signature = trusting.store.get(signature_path("double", 1)).data
    manifest = trusting.store.get(version_path("double", 1, "manifest.json")).data
    trusting.store.put(version_path(name, version, "manifest.json"), manifest)
    with pytest.raises(BrokenDocumentError, match="is not of this place"):
        trusting.sign_manifest(name, version, KmsSigner("never asked"), actor="ann")
    for path in (signature_path(name, version), version_path(name, version, "signature.json")):
        trusting.store.put(path, signature)
        with pytest.raises(UnavailableError, match=r"is refused: its signature|is not of this place"):
            trusting.load_manifest(name, version)


def test_the_signature_covers_name_and_version(trusting: Registry, key: str) -> None:
    manifest = trusting.store.get(version_path("double", 1, "manifest.json")).data
    signature = build_signature("double", 1, manifest, KmsSigner(key), "ann")
    trusted = PublicKey.parse(public(key))
    assert trusted.has_signed("double", 1, manifest, signature)
    assert not trusted.has_signed("double", 2, manifest, signature)
    assert not trusted.has_signed("other", 1, manifest, signature)


def test_a_signature_of_a_former_release_is_believed_where_it_lies(trusting: Registry, key: str) -> None:
    """It says the manifest's hash alone, and the manifest says the rest."""
    manifest = trusting.store.get(version_path("double", 2, "manifest.json")).data
    statement = b"pilotlight manifest sha256:" + hashlib.sha256(manifest).hexdigest().encode()
    signature = base64.b64encode(KmsSigner(key).sign(statement)).decode()
    document = {"key": key, "sha256": "", "signature": signature, "by": "ann", "at": "", "schema_version": 1}
    path = version_path("double", 2, "signature.json")
    trusting.store.put(path, json.dumps(document).encode())
    assert trusting.load_manifest("double", 2).version == 2
    trusting.store.put(path, json.dumps(document | {"schema_version": 2}).encode())
    with pytest.raises(ModelRefusedError, match="its signature was not made over this manifest"):
        trusting.load_manifest("double", 2)


@pytest.mark.parametrize("text", ["AAAA", "not base64!"])
def test_a_signature_that_is_none_is_refused(trusting: Registry, text: str) -> None:
    path = signature_path("double", 1)
    stored = trusting.store.get(path).data.decode()
    signature = stored.split('"signature": "')[1].split('"')[0]
    trusting.store.put(path, stored.replace(signature, text).encode())
    with pytest.raises(ModelRefusedError, match="double:1 is refused"):
        trusting.load_manifest("double", 1)


def test_a_key_that_is_not_there_is_told(registry: Registry, aws_environment: dict[str, str]) -> None:
    fakes.publish(registry)
    with pytest.raises(InvalidInputError, match="KMS does not sign with 'alias/nobody'"):
        registry.sign_manifest("double", 1, KmsSigner("alias/nobody"), actor="ann")


def test_the_handler_checks_signatures_without_boto3() -> None:
    program = "import sys, pilotlight.registry.registry; sys.exit('boto3' in sys.modules)"
    environment = {"PYTHONPATH": str(ROOT / "layers" / "core")}
    assert subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode == 0
