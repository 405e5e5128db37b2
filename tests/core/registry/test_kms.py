"""Versions signed by KMS, which moto plays, and checked without it."""

import base64
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

from pilotlight.contracts.names import ModelReference
from pilotlight.errors import InvalidInputError, ModelRefusedError
from pilotlight.registry.kms import KmsSigner
from pilotlight.registry.registry import Registry, version_path
from pilotlight.registry.signing import PublicKey
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
    signature = trusting.store.get(version_path("double", 1, "signature.json")).data
    trusting.store.put(version_path("double", 2, "signature.json"), signature)
    with pytest.raises(ModelRefusedError, match="its signature was not made over this manifest"):
        trusting.load_manifest("double", 2)


@pytest.mark.parametrize("text", ["AAAA", "not base64!"])
def test_a_signature_that_is_none_is_refused(trusting: Registry, text: str) -> None:
    path = version_path("double", 1, "signature.json")
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
