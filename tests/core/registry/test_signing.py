"""Only what the key has signed is vouched for; keys and signatures here are OpenSSL's, by way of cryptography."""

import base64

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.errors import InvalidInputError
from pilotlight.registry.signing import PublicKey

KEY = rsa.generate_private_key(65537, 2048)


def der(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> str:
    raw = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(raw).decode()


def sign(message: bytes) -> bytes:
    return KEY.sign(message, padding.PKCS1v15(), hashes.SHA256())


PUBLIC = PublicKey.parse(der(KEY.public_key()))
SIGNATURE = sign(b"manifest")


@given(st.binary(max_size=2000))
def test_what_was_signed_is_vouched_for(message: bytes) -> None:
    assert PUBLIC.is_valid_signature(message, sign(message))


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
def test_keys_of_every_size_of_kms_are_read(bits: int) -> None:
    key = rsa.generate_private_key(65537, bits)
    read = PublicKey.parse(der(key.public_key()))
    assert read == PublicKey(key.public_key().public_numbers().n, 65537)
    assert read.is_valid_signature(b"m", key.sign(b"m", padding.PKCS1v15(), hashes.SHA256()))


def test_pem_is_read_too() -> None:
    pem = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert PublicKey.parse(pem.decode()) == PUBLIC


@given(st.integers(0, 255), st.integers(1, 255))
def test_one_other_byte_is_not(position: int, change: int) -> None:
    bent = bytearray(SIGNATURE)
    bent[position] ^= change
    assert not PUBLIC.is_valid_signature(b"manifest", bytes(bent))


@pytest.mark.parametrize("signature", [b"", SIGNATURE[:-1], SIGNATURE + b"\0", b"\xff" * 256, b"\0" * 256])
def test_neither_is_what_is_no_signature(signature: bytes) -> None:
    assert not PUBLIC.is_valid_signature(b"manifest", signature)


def test_another_key_or_message_or_scheme_is_not() -> None:
    other = rsa.generate_private_key(65537, 2048)
    assert not PUBLIC.is_valid_signature(b"manifest", other.sign(b"manifest", padding.PKCS1v15(), hashes.SHA256()))
    assert not PUBLIC.is_valid_signature(b"other", SIGNATURE)
    assert not PUBLIC.is_valid_signature(b"manifest", KEY.sign(b"manifest", padding.PKCS1v15(), hashes.SHA512()))
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH)
    assert not PUBLIC.is_valid_signature(b"manifest", KEY.sign(b"manifest", pss, hashes.SHA256()))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not base64 of an RSA public key"),
        ("not base64!", "is not base64 of an RSA public key"),
        (base64.b64encode(b"\x30\x82\x01").decode(), "is not base64 of an RSA public key"),
        (der(ec.generate_private_key(ec.SECP256R1()).public_key()), "it is the key of another algorithm"),
        (der(rsa.generate_private_key(65537, 1024).public_key()), "has 1024 bits; 2048 are the least"),  # noqa: S505 - refused for that
    ],
)
def test_what_is_no_key_is_refused(text: str, why: str) -> None:
    with pytest.raises(InvalidInputError, match=why):
        PublicKey.parse(text)


@given(st.binary(max_size=400))
def test_no_bytes_crash_the_parser(raw: bytes) -> None:
    with pytest.raises(InvalidInputError):
        PublicKey.parse(base64.b64encode(raw).decode())
