"""An issuer of tokens on loopback: real keys, a JWKS over real https, and tokens right and wrong."""

import datetime
import http.server
import ipaddress
import json
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from tests.threaded_server import serve_in_thread

NAME = "https://issuer.example.com/"
AUDIENCE = "pilotlight"
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def jwk(kid: str, key: PrivateKey, **more: str) -> dict[str, Any]:
    """The public half, as an issuer publishes it."""
    public = key.public_key()
    algorithm: Any = RSAAlgorithm if isinstance(public, rsa.RSAPublicKey) else ECAlgorithm
    return {**algorithm.to_jwk(public, as_dict=True), "kid": kid, "use": "sig", **more}


def claims(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - a claim may hold anything
    """Those of a right token; one that is None is left out."""
    now = int(time.time())
    right = {"iss": NAME, "aud": AUDIENCE, "sub": "acme", "iat": now, "nbf": now, "exp": now + 600, "scope": "infer"}
    return {name: value for name, value in {**right, **changes}.items() if value is not None}


@dataclass
class FakeIssuer:
    """Signs with keys that it can change."""

    keys: dict[str, PrivateKey] = field(
        default_factory=lambda: {"one": rsa_key(), "two": ec.generate_private_key(ec.SECP256R1())}
    )
    fetches: int = 0
    is_down: bool = False  # answers 503 to everything
    published: dict[str, Any] | None = None  # instead of the keys, where a test wants another JWKS

    def jwks(self) -> dict[str, Any]:
        """What it publishes."""
        self.fetches += 1
        return self.published or {"keys": [jwk(kid, key) for kid, key in self.keys.items()]}

    def token(self, kid: str = "one", *, head: dict[str, Any] | None = None, **changes: Any) -> str:  # noqa: ANN401
        """A token by that key; `changes` are of claims."""
        key = self.keys[kid]
        algorithm = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
        return jwt.encode(claims(**changes), key, algorithm, headers={"kid": kid, **(head or {})})

    @contextmanager
    def served(self, folder: Path, host: str = "127.0.0.1", name: str = "") -> Iterator[tuple[str, Path]]:
        """Its JWKS's URL and the certificate to trust, which is its own; `name` is what others call the host."""
        certificate = folder / "issuer.pem"
        certificate.write_bytes(self_signed(name))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server = http.server.ThreadingHTTPServer((host, 0), self._handler())
        server.socket = context.wrap_socket(server.socket, server_side=True)
        with serve_in_thread(server):
            yield f"https://{name or host}:{server.server_port}/jwks.json", certificate

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        issuer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = issuer.answer(self.path)
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/jwks.json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler

    def answer(self, path: str) -> tuple[int, bytes]:
        """By path: the JWKS, or what a broken issuer may say."""
        broken = {"/moved": (302, b""), "/html": (200, b"<html>"), "/list": (200, b"[]"), "/away": (503, b"{}")}
        broken |= {"/large": (200, b'{"keys": [' + b" " * 300_000 + b"]}"), "/deep": (200, b"[" * 100_000)}
        path = "/away" if self.is_down else path
        return broken[path] if path in broken else (200, json.dumps(self.jwks()).encode())


def self_signed(host: str = "") -> bytes:
    """A key and a certificate for 127.0.0.1, or for the host of that name, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    loopback = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    address = x509.SubjectAlternativeName([x509.DNSName(host) if host else loopback])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
    certificate = builder.add_extension(address, critical=False).sign(key, hashes.SHA256())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem + certificate.public_bytes(serialization.Encoding.PEM)
