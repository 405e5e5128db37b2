"""A server of Pilotlight as a caller has it: a URL, keys, and the store behind it with the models of these tests."""

import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import httpx2
from msgspec import structs

from pilotlight.contracts.manifest import Datatype
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.conformance.conftest import publish_pair
from tests.functions.generate.test_embeddings_endpoints import publish_vectors
from tests.language_model_versions import publish_scripted

Kind = Literal["serve", "sam", "deployed"]
COMMAND = (sys.executable, "-c", "from pilotlight.cli import app; app()")  # `pilotlight`, in any environment
ALL_SCOPES = "infer,batch,admin,train"
ECHOES: tuple[Datatype, ...] = ("FP16", "BF16", "FP32", "INT64", "UINT8", "BOOL", "BYTES")
TIMEOUT_S = 120.0
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Bern"}}\n</tool_call>'  # what `calling` says
CITY = '{"city": "Bern"}'  # what `telling` says


@dataclass(frozen=True)
class Server:
    """Where a server is, and by which keys it answers; without keys, it asks nobody for one."""

    kind: Kind
    url: str
    store_url: str
    key: str = ""  # of all scopes
    infer_key: str = ""  # of the scope infer alone
    addresses: tuple[tuple[str, str], ...] = ()  # names that only the server's own machines resolve, and where they are

    @property
    def asks_for_keys(self) -> bool:
        """Whether a caller without a key is refused."""
        return bool(self.key)

    @property
    def headers(self) -> dict[str, str]:
        """What a caller with every right sends."""
        return build_headers(self.key)

    @cached_property
    def registry(self) -> Registry:
        """The registry of its store, as the account's administrator reaches it."""
        return Registry(open_store(self.store_url))

    def ask(self, method: str, path: str, *, key: str | None = None, **more: Any) -> httpx2.Response:  # noqa: ANN401 - httpx's own
        """Send a request with the key of all scopes, or with another one; an empty one is none."""
        headers = {**build_headers(self.key if key is None else key), **more.pop("headers", {})}
        return httpx2.request(method, f"{self.url}{path}", headers=headers, timeout=TIMEOUT_S, **more)


def build_headers(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} if key else {}


def split_bytes(text: str) -> list[bytes]:
    """Split a text into the script of a model that writes it byte by byte."""
    return [bytes([byte]) for byte in text.encode()]


def publish_models(registry: Registry) -> None:
    """Publish what the tests ask for; `laboratory` is for the routes that move aliases and remove versions."""
    for _ in range(2):
        fakes.publish_digits(registry)
    publish_pair(registry)
    fakes.publish(registry, "logarithm", of="logarithm")
    for datatype in ECHOES:
        fakes.publish_echo(registry, datatype)
    for _ in range(4):
        fakes.publish(registry, "laboratory")
    fakes.publish(registry, "spare")
    publish_scripted(registry, name="chat")
    publish_scripted(registry, split_bytes(CALL), name="calling", context_length=4096)
    publish_scripted(registry, split_bytes(CITY), name="telling", context_length=4096)
    publish_vectors(registry, "vectors")
    reported = structs.replace(fakes.draft("reported"), report="report.json")
    registry.publish_version(reported, {"model.onnx": fakes.graph("double"), "report.json": b'{"variants": {}}'})
