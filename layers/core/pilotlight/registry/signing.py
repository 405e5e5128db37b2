"""Signatures of manifests: RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017, section 8.2), made by AWS KMS, checked here.

The check is plain Python, since a library for it would be a tenth of the handlers' layer. It builds the whole encoded
message and compares it; nothing inside the signature is parsed, so that no padding can be accepted by mistake.
"""

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from typing import Literal, Protocol

from msgspec import Struct

from pilotlight.contracts.codec import format_utc_now
from pilotlight.errors import InvalidInputError

ALGORITHM = "RSASSA_PKCS1_V1_5_SHA_256"  # as KMS names it
SHA256_INFO = bytes.fromhex("3031300d060960864801650304020105000420")  # DigestInfo up to the digest; RFC 8017, 9.2
RSA_OID = bytes.fromhex("2a864886f70d010101")  # rsaEncryption
MIN_BITS = 2048
SEQUENCE, BIT_STRING, INTEGER = 0x30, 0x03, 0x02  # DER's tags; X.690


class ManifestSignature(Struct, frozen=True, kw_only=True):
    """`signatures/<name>/<n>.json`: that the holder of the key has passed a version, of this name and number alone."""

    schema_version: Literal[1, 2] = 2  # of the statement that is signed; the first named no version
    key: str  # of KMS, by ARN or alias; for the reader only: handlers verify with the public key in their settings
    algorithm: Literal["RSASSA_PKCS1_V1_5_SHA_256"] = "RSASSA_PKCS1_V1_5_SHA_256"
    sha256: str  # of manifest.json, in hex; for the reader only
    signature: str  # base64
    by: str
    at: str  # RFC 3339, UTC

    @property
    def signature_bytes(self) -> bytes:
        """The signature itself; empty where it is not base64, which no key accepts."""
        try:
            return base64.b64decode(self.signature, validate=True)
        except binascii.Error:
            return b""


def build_signed_statement(name: str, version: int, manifest: bytes, schema_version: int = 2) -> bytes:
    """Build the message that is signed: the version and its manifest's sha256; KMS takes 4,096 bytes."""
    place = f" {name}:{version}" if schema_version > 1 else ""
    return f"pilotlight manifest{place} sha256:{hashlib.sha256(manifest).hexdigest()}".encode()


class Signer(Protocol):
    """The holder of the private key."""

    key: str  # its name

    def sign(self, message: bytes) -> bytes:
        """Sign a message."""


def build_signature(name: str, version: int, manifest: bytes, signer: Signer, actor: str) -> ManifestSignature:
    """Sign a version; return the document to store."""
    signature = base64.b64encode(signer.sign(build_signed_statement(name, version, manifest))).decode()
    digest = hashlib.sha256(manifest).hexdigest()
    return ManifestSignature(key=signer.key, sha256=digest, signature=signature, by=actor, at=format_utc_now())


@dataclass(frozen=True)
class PublicKey:
    """An RSA public key: modulus and exponent."""

    modulus: int
    exponent: int

    @classmethod
    def parse(cls, text: str) -> "PublicKey":
        """Parse base64 of a DER SubjectPublicKeyInfo (RFC 5280), as `aws kms get-public-key` gives it; PEM as well."""
        lines = [line for line in text.split("\n") if not line.startswith("-----")]
        try:
            (outer,) = parse_der_values(base64.b64decode("".join("".join(lines).split()), validate=True), SEQUENCE)
            algorithm, bits = parse_der_values(outer, SEQUENCE, BIT_STRING)
            if RSA_OID not in algorithm:
                raise ValueError("it is the key of another algorithm")  # noqa: TRY301 - reported like the other causes
            (key,) = parse_der_values(bits[1:], SEQUENCE)  # the first byte counts unused bits, of which there are none
            modulus, exponent = (int.from_bytes(part, "big") for part in parse_der_values(key, INTEGER, INTEGER))
        except (ValueError, IndexError, binascii.Error) as exc:
            raise InvalidInputError(f"The signing key is not base64 of an RSA public key in DER: {exc}.") from exc
        if modulus.bit_length() < MIN_BITS:
            raise InvalidInputError(f"The signing key has {modulus.bit_length()} bits; {MIN_BITS} are the least.")
        return cls(modulus, exponent)

    def has_signed(self, name: str, version: int, manifest: bytes, signature: ManifestSignature) -> bool:
        """Return whether the signature was made with this key over this manifest, as this version of this model."""
        statement = build_signed_statement(name, version, manifest, signature.schema_version)
        return self.is_valid_signature(statement, signature.signature_bytes)

    def is_valid_signature(self, message: bytes, signature: bytes) -> bool:
        """Return whether the signature over the message was made with this key."""
        size = (self.modulus.bit_length() + 7) // 8
        number = int.from_bytes(signature, "big")
        if len(signature) != size or number >= self.modulus:
            return False
        decrypted = pow(number, self.exponent, self.modulus).to_bytes(size, "big")
        return hmac.compare_digest(decrypted, encode_pkcs1_message(message, size))


def encode_pkcs1_message(message: bytes, size: int) -> bytes:
    """Encode the message as the signature must hold it, in `size` bytes: EMSA-PKCS1-v1_5."""
    info = SHA256_INFO + hashlib.sha256(message).digest()
    return b"\0\1" + b"\xff" * (size - len(info) - 3) + b"\0" + info


def parse_der_values(der: bytes, *tags: int) -> list[bytes]:
    """Parse consecutive DER values, which must have these tags; return their contents; X.690."""
    values = []
    for tag in tags:
        if der[0] != tag:
            raise ValueError(f"there is a {der[0]:#04x} where a {tag:#04x} belongs")
        length, start = der[1], 2
        if length >= 0x80:  # the long form: so many bytes that hold the length
            start += length - 0x80
            length = int.from_bytes(der[2:start], "big")
        if len(der) < start + length:
            raise ValueError("it ends too early")
        values.append(der[start : start + length])
        der = der[start + length :]
    return values
